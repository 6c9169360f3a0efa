// SPDX-License-Identifier: Apache-2.0
//! System accounts: base-passwd's fixed ones, then those that packages declare in sysusers.d(5).
//! No account has a password that could be entered.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Passwords were "changed" on this day, in days since 1970: any fixed day in the past serves.
const CHANGED: u32 = 20_000;

/// The account files of a system.
#[derive(Debug, Default)]
pub struct Accounts {
    /// Lines of /etc/passwd.
    passwd: Vec<Vec<String>>,
    /// Lines of /etc/group.
    group: Vec<Vec<String>>,
}

impl Accounts {
    /// Reads what base-passwd and sysusers.d say in the tree.
    pub fn read(tree: &Path) -> Result<Accounts> {
        let master = |name: &str| {
            let path = tree.join("usr/share/base-passwd").join(name);
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let lines = |text: String| text.lines().map(|l| l.split(':').map(str::to_owned).collect()).collect();
        let mut accounts = Accounts { passwd: lines(master("passwd.master")?), group: lines(master("group.master")?) };
        let directory = tree.join("usr/lib/sysusers.d");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let path = entry?.path();
            files.insert(path.file_name().map(ToOwned::to_owned), path);
        }
        for path in files.values() {
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            accounts.declare(&text).with_context(|| format!("read {}", path.display()))?;
        }
        Ok(accounts)
    }

    /// Adds what a sysusers.d file declares, unless it exists.
    fn declare(&mut self, text: &str) -> Result<()> {
        for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let words = words(line);
            let word = |n: usize| words.get(n).map(String::as_str).filter(|w| *w != "-");
            let name = word(1).with_context(|| format!("no name in `{line}`"))?;
            match word(0) {
                Some("g") => {
                    self.add_group(name, word(2).and_then(|id| id.parse().ok()));
                }
                Some("u" | "u!") => {
                    let (uid, gid) = ids(word(2));
                    let gid = match gid {
                        Some(gid) => gid,
                        None => self.add_group(name, uid),
                    };
                    self.add_user(name, uid.unwrap_or(gid), gid, word(3), word(4), word(5));
                }
                Some("m") => self.add_member(name, word(2).with_context(|| format!("no group in `{line}`"))?)?,
                Some("r") => {}
                _ => bail!("unknown type in `{line}`"),
            }
        }
        Ok(())
    }

    fn add_group(&mut self, name: &str, id: Option<u32>) -> u32 {
        if let Some(known) = self.gid(name) {
            return known;
        }
        let id = id.unwrap_or_else(|| self.free_id());
        self.group.push(vec![name.into(), "x".into(), id.to_string(), String::new()]);
        id
    }

    fn add_user(
        &mut self,
        name: &str,
        uid: u32,
        gid: u32,
        gecos: Option<&str>,
        home: Option<&str>,
        shell: Option<&str>,
    ) {
        if self.passwd.iter().any(|l| l[0] == name) {
            return;
        }
        let fields = [
            name,
            "x",
            &uid.to_string(),
            &gid.to_string(),
            gecos.unwrap_or_default(),
            home.unwrap_or("/"),
            shell.unwrap_or("/usr/sbin/nologin"),
        ];
        self.passwd.push(fields.map(str::to_owned).to_vec());
    }

    fn add_member(&mut self, user: &str, group: &str) -> Result<()> {
        let line = self.group.iter_mut().find(|l| l[0] == group).with_context(|| format!("no group {group}"))?;
        let members = &mut line[3];
        if !members.split(',').any(|m| m == user) {
            *members = if members.is_empty() { user.to_owned() } else { format!("{members},{user}") };
        }
        Ok(())
    }

    /// Identifier of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        self.group.iter().find(|l| l[0] == name)?.get(2)?.parse().ok()
    }

    /// The highest identifier below 1000 that neither users nor groups have, as systemd-sysusers chooses.
    fn free_id(&self) -> u32 {
        let taken = |id: u32| {
            let id = id.to_string();
            self.passwd.iter().chain(&self.group).any(|l| l.get(2) == Some(&id))
        };
        (100..1000).rev().find(|id| !taken(*id)).unwrap_or(999)
    }

    /// Writes passwd, group, shadow and gshadow; every password is locked.
    pub fn write(&self, tree: &Path) -> Result<()> {
        let put = |name: &str, text: String| {
            let path = tree.join("etc").join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let hidden = |lines: &[Vec<String>]| -> String {
            lines
                .iter()
                .map(|l| {
                    let mut l = l.clone();
                    l[1] = "x".to_owned();
                    l.join(":") + "\n"
                })
                .collect()
        };
        put("passwd", hidden(&self.passwd))?;
        put("group", hidden(&self.group))?;
        put("shadow", self.passwd.iter().map(|l| format!("{}:!*:{CHANGED}:0:99999:7:::\n", l[0])).collect())?;
        put("gshadow", self.group.iter().map(|l| format!("{}:!*::{}\n", l[0], l[3])).collect())
    }
}

/// `UID`, `UID:GID` or nothing.
fn ids(word: Option<&str>) -> (Option<u32>, Option<u32>) {
    let Some(word) = word else { return (None, None) };
    match word.split_once(':') {
        Some((uid, gid)) => (uid.parse().ok(), gid.parse().ok()),
        None => (word.parse().ok(), None),
    }
}

/// Splits at blanks outside double quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|w| w.push(c)),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn declared_accounts_are_added_once_and_locked() {
        let line = |s: &str| s.split(':').map(str::to_owned).collect();
        let mut accounts =
            Accounts { passwd: vec![line("root:*:0:0:root:/root:/bin/bash")], group: vec![line("root:*:0:")] };
        accounts.declare("# comment\ng kvm -\nu! svc - \"A Service\"\nu root 0 - /root /bin/sh\nm svc kvm\n").unwrap();
        assert_eq!(accounts.gid("kvm"), Some(999));
        let dir = std::env::temp_dir().join(format!("accounts-{}", std::process::id()));
        fs::create_dir_all(dir.join("etc")).unwrap();
        accounts.write(&dir).unwrap();
        let read = |n: &str| fs::read_to_string(dir.join("etc").join(n)).unwrap();
        assert_eq!(read("passwd"), "root:x:0:0:root:/root:/bin/bash\nsvc:x:998:998:A Service:/:/usr/sbin/nologin\n");
        assert_eq!(read("group"), "root:x:0:\nkvm:x:999:svc\nsvc:x:998:\n");
        assert_eq!(read("shadow"), "root:!*:20000:0:99999:7:::\nsvc:!*:20000:0:99999:7:::\n");
        fs::remove_dir_all(dir).unwrap();
        assert_eq!(accounts.declare("x what\n").unwrap_err().to_string(), "unknown type in `x what`");
    }
}
