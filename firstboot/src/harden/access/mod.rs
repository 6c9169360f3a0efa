// SPDX-License-Identifier: Apache-2.0
//! Logins to this device: none, unless the seed has SSH keys; then one account, by key.
//!
//! The image contains OpenSSH, not enabled, without a configuration and without host keys. A seed with keys adds all of
//! these, and a seed without keys removes them again; the host key stays, so that clients recognize the device. In an image
//! of others SSH may be enabled: that ends with the first seed, and comes back with a reset. The
//! account has no password, no sudo, a home directory that root owns, and the groups that read logs: it is for
//! inspection. Root access goes through the cluster (`kubectl debug node/NAME --profile=sysadmin`), which logs it.

pub mod accounts;
pub mod sshd;

use self::accounts::{Accounts, with_password};
use crate::check::Finding;
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::harden::overrides::AuditContext;
use crate::host::Host;
use crate::seed::Access;
use anyhow::{Context, Result};
use zeroize::Zeroizing;

const SSHD: &str = "/usr/sbin/sshd";
/// sshd's configuration.
pub(crate) const CONFIG: &str = "/etc/ssh/sshd_config";
const UNIT: &str = "ssh.service";
/// The link that `systemctl enable` would create, and its target.
const ENABLED: (&str, &str) =
    ("/etc/systemd/system/multi-user.target.wants/ssh.service", "/usr/lib/systemd/system/ssh.service");
/// Ubuntu's way: systemd listens, and starts the service at the first connection.
const SOCKET: &str = "ssh.socket";
/// Links that enable the socket, and that make the service need it.
const SOCKET_LINKS: [&str; 2] =
    ["/etc/systemd/system/sockets.target.wants/ssh.socket", "/etc/systemd/system/ssh.service.requires/ssh.socket"];
/// Path of a new host key until it is stored: in memory.
const NEW_KEY: &str = "/run/firstboot-host-key";
const FILES: [(&str, u32); 4] =
    [("/etc/passwd", 0o644), ("/etc/group", 0o644), ("/etc/shadow", 0o640), ("/etc/gshadow", 0o640)];

/// Programs whose set-ID bits the image removes, each with the reason.
#[rustfmt::skip]
pub const NO_SETID: &[(&str, &str)] = &[
    ("/usr/bin/su", "no user becomes another: there are no passwords"),
    ("/usr/bin/mount", "only root mounts"),
    ("/usr/bin/umount", "only root unmounts"),
    ("/usr/bin/passwd", "there are no passwords to change"),
    ("/usr/bin/gpasswd", "there are no passwords of groups"),
    ("/usr/bin/newgrp", "there are no passwords of groups to enter"),
    ("/usr/bin/chfn", "accounts are firstboot's to change"),
    ("/usr/bin/chsh", "the shell is firstboot's to change"),
    ("/usr/bin/chage", "passwords that are locked do not age"),
    ("/usr/bin/expiry", "passwords that are locked do not expire"),
    ("/usr/lib/openssh/ssh-keysign", "this host vouches for no user"),
];

/// Units that would offer a shell on the console.
const NO_CONSOLE: [&str; 5] =
    ["getty.target", "getty@.service", "serial-getty@.service", "console-getty.service", "debug-shell.service"];

fn read(host: &Host) -> Result<Accounts> {
    let text = |path: &str| -> Result<String> {
        String::from_utf8(host.read(path)?.unwrap_or_default()).with_context(|| format!("read {path} as text"))
    };
    let [passwd, group, shadow, gshadow] = FILES.map(|(path, _)| text(path));
    Ok(Accounts { passwd: passwd?, group: group?, shadow: shadow?, gshadow: gshadow? })
}

/// The account that must exist, if any.
fn user(access: &Access) -> Option<&str> {
    (!access.keys.is_empty()).then_some(access.user.as_str())
}

