// SPDX-License-Identifier: Apache-2.0
//! The mirrors that packages come from, and apt's settings: of the build machine's own only how mirrors are reached. What
//! decides whether a mirror is believed is set here (apt.conf(5), apt-secure(8)).

use super::SUITE;
use super::lists::Exception;
use crate::arch::Arch;
use crate::cmd;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Names the mirror (`http://HOST/debian`) when the build machine's own apt does not use a Debian one.
pub(super) const MIRROR_ENV: &str = "FIRSTBOOT_DEBIAN_MIRROR";
/// Names the mirror of security updates (`http://HOST/debian-security`). [`MIRROR_ENV`] requires it.
const SECURITY_ENV: &str = "FIRSTBOOT_DEBIAN_SECURITY_MIRROR";
/// Public keys of the Debian archive; package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Parts of the archive: Debian itself, and firmware that boards do not start without.
pub(super) const COMPONENTS: &str = "main non-free-firmware";
/// Settings of `Acquire::http` and `Acquire::https` that say how a mirror is reached, and whose certificate it may have.
const REACH: [&str; 14] = [
    "cainfo",
    "crlfile",
    "dl-limit",
    "issuercert",
    "pipeline-depth",
    "proxy",
    "proxy-auto-detect",
    "proxyautodetect",
    "sendaccept",
    "sslcert",
    "sslkey",
    "timeout",
    "use-userinfo",
    "user-agent",
];

/// apt.conf for a root directory of its own.
pub(super) fn configuration(root: &Path, arch: Arch, exceptions: &BTreeSet<Exception>) -> Result<String> {
    let own = cmd::output(Command::new("apt-config").args(["dump", "--no-empty", "Acquire"]))?;
    Ok(text(&reach(&String::from_utf8_lossy(&own)), root, arch, exceptions))
}

fn text(reach: &str, root: &Path, arch: Arch, exceptions: &BTreeSet<Exception>) -> String {
    let root = root.display();
    let valid = !exceptions.contains(&Exception::OldLists);
    format!(
        "{reach}\
         APT::Architecture \"{arch}\";\n\
         APT::Architectures {{ \"{arch}\"; }};\n\
         APT::Install-Recommends \"false\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Get::AllowUnauthenticated \"false\";\n\
         APT::Get::Assume-Yes \"true\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::GzipIndexes \"true\";\n\
         Acquire::AllowInsecureRepositories \"false\";\n\
         Acquire::AllowWeakRepositories \"false\";\n\
         Acquire::AllowDowngradeToInsecureRepositories \"false\";\n\
         Acquire::AllowReleaseInfoChange \"false\";\n\
         Acquire::Check-Date \"true\";\n\
         Acquire::Check-Valid-Until \"{valid}\";\n\
         Acquire::https::Verify-Peer \"true\";\n\
         Acquire::https::Verify-Host \"true\";\n\
         Acquire::Retries \"3\";\n\
         Debug::NoLocking \"true\";\n\
         Dir \"{root}\";\n\
         Dir::State \"{root}/state\";\n\
         Dir::State::status \"{root}/state/status\";\n\
         Dir::Cache \"{root}/cache\";\n\
         Dir::Etc \"{root}/etc\";\n\
         Dir::Etc::parts \"{root}/etc/parts\";\n\
         Dir::Etc::sourcelist \"{root}/etc/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::Etc::netrc \"/etc/apt/auth.conf\";\n\
         Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\n\
         Dir::Bin::methods \"/usr/lib/apt/methods\";\n\
         Dir::Log \"{root}/log\";\n"
    )
}

