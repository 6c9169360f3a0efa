// SPDX-License-Identifier: Apache-2.0
//! What `[owner]` may say: whose signature a stick has to carry before a joined device obeys it.

use toml::de::DeTable;

use super::reader::Reader;
use super::ssh_key::SshKey;

/// Keys of `[owner]`.
pub(super) const KEYS: [&str; 1] = ["keys"];
/// Algorithms of keys by which a signature is verified: OpenSSH's names of those that ring verifies.
pub const ALGORITHMS: [&str; 3] = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"];
/// Most keys that a seed may have: the journal keeps them, and each signature is held against all of them.
const MOST: usize = 16;

/// Reads one key, as a `.pub` file has it.
fn key(text: &str) -> Result<SshKey, String> {
    let known = SshKey::parse(text).ok().filter(|key| ALGORITHMS.contains(&key.algorithm.as_str()));
    known.ok_or_else(|| {
        format!("expected a line of a .pub file, as in ssh-ed25519 AAAA… name ({})", ALGORITHMS.join(", "))
    })
}

impl Reader {
    pub(super) fn owner(&mut self, table: &DeTable<'_>) -> Option<Vec<SshKey>> {
        self.unknown_keys("owner", table, &KEYS);
        let Some(value) = table.get("keys") else { return Some(Vec::new()) };
        let keys = self.strings(value, "keys", "owner", key)?;
        if keys.len() > MOST {
            let text = format!("malformed keys in [owner]: expected at most {MOST} keys");
            self.error(value.span().start, crate::fault::Code::BadValue, text);
        }
        Some(keys)
    }
}
