// SPDX-License-Identifier: Apache-2.0
//! The link: files of systemd-networkd, wpa_supplicant and NetworkManager, the choice of the interface, and whether its radio
//! may send.

pub(crate) mod keyfile;
pub(crate) mod networkd;
pub(crate) mod rfkill;
pub(crate) mod select_link;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wifi;

/// The interfaces that `[network]` applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// All wired interfaces that are not part of another one.
    EveryWired,
    /// One interface, by the kernel's name.
    Name(String),
    /// One interface, by hardware address in sysfs notation.
    Mac(String),
}

/// Name of the interface of a VLAN.
pub(crate) fn vlan_name(id: u16) -> String {
    format!("vlan{id}")
}