/// Those lines of `apt-config dump` that say how mirrors are reached. No other setting of the build machine's is in
/// force, so that none makes apt believe what is not signed, or is out of date.
fn reach(dump: &str) -> String {
    let wanted = |line: &&str| {
        let name = line.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        if ["acquire::forceipv4", "acquire::forceipv6"].contains(&name.as_str()) {
            return true;
        }
        let mut parts = name.split("::").skip(1);
        let transport = parts.next().is_some_and(|p| ["http", "https"].contains(&p));
        transport && parts.any(|p| REACH.contains(&p))
    };
    dump.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

/// The content of sources.list: the mirrors that the build machine itself uses, for our suite.
pub(super) fn sources(exceptions: &BTreeSet<Exception>) -> Result<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (main, security) = (variable(MIRROR_ENV), variable(SECURITY_ENV));
    let targets = match &main {
        Some(_) => Vec::new(),
        None => {
            let format = "$(REPO_URI) $(LABEL)";
            cmd::output(Command::new("apt-get").args(["indextargets", "--format", format]))?
        }
    };
    ensure!(Path::new(KEYRING).exists(), "read {KEYRING}: install package debian-archive-keyring");
    lines(main, security, &String::from_utf8_lossy(&targets), exceptions)
}

/// Addresses of the archives that packages come from, each once.
pub(super) fn archives(exceptions: &BTreeSet<Exception>) -> Result<Vec<String>> {
    let mut archives: Vec<String> = Vec::new();
    for archive in sources(exceptions)?.lines().filter_map(|line| line.split(' ').nth(2)) {
        if !archives.iter().any(|known| known == archive) {
            archives.push(archive.to_owned());
        }
    }
    Ok(archives)
}

/// The lines of sources.list for what the builder says and what apt says of its own sources.
fn lines(
    main: Option<String>,
    security: Option<String>,
    targets: &str,
    exceptions: &BTreeSet<Exception>,
) -> Result<String> {
    // A builder who names a mirror names both.
    let (targets, beside) = if main.is_some() { ("", false) } else { (targets, true) };
    let main = main.or_else(|| mirror(targets, "Debian"));
    let main =
        main.with_context(|| format!("find a Debian mirror: apt names none; set {MIRROR_ENV} and {SECURITY_ENV}"))?;
    let security = security.or_else(|| mirror(targets, "Debian-Security"));
    let security = security.or_else(|| sibling(&main).filter(|_| beside));
    let line = |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} {COMPONENTS}\n");
    let mut text = line(&main, SUITE) + &line(&main, &format!("{SUITE}-updates"));
    match security {
        Some(security) => text += &line(&security, &format!("{SUITE}-security")),
        None if exceptions.contains(&Exception::NoSecurity) => {}
        None => bail!("find security updates of Debian: set {SECURITY_ENV}, for example http://HOST/debian-security"),
    }
    Ok(text)
}

/// The first repository with this label in the output of `apt-get indextargets`.
fn mirror(targets: &str, label: &str) -> Option<String> {
    targets.lines().filter_map(|l| l.split_once(' ')).find(|(_, l)| *l == label).map(|(uri, _)| uri.to_owned())
}

