// SPDX-License-Identifier: Apache-2.0
//! The account for a seed's SSH keys: its lines in passwd, group, shadow and gshadow. Pure: text in, text out.
//!
//! firstboot recognizes its own account by the comment field, so that the account of the next seed replaces it and a
//! seed without keys removes it. Nothing else in these files is changed. Format: passwd(5), shadow(5).

use std::ops::RangeInclusive;

/// The comment that marks an account as firstboot's.
const MARK: &str = "made by firstboot for SSH";
/// Directory of home directories.
pub const HOMES: &str = "/home";
/// Groups that may read the system's logs, and nothing more.
pub const GROUPS: [&str; 2] = ["adm", "systemd-journal"];
/// Numbers of users and groups that an account of firstboot's may have. The packet filter knows the account by them, so no
/// program may run under one: they are the last of those for people (Debian Policy, 9.2.2), above what images of containers
/// on the host's network use.
pub const IDS: RangeInclusive<u32> = 59_000..=59_999;
/// Day of the last password "change", in days since 1970. Any fixed day in the past will do.
const CHANGED: u32 = 20_000;

/// Contents of the four files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// /etc/passwd
    pub passwd: String,
    /// /etc/group
    pub group: String,
    /// /etc/shadow
    pub shadow: String,
    /// /etc/gshadow
    pub gshadow: String,
}

impl Accounts {
    /// The files with `user` as firstboot's only account, or without any; `None` when the system itself has an account
    /// or a group of that name.
    pub fn with(&self, user: Option<&str>) -> Option<Accounts> {
        let own: Vec<&str> = fields(&self.passwd).filter(|l| l.get(4) == Some(&MARK)).map(|l| l[0]).collect();
        let id = fields(&self.passwd).find(|l| Some(l[0]) == user && l.get(4) == Some(&MARK)).map(|l| l[2].to_owned());
        let mut rest = Accounts {
            passwd: without(&self.passwd, &own),
            group: without_member(&without(&self.group, &own), &own, 3),
            shadow: without(&self.shadow, &own),
            gshadow: without_member(&without(&self.gshadow, &own), &own, 3),
        };
        let Some(user) = user else { return Some(rest) };
        if fields(&rest.passwd).chain(fields(&rest.group)).any(|l| l[0] == user) {
            return None;
        }
        let id = id.filter(|id| id.parse().is_ok_and(|id| IDS.contains(&id))).unwrap_or_else(|| free_id(&rest));
        rest.passwd += &format!("{user}:x:{id}:{id}:{MARK}:{HOMES}/{user}:/bin/bash\n");
        rest.group = with_member(&rest.group, user, 3) + &format!("{user}:x:{id}:\n");
        rest.shadow += &format!("{user}:!*:{CHANGED}:0:99999:7:::\n");
        rest.gshadow = with_member(&rest.gshadow, user, 3) + &format!("{user}:!*::\n");
        Some(rest)
    }
}

/// Accounts in /etc/shadow with a usable password.
pub fn with_password(shadow: &str) -> Vec<&str> {
    let locked = |l: &Vec<&str>| l.get(1).is_some_and(|p| p.starts_with('!') || p.starts_with('*'));
    fields(shadow).filter(|l| !locked(l)).map(|l| l[0]).collect()
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|l| !l.is_empty()).map(|l| l.split(':').collect())
}

fn without(text: &str, names: &[&str]) -> String {
    let stays = |line: &&str| line.split(':').next().is_some_and(|name| !names.contains(&name));
    text.lines().filter(stays).map(|line| format!("{line}\n")).collect()
}

/// Changes the list of members, field `at`, of some lines.
fn members(text: &str, at: usize, change: impl Fn(&str, &mut Vec<String>)) -> String {
    let one = |line: &str| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if fields.len() > at {
            let mut list: Vec<String> = fields[at].split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
            change(&fields[0], &mut list);
            fields[at] = list.join(",");
        }
        fields.join(":") + "\n"
    };
    text.lines().map(one).collect()
}

fn without_member(text: &str, names: &[&str], at: usize) -> String {
    members(text, at, |_, list| list.retain(|m| !names.contains(&m.as_str())))
}

fn with_member(text: &str, user: &str, at: usize) -> String {
    members(text, at, |group, list| {
        if GROUPS.contains(&group) {
            list.push(user.to_owned());
        }
    })
}

/// The first of [`IDS`] that neither a user nor a group has.
fn free_id(accounts: &Accounts) -> String {
    let taken: Vec<&str> =
        fields(&accounts.passwd).chain(fields(&accounts.group)).filter_map(|l| l.get(2).copied()).collect();
    IDS.map(|id| id.to_string()).find(|id| !taken.contains(&id.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nsshd:x:998:998:sshd user:/run/sshd:/usr/sbin/nologin\n".into(),
            group: "root:x:0:\nadm:x:4:syslog\nsystemd-journal:x:999:\nusers:x:59000:\n".into(),
            shadow: "root:!*:20000:0:99999:7:::\nsshd:!*:20000:0:99999:7:::\n".into(),
            gshadow: "root:!*::\nadm:!*::syslog\nsystemd-journal:!*::\nusers:!*::\n".into(),
        }
    }

    #[test]
    fn account_is_added_once_and_removed_again() {
        let with = image().with(Some("admin")).unwrap();
        let last = |text: &str| text.lines().last().unwrap().to_owned();
        assert_eq!(
            last(&with.passwd),
            format!("admin:x:59001:59001:made by firstboot for SSH:{HOMES}/admin:/bin/bash")
        );
        assert_eq!(last(&with.shadow), "admin:!*:20000:0:99999:7:::");
        assert_eq!(
            with.group,
            "root:x:0:\nadm:x:4:syslog,admin\nsystemd-journal:x:999:admin\nusers:x:59000:\nadmin:x:59001:\n"
        );
        assert!(with.gshadow.contains("adm:!*::syslog,admin\n") && with.gshadow.ends_with("admin:!*::\n"));
        assert_eq!(with.with(Some("admin")).unwrap(), with);
        assert_eq!(with.with(None).unwrap(), image());
        assert_eq!(image().with(None).unwrap(), image());
    }

    #[test]
    fn next_account_replaces_the_previous_one() {
        let with = image().with(Some("admin")).unwrap().with(Some("ops")).unwrap();
        assert_eq!(with, image().with(Some("ops")).unwrap());
    }

    #[test]
    fn names_of_system_accounts_are_rejected() {
        assert_eq!(image().with(Some("sshd")), None);
        assert_eq!(image().with(Some("users")), None);
    }

    #[test]
    fn usable_passwords_are_found() {
        assert!(with_password(&image().shadow).is_empty());
        let open = "root:$y$j9T$x:1::::::\na::1::::::\nb:*:1::::::\nc:!:1::::::\nd\n";
        assert_eq!(with_password(open), ["root", "a", "d"]);
    }
}
