// SPDX-License-Identifier: Apache-2.0
//! Settings of a login session (CIS Debian 1.5.3, 1.6, 5.4.3). Only a seed with SSH keys permits logins.
//!
//! There is no password ageing: no account has a password, and an expired locked password would block logins by key.

use crate::check::{Finding, Verdict};
use crate::harden::overrides::AuditContext;
use anyhow::Result;

/// The banner that SSH shows before a login.
pub const BANNER: &str = "/etc/issue.net";
/// Defaults of useradd and others for new accounts (login.defs(5)).
pub const LOGIN_DEFS: &str = "/etc/login.defs";

const WARNING: &str = "\
This device is private property, and access to it is restricted to those whom its owner has authorized.
Unauthorized use is prohibited by law. Sessions are logged.
";

/// A file that every image contains: path, text, reason.
#[rustfmt::skip]
pub const FILES: &[(&str, &str, &str)] = &[
    ("/etc/profile.d/firstboot.sh", "umask 027\nulimit -c 0\nTMOUT=900\nreadonly TMOUT\nexport TMOUT\n", "files are private to their owner, the memory of a failed program is not kept, and a forgotten shell ends"),
    ("/etc/security/limits.d/50-firstboot.conf", "* hard core 0\nroot hard core 0\n* hard nproc 128\n* hard fsize 65536\n", "the memory of a failed program is not kept, and no session fills the table of processes, or a file with more than 64 MiB"),
    ("/etc/issue", WARNING, "visitors are warned, and learn nothing about the system"),
    (BANNER, WARNING, "visitors are warned, and learn nothing about the system"),
];

/// The last line of every image's [`LOGIN_DEFS`].
pub const UMASK: (&str, &str, &str) = ("UMASK", "027", "files are private to their owner");

/// login.defs with [`UMASK`] as the last line and no other line for the same key.
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

/// An owner may write banners of his own, as long as they do not describe the system (CIS 1.6.2). Other files must be
/// unchanged.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for (path, text, why) in FILES {
        let found = context.host.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let found = found.as_deref();
        let (wanted, is_expected) = match *text == WARNING {
            true => ("a warning", found.is_some_and(|f| !f.trim().is_empty() && !f.contains('\\'))),
            false => ("as the image has it", found == Some(*text)),
        };
        let state = if is_expected { Verdict::Ok } else { Verdict::Drift };
        let found = match (is_expected, found) {
            (true, _) => wanted,
            (false, Some(_)) => "another text",
            (false, None) => "missing",
        };
        let (wanted, found) = (wanted.to_owned(), found.to_owned());
        all.push(Finding { id: format!("login{path}"), state, wanted, found, why: (*why).to_owned() });
    }
    let (key, value, why) = UMASK;
    let defs = context.host.read_text(LOGIN_DEFS)?.unwrap_or_default();
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
    fn umask_line_is_unique() {
        let text = login_defs("# UMASK 022\nUMASK\t022\nUMASKED 1\n");
        assert_eq!(text, "# UMASK 022\nUMASKED 1\n# files are private to their owner\nUMASK 027\n");
        assert_eq!(login_defs(&text).matches("UMASK 027").count(), 1);
    }

    #[test]
    fn own_banner_is_accepted_and_banner_with_system_details_is_drift() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        for (path, text, _) in FILES {
            host.write(path, text.as_bytes(), 0o644).unwrap();
        }
        host.write(LOGIN_DEFS, login_defs("").as_bytes(), 0o644).unwrap();
        let context = AuditContext { host: &host, kept: SeedOverrides::default() };
        let deviations = || -> Vec<(String, String)> {
            let all = audit(&context).unwrap();
            assert_eq!(all.len(), FILES.len() + 1, "{all:#?}");
            all.into_iter().filter(|f| f.state != Verdict::Ok).map(|f| (f.id, f.found)).collect()
        };
        assert_eq!(deviations(), []);
        host.write(BANNER, b"Property of a shop.\n", 0o644).unwrap();
        host.write("/etc/issue", b"Debian GNU/Linux 13 \\n \\l\n", 0o644).unwrap();
        host.write("/etc/profile.d/firstboot.sh", b"", 0o644).unwrap();
        host.write(LOGIN_DEFS, b"UMASK 027\nUMASK 022\n", 0o644).unwrap();
        let pair = |id: &str, found: &str| (id.to_owned(), found.to_owned());
        assert_eq!(
            deviations(),
            [
                pair("login/etc/profile.d/firstboot.sh", "another text"),
                pair("login/etc/issue", "another text"),
                pair("login/etc/login.defs UMASK", "022"),
            ]
        );
    }
}