pub(super) fn check(host: &Host, access: &Access) -> Result<bool> {
    let now = read(host)?;
    let accounts = now.with(user(access)).is_some_and(|wanted| wanted == now);
    let linked = host.read_link(ENABLED.0)?;
    let socket = !socket_links(host)?.is_empty();
    let config = host.read(CONFIG)?;
    let keys = host.list(sshd::KEYS_DIR)?;
    Ok(accounts
        && !socket
        && match user(access) {
            None => linked.is_none() && config.is_none() && keys.is_empty(),
            Some(user) => {
                let stored = host.read(&format!("{}/{user}", sshd::KEYS_DIR))?;
                linked.as_deref() == Some(ENABLED.1)
                    && config.as_deref() == Some(sshd::config(user).as_bytes())
                    && keys == [user]
                    && stored.as_deref() == Some(sshd::keys(access).as_bytes())
                    && host.size_and_mode(sshd::HOST_KEY)?.is_some_and(|(size, mode)| size > 0 && mode == 0o600)
            }
        })
}

pub(super) fn apply(host: &Host, access: &Access) -> Result<(), Fault> {
    if user(access).is_some() && host.size_and_mode(SSHD).owned_by(Owner::Host)?.is_none() {
        return Err(Fault::new(
            Code::ProgramMissing,
            format!("find {SSHD}: the seed has SSH keys, and this image no SSH"),
        ));
    }
    let now = read(host).owned_by(Owner::Host)?;
    let Some(wanted) = now.with(user(access)) else {
        let text = format!("make account {}: this system has one of that name for itself", access.user);
        return Err(Fault::new(Code::SettingDoesNotFit, format!("{text}; change user in [access]")));
    };
    let work = || -> Result<()> {
        write_accounts(host, &now, &wanted)?;
        match user(access) {
            Some(user) => open(host, access, user),
            None => close(host),
        }
    };
    work().owned_by(Owner::Host)
}

/// Writes the files that differ. The comment in passwd marks firstboot's account, so passwd is written first when the
/// account is added and last when it is removed: after a power cut every leftover line can still be attributed.
fn write_accounts(host: &Host, now: &Accounts, wanted: &Accounts) -> Result<()> {
    if now == wanted {
        return Ok(());
    }
    let put = |accounts: &Accounts, order: [usize; 4]| -> Result<()> {
        let texts = [&accounts.passwd, &accounts.group, &accounts.shadow, &accounts.gshadow];
        order.into_iter().try_for_each(|n| host.write(FILES[n].0, texts[n].as_bytes(), FILES[n].1))
    };
    if now.passwd != wanted.passwd {
        put(&now.with(None).context("remove firstboot's account")?, [3, 2, 1, 0])?;
    }
    put(wanted, [0, 1, 2, 3])?;
    host.run(&["chgrp", "shadow", "/etc/shadow", "/etc/gshadow"]).map(drop)
}

fn open(host: &Host, access: &Access, user: &str) -> Result<()> {
    host.mkdir(&format!("{}/{user}", accounts::HOMES), 0o755)?;
    let keys = format!("{}/{user}", sshd::KEYS_DIR);
    let others: Vec<String> = host.list(sshd::KEYS_DIR)?.into_iter().filter(|name| name != user).collect();
    let differs = |path: &str, text: &str| -> Result<bool> {
        Ok(host.read(path)?.is_some_and(|stored| stored != text.as_bytes()))
    };
    // Of another seed: the sessions that it let in end before anything says that this has been done.
    if !others.is_empty() || differs(&keys, &sshd::keys(access))? || differs(CONFIG, &sshd::config(user))? {
        host.run(&["systemctl", "stop", UNIT])?;
    }
    if without_socket(host)? {
        // The service no longer needs the socket. (It takes systemd long, so only before a start.)
        host.run(&["systemctl", "daemon-reload"])?;
    }
    for other in others {
        host.remove(&format!("{}/{other}", sshd::KEYS_DIR))?;
    }
    host.ensure(&keys, &sshd::keys(access))?;
    host_key(host)?;
    host.write(CONFIG, sshd::config(user).as_bytes(), 0o600)?;
    host.enable_unit(ENABLED.0, ENABLED.1)?;
    host.start_unit(UNIT)
}

/// The links of [`SOCKET_LINKS`] that are there.
fn socket_links(host: &Host) -> Result<Vec<&'static str>> {
    let mut there = Vec::new();
    for path in SOCKET_LINKS {
        if host.exists(path)? {
            there.push(path);
        }
    }
    Ok(there)
}

/// Ends that an image's socket starts sshd: the service is enabled by the seed alone. Whether there was one.
fn without_socket(host: &Host) -> Result<bool> {
    let links = socket_links(host)?;
    if links.is_empty() {
        return Ok(false);
    }
    // In this order: a stop that fails is tried again as long as a link is there.
    host.run(&["systemctl", "stop", SOCKET, UNIT])?;
    for path in links {
        host.withdraw(path)?;
    }
    Ok(true)
}

