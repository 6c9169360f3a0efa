// SPDX-License-Identifier: Apache-2.0
//! The link: files of systemd-networkd, wpa_supplicant and NetworkManager, and which interface is meant.

pub(crate) mod keyfile;
pub(crate) mod networkd;
pub(crate) mod select_link;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wifi;

/// The interfaces that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// All that are wired and no part of another one.
    EveryWired,
    /// By the kernel's name.
    Name(String),
    /// By hardware address, as sysfs writes it.
    Mac(String),
}

/// Name of the interface of a VLAN.
pub(crate) fn vlan_name(id: u16) -> String {
    format!("vlan{id}")
}
