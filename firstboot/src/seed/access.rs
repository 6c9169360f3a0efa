// SPDX-License-Identifier: Apache-2.0
//! What `[access]` may say: who may log in to this device over SSH. Without it no login is possible.
//!
//! Messages of `parse` say what was expected, never what was found.

use crate::fault::Code;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::harden::source;
use super::reader::Reader;
use super::ssh_key::SshKey;

/// Keys of `[access]`.
pub(super) const KEYS: [&str; 3] = ["ssh-keys", "ssh-from", "user"];
/// The account that keys open, unless the seed names another.
const USER: &str = "admin";
/// Accounts and groups that the system has for itself: Debian's base-passwd, and those of packages that images contain.
const TAKEN: &str = "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody nogroup adm \
                     tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl \
                     plugdev staff users input sgx kvm clock render crontab netdev wheel sshd messagebus polkitd tss uuidd \
                     lxd docker";
/// Table `[access]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The account that the keys open.
    pub user: String,
    /// Public keys; none: no SSH at all.
    pub keys: Vec<SshKey>,
    /// Where logins may come from; empty: from anywhere.
    pub from: Vec<IpNet>,
}

impl Default for Access {
    /// No one may log in.
    fn default() -> Self {
        Access { user: USER.to_owned(), keys: Vec::new(), from: Vec::new() }
    }
}

/// Name of an account: `useradd`'s rule, and none that the system has.
pub(super) fn user(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let shaped = (1..=32).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(good)
        && !text.starts_with("systemd-");
    match shaped && !TAKEN.split_whitespace().any(|taken| taken == text) {
        true => Ok(text.to_owned()),
        false => Err("expected the name of an account for people, a-z, 0-9, - and _, not root".to_owned()),
    }
}

impl Reader {
    pub(super) fn access(&mut self, table: &DeTable<'_>) -> Option<Access> {
        self.unknown_keys("access", table, &KEYS);
        let user = table.get("user").map_or(Some(USER.to_owned()), |v| self.string(v, "user", "access", user));
        let keys =
            table.get("ssh-keys").map_or(Some(Vec::new()), |v| self.strings(v, "ssh-keys", "access", SshKey::parse));
        let from = table.get("ssh-from").map_or(Some(Vec::new()), |v| self.strings(v, "ssh-from", "access", source));
        let (user, keys, from) = (user?, keys?, from?);
        for key in ["user", "ssh-from"].iter().filter(|_| keys.is_empty()) {
            if let Some((key, _)) = table.get_key_value(*key) {
                let text = format!("{} in [access] is nothing without ssh-keys", key.get_ref());
                self.error(key.span().start, Code::ConflictingKeys, text);
            }
        }
        Some(Access { user, keys, from })
    }
}