fn close(host: &Host) -> Result<()> {
    without_socket(host)?;
    if host.read_link(ENABLED.0)?.is_some() {
        // In this order: a stop that fails is tried again as long as the link is there.
        host.run(&["systemctl", "stop", UNIT])?;
        host.withdraw(ENABLED.0)?;
    }
    host.withdraw(CONFIG)?;
    for name in host.list(sshd::KEYS_DIR)? {
        host.remove(&format!("{}/{name}", sshd::KEYS_DIR))?;
    }
    Ok(())
}

/// Generates this device's own key, once. The key is generated in memory and stored through [`Host`], so that a power
/// cut leaves no key or a complete one, and so that the journal lists it for a reset.
fn host_key(host: &Host) -> Result<()> {
    let stored = host.size_and_mode(sshd::HOST_KEY)?.is_some_and(|(size, mode)| size > 0 && mode == 0o600);
    if stored && host.read(&format!("{}.pub", sshd::HOST_KEY))?.is_some_and(|b| !b.is_empty()) {
        return Ok(());
    }
    let public = format!("{NEW_KEY}.pub");
    host.remove(NEW_KEY)?;
    host.remove(&public)?;
    host.run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", NEW_KEY])?;
    let read = |path: &str| host.read(path)?.with_context(|| format!("find {path}: ssh-keygen made none"));
    let key = Zeroizing::new(read(NEW_KEY)?);
    host.ensure(&format!("{}.pub", sshd::HOST_KEY), &String::from_utf8_lossy(&read(&public)?))?;
    host.write(sshd::HOST_KEY, &key, 0o600)?;
    host.remove(NEW_KEY)?;
    host.remove(&public)
}

/// Passwords, shells on the console, set-ID programs, core dumps, SSH.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = context.host;
    let mut findings = Vec::new();
    let mut add = |id: &str, wanted: &str, exception: Option<&str>, found: String, why: &str| {
        findings.push(Finding::compare(format!("access/{id}"), wanted, exception, Some(found), why));
    };
    let none = |list: Vec<&str>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let shadow = read(host)?.shadow;
    add(
        "passwords",
        "none",
        None,
        none(with_password(&shadow)),
        "no account, root's included, has a password to enter",
    );
    let masked = |unit: &&str| -> Result<bool> {
        Ok(host.read_link(&format!("/etc/systemd/system/{unit}"))?.as_deref() == Some("/dev/null"))
    };
    let mut shells = Vec::new();
    for unit in NO_CONSOLE {
        if !masked(&unit)? {
            shells.push(unit);
        }
    }
    add("console", "none", None, none(shells), "the console shows progress and asks for nothing");
    for (path, why) in NO_SETID {
        if let Some((_, mode)) = host.size_and_mode(path)? {
            let found = if mode & 0o6000 == 0 { "no" } else { "yes" };
            add(&format!("set-id{path}"), "no", None, found.to_owned(), why);
        }
    }
    let limit = host.run(&["systemctl", "show", "--property=DefaultLimitCORE", "--value"])?;
    add("core-dumps", "0", None, limit.trim().to_owned(), "memory of a service that failed may hold secrets");
    let state = host.run(&["systemctl", "show", "--property=ActiveState", "--value", UNIT])?;
    let wanted = user(&context.kept.access).map(|_| "active");
    add("ssh", "inactive", wanted, state.trim().to_owned(), "SSH is absent unless the seed has keys");
    let ends = host.run(&["systemctl", "show", "--property=KillMode", "--value", UNIT])?;
    let why = "a session ends with sshd, so with its key and with a reset";
    add("ssh-sessions", "control-group", None, ends.trim().to_owned(), why);
    if let Some(user) = user(&context.kept.access) {
        let effective = host.run(&[SSHD, "-T"])?;
        let wrong = sshd::differences(&effective, user);
        let wrong: Vec<String> = wrong.iter().map(|(key, found)| format!("{key} {found}")).collect();
        let why = "sshd uses the configuration that firstboot wrote";
        add("sshd-configuration", "none", None, none(wrong.iter().map(String::as_str).collect()), why);
    }
    Ok(findings)
}

#[cfg(test)]
mod tests;
