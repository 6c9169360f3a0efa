// SPDX-License-Identifier: Apache-2.0
//! sshd's configuration: as text, and as sshd itself parses it.

use super::*;
use crate::seed::SshKey;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn keys_permit_a_terminal_and_nothing_else() {
    let mut access = Access { keys: vec![SshKey::parse(&format!("{KEY} work")).unwrap()], ..Access::default() };
    assert_eq!(keys(&access), format!("restrict,pty {KEY} work\n"));
    access.from = vec!["10.0.0.0/24".parse().unwrap(), "fd00::/8".parse().unwrap()];
    assert_eq!(keys(&access), format!("from=\"10.0.0.0/24,fd00::/8\",restrict,pty {KEY} work\n"));
}

#[test]
fn configuration_names_the_host_key_and_the_keys_file() {
    let text = config("ops");
    assert!(text.contains(&format!("\nHostKey {HOST_KEY}\n")) && text.contains("\nAllowUsers ops\n"));
    assert!(text.contains(&format!("\nAuthorizedKeysFile {KEYS_DIR}/%u\n")));
    assert!(!text.contains("USER"));
}

#[test]
fn differing_values_are_reported() {
    let effective: String = DIRECTIVES
        .iter()
        .map(|(key, value, _)| format!("{} {}\n", key.to_ascii_lowercase(), value.replace("USER", "admin")))
        .collect();
    assert_eq!(differences(&effective, "admin"), []);
    let other = effective.replace("passwordauthentication no", "passwordauthentication yes").replace("usedns no\n", "");
    let found = differences(&format!("{other}allowusers guest\n"), "admin");
    assert_eq!(
        found,
        [
            ("AllowUsers", "admin, guest".to_owned()),
            ("PasswordAuthentication", "yes".to_owned()),
            ("UseDNS", "missing".to_owned()),
        ]
    );
}

/// sshd parses the file (`-G`: needs no keys and no account) and reports every line as intended. `make test` sets
/// `FIRSTBOOT_SSHD` to the images' Debian sshd; otherwise the machine's own is used.
#[test]
fn sshd_parses_every_line_as_intended() {
    let named = std::env::var_os("FIRSTBOOT_SSHD").map(std::path::PathBuf::from);
    let Some(program) = named.or_else(|| Some("/usr/sbin/sshd".into()).filter(|p: &std::path::PathBuf| p.exists()))
    else {
        crate::test_namespaces::skip::skip_unless_ci("no FIRSTBOOT_SSHD and no /usr/sbin/sshd");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sshd_config");
    #[allow(clippy::disallowed_methods)] // a test's own directory
    let put = std::fs::write(&path, config("admin"));
    put.unwrap();
    #[allow(clippy::disallowed_methods)] // runs sshd itself
    let out = std::process::Command::new(program).arg("-G").arg("-f").arg(&path).output().unwrap();
    let (text, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && error.is_empty(), "{error}");
    assert_eq!(differences(&text, "admin"), []);
}
