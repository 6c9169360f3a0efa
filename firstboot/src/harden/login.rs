// SPDX-License-Identifier: Apache-2.0
//! What a session of somebody who logs in is like (CIS Debian 1.5.3, 1.6, 5.4.3). Only a seed with SSH keys lets anybody.
//!
//! No ages of passwords: no account has one, and a locked password that expires keeps out whoever comes with a key.

use crate::finding::{Finding, State};
use crate::harden::overrides::AuditContext;
use anyhow::Result;

/// What whoever connects by SSH is told first.
pub const BANNER: &str = "/etc/issue.net";
/// Where useradd and others find a new account's settings (login.defs(5)).
pub const LOGIN_DEFS: &str = "/etc/login.defs";

const WARNING: &str = "\
This device is private property, and access to it is restricted to those whom its owner has authorized.
Unauthorized use is prohibited by law. Sessions are logged.
";

/// A file that every image holds: path, text, reason.
#[rustfmt::skip]
pub const FILES: &[(&str, &str, &str)] = &[
    ("/etc/profile.d/firstboot.sh", "umask 027\nulimit -c 0\nTMOUT=900\nreadonly TMOUT\nexport TMOUT\n", "files are nobody else's business, a failed program's memory is not kept, and a shell that somebody forgot ends"),
    ("/etc/issue", WARNING, "whoever comes is warned, and learns nothing of the system"),
    (BANNER, WARNING, "whoever comes is warned, and learns nothing of the system"),
];

/// A line that every image's [`LOGIN_DEFS`] ends with.
pub const UMASK: (&str, &str, &str) = ("UMASK", "027", "files are nobody else's business");

/// login.defs with our line at its end; no other line sets the same.
#[must_use]
pub fn login_defs(text: &str) -> String {
    let (key, value, why) = UMASK;
    let others: String = text.lines().filter(|l| setting(l, key).is_none()).map(|l| format!("{l}\n")).collect();
    format!("{others}# {why}\n{key} {value}\n")
}

fn setting<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| *word == key).map(|_| words.next().unwrap_or_default())
}

/// Banners are the owner's to write, as long as they say nothing of the system (CIS 1.6.2); the rest is as it was made.
pub(crate) fn audit(ground: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for (path, text, why) in FILES {
        let found = ground.host.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let found = found.as_deref();
        let (wanted, holds) = match *text == WARNING {
            true => ("a warning", found.is_some_and(|f| !f.trim().is_empty() && !f.contains('\\'))),
            false => ("as the image has it", found == Some(*text)),
        };
        let state = if holds { State::Ok } else { State::Drift };
        let found = match (holds, found) {
            (true, _) => wanted,
            (false, Some(_)) => "another text",
            (false, None) => "missing",
        };
        let (wanted, found) = (wanted.to_owned(), found.to_owned());
        all.push(Finding { id: format!("login{path}"), state, wanted, found, why: (*why).to_owned() });
    }
    let (key, value, why) = UMASK;
    let defs = ground.host.read_text(LOGIN_DEFS)?.unwrap_or_default();
    let found = defs.lines().filter_map(|l| setting(l, key)).next_back().map(str::to_owned);
    all.push(Finding::compare(format!("login{LOGIN_DEFS} {key}"), value, None, found, why));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::Host;
    use crate::host::fake::Fake;

    #[test]
    fn our_line_is_the_only_one() {
        let text = login_defs("# UMASK 022\nUMASK\t022\nUMASKED 1\n");
        assert_eq!(text, "# UMASK 022\nUMASKED 1\n# files are nobody else's business\nUMASK 027\n");
        assert_eq!(login_defs(&text).matches("UMASK 027").count(), 1);
    }

    #[test]
    fn an_owners_banner_stays_and_one_that_tells_the_system_is_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        for (path, text, _) in FILES {
            host.write(path, text.as_bytes(), 0o644).unwrap();
        }
        host.write(LOGIN_DEFS, login_defs("").as_bytes(), 0o644).unwrap();
        let ground = AuditContext { host: &host, kept: SeedOverrides::default() };
        let odd = || -> Vec<(String, String)> {
            let all = audit(&ground).unwrap();
            assert_eq!(all.len(), FILES.len() + 1, "{all:#?}");
            all.into_iter().filter(|f| f.state != State::Ok).map(|f| (f.id, f.found)).collect()
        };
        assert_eq!(odd(), []);
        host.write(BANNER, b"Property of a shop.\n", 0o644).unwrap();
        host.write("/etc/issue", b"Debian GNU/Linux 13 \\n \\l\n", 0o644).unwrap();
        host.write("/etc/profile.d/firstboot.sh", b"", 0o644).unwrap();
        host.write(LOGIN_DEFS, b"UMASK 027\nUMASK 022\n", 0o644).unwrap();
        let pair = |id: &str, found: &str| (id.to_owned(), found.to_owned());
        assert_eq!(
            odd(),
            [
                pair("login/etc/profile.d/firstboot.sh", "another text"),
                pair("login/etc/issue", "another text"),
                pair("login/etc/login.defs UMASK", "022"),
            ]
        );
    }
}