/// Where a mirror of Debian's own layout has security updates: beside the archive.
fn sibling(main: &str) -> Option<String> {
    Some(format!("{}/debian-security", main.trim_end_matches('/').strip_suffix("/debian")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::process::Stdio;

    const ATTACK: &str = "Acquire::http::Proxy \"http://proxy.example:3128\";\n\
                          Acquire::https::Proxy::deb.example \"DIRECT\";\n\
                          Acquire::https::CaInfo \"/etc/ssl/own.pem\";\n\
                          Acquire::ForceIPv4 \"true\";\n\
                          Acquire::Check-Valid-Until \"false\";\n\
                          Acquire::Check-Date \"false\";\n\
                          Acquire::Max-FutureTime \"99999999\";\n\
                          Acquire::AllowInsecureRepositories \"true\";\n\
                          Acquire::AllowWeakRepositories \"true\";\n\
                          Acquire::AllowDowngradeToInsecureRepositories \"true\";\n\
                          Acquire::https::Verify-Peer \"false\";\n\
                          Acquire::https::deb.example::Verify-Peer \"false\";\n\
                          Acquire::https::deb.example::Verify-Host \"false\";\n";

    /// apt reads the file itself: what it makes of each setting counts.
    #[test]
    fn s12_no_apt_setting_of_the_build_machine_weakens_what_is_believed() {
        assert_eq!(reach(ATTACK).lines().collect::<Vec<_>>(), ATTACK.lines().take(4).collect::<Vec<_>>());
        if !cmd::found("apt-config") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("apt.conf");
        std::fs::write(&file, text(&reach(ATTACK), dir.path(), Arch::Amd64, &BTreeSet::new())).unwrap();
        let out =
            Command::new("apt-config").arg("dump").env("APT_CONFIG", &file).stdin(Stdio::null()).output().unwrap();
        let dump = String::from_utf8(out.stdout).unwrap();
        let value = |name: &str| {
            let found = dump.lines().rev().find_map(|l| l.strip_prefix(name)?.strip_prefix(" \"")?.strip_suffix("\";"));
            found.map(str::to_owned)
        };
        for (name, expected) in [
            ("Acquire::Check-Valid-Until", "true"),
            ("Acquire::Check-Date", "true"),
            ("Acquire::AllowInsecureRepositories", "false"),
            ("Acquire::AllowWeakRepositories", "false"),
            ("Acquire::AllowDowngradeToInsecureRepositories", "false"),
            ("Acquire::https::Verify-Peer", "true"),
            ("Acquire::https::Verify-Host", "true"),
            ("APT::Get::AllowUnauthenticated", "false"),
            ("Acquire::http::Proxy", "http://proxy.example:3128"),
            ("Acquire::https::CaInfo", "/etc/ssl/own.pem"),
        ] {
            assert_eq!(value(name).as_deref(), Some(expected), "{name}");
        }
        for name in ["Acquire::https::deb.example::Verify-Peer", "Acquire::Max-FutureTime"] {
            assert_eq!(value(name), None, "{name}");
        }
        let old = text("", dir.path(), Arch::Amd64, &BTreeSet::from([Exception::OldLists]));
        assert!(old.contains("Acquire::Check-Valid-Until \"false\";\n"));
    }

    #[test]
    fn s12_security_updates_are_always_among_the_sources() {
        let own = "https://example.net/other Other\nhttp://example.org/debian-security Debian-Security\n\
                   http://example.org/debian Debian\n";
        let none = BTreeSet::new();
        let get = |main: Option<&str>, security: Option<&str>, targets: &str, exceptions: &BTreeSet<Exception>| {
            lines(main.map(Into::into), security.map(Into::into), targets, exceptions).map_err(|e| e.to_string())
        };
        let text = get(None, None, own, &none).unwrap();
        let expected = ["/debian trixie", "/debian trixie-updates", "/debian-security trixie-security"];
        for (line, end) in text.lines().zip(expected) {
            assert_eq!(line, format!("deb [signed-by={KEYRING}] http://example.org{end} main non-free-firmware"));
        }
        assert_eq!(text.lines().count(), 3);
        // A mirror of one's own does not drop them.
        let missing = Err(format!(
            "find security updates of Debian: set {SECURITY_ENV}, for example http://HOST/debian-security"
        ));
        assert_eq!(get(Some("http://m.example/debian"), None, own, &none), missing);
        assert_eq!(get(None, None, "http://m.example/mirror Debian\n", &none), missing);
        let both = get(Some("http://m.example/d"), Some("http://m.example/s"), own, &none).unwrap();
        assert!(both.ends_with(" http://m.example/s trixie-security main non-free-firmware\n"), "{both}");
        // A machine whose apt has no line for them has them at the same mirror.
        let beside = get(None, None, "http://m.example/debian/ Debian\n", &none).unwrap();
        assert!(beside.contains(" http://m.example/debian-security trixie-security main"), "{beside}");
        let without = get(Some("http://m.example/d"), None, own, &BTreeSet::from([Exception::NoSecurity])).unwrap();
        assert_eq!(without.lines().count(), 2);
        let e = get(None, None, "", &none).unwrap_err();
        assert_eq!(e, format!("find a Debian mirror: apt names none; set {MIRROR_ENV} and {SECURITY_ENV}"));
    }
}
