// SPDX-License-Identifier: Apache-2.0
//! Access over SSH: added, changed to another account, removed; the audit.

use super::*;
use crate::check::Verdict;
use crate::harden::overrides::SeedOverrides;
use crate::host::fake::{Fake, Recorded};
use crate::journal::{Effect, Record};
use crate::seed::SshKey;
use crate::test_files::put_for_tests;
use std::path::Path;
use std::rc::Rc;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA work";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nsshd:x:998:998::/run/sshd:/usr/sbin/nologin\n";
const SHADOW: &str = "root:!*:20000:0:99999:7:::\nsshd:!*:20000:0:99999:7:::\n";

/// A device with OpenSSH, on which ssh-keygen generates a key.
fn machine(root: &Path) -> (Host, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    let run = root.join("run");
    let fake = fake.answering(move |argv| match argv {
        ["ssh-keygen", .., path] => {
            #[allow(clippy::disallowed_methods)] // stands in for ssh-keygen
            let put = std::fs::create_dir_all(&run)
                .and_then(|()| std::fs::write(run.join(Path::new(path).file_name().unwrap()), "PRIVATE"))
                .and_then(|()| std::fs::write(run.join("firstboot-host-key.pub"), "PUBLIC"));
            Some(put.map(|()| String::new()).map_err(Into::into))
        }
        ["systemctl", "show", "--property=DefaultLimitCORE", ..] => Some(Ok("0\n".to_owned())),
        ["systemctl", "show", "--property=KillMode", ..] => Some(Ok("control-group\n".to_owned())),
        ["systemctl", "show", ..] => Some(Ok("inactive\n".to_owned())),
        _ => None,
    });
    let host = Host::open(root, Box::new(fake)).unwrap();
    host.write(SSHD, b"", 0o755).unwrap();
    for (path, text, mode) in [
        ("/etc/passwd", PASSWD, 0o644),
        ("/etc/group", "root:x:0:\nadm:x:4:\nsystemd-journal:x:999:\n", 0o644),
        ("/etc/shadow", SHADOW, 0o640),
        ("/etc/gshadow", "root:!*::\nadm:!*::\nsystemd-journal:!*::\n", 0o640),
    ] {
        host.write(path, text.as_bytes(), mode).unwrap();
    }
    for unit in NO_CONSOLE {
        host.symlink(&format!("/etc/systemd/system/{unit}"), "/dev/null").unwrap();
    }
    (host, seen)
}

fn access(user: &str) -> Access {
    Access { user: user.to_owned(), keys: vec![SshKey::parse(KEY).unwrap()], from: Vec::new() }
}

fn text(host: &Host, path: &str) -> Option<String> {
    host.read(path).unwrap().map(|b| String::from_utf8(b).unwrap())
}

#[test]
fn keys_add_access_once_and_no_keys_remove_it() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = machine(dir.path());
    assert!(check(&host, &Access::default()).unwrap());
    apply(&host, &Access::default()).unwrap();
    assert_eq!(*seen.commands.borrow(), Vec::<String>::new());

    assert!(!check(&host, &access("admin")).unwrap());
    apply(&host, &access("admin")).unwrap();
    let opened = [
        "chgrp shadow /etc/shadow /etc/gshadow",
        "ssh-keygen -q -t ed25519 -N  -C  -f /run/firstboot-host-key",
        "systemctl start ssh.service",
    ];
    assert_eq!(*seen.commands.borrow(), opened);
    assert!(check(&host, &access("admin")).unwrap());
    assert_eq!(text(&host, sshd::HOST_KEY).unwrap(), "PRIVATE");
    assert_eq!(host.size_and_mode(sshd::HOST_KEY).unwrap().unwrap().1, 0o600);
    assert_eq!(host.size_and_mode("/etc/shadow").unwrap().unwrap().1, 0o640);
    assert_eq!(host.list("/run").unwrap(), Vec::<String>::new());
    assert_eq!(text(&host, "/etc/ssh/authorized_keys.d/admin").unwrap(), format!("restrict,pty {KEY}\n"));

    // A second run changes nothing.
    seen.commands.borrow_mut().clear();
    apply(&host, &access("admin")).unwrap();
    assert_eq!(*seen.commands.borrow(), ["systemctl start ssh.service"]);

    apply(&host, &access("ops")).unwrap();
    assert!(check(&host, &access("ops")).unwrap() && !check(&host, &access("admin")).unwrap());
    assert_eq!(host.list(sshd::KEYS_DIR).unwrap(), ["ops"]);
    assert!(seen.commands.borrow().contains(&"systemctl stop ssh.service".to_owned()));

    apply(&host, &Access::default()).unwrap();
    assert!(check(&host, &Access::default()).unwrap());
    assert_eq!(text(&host, "/etc/passwd").unwrap(), PASSWD);
    assert_eq!(text(&host, "/etc/shadow").unwrap(), SHADOW);
    assert!(seen.commands.borrow().contains(&"systemctl stop ssh.service".to_owned()));
    assert_eq!(text(&host, sshd::HOST_KEY).unwrap(), "PRIVATE", "clients recognize the device");
}

/// The unit ends its whole group (imagebuild/rootfs/overlay.txt): stopping it closes the sessions of a key that is gone.
#[test]
fn s13_sessions_end_with_their_key() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = machine(dir.path());
    let other = SshKey::parse(&KEY.replace("AAAAA work", "AAAAB home")).unwrap();
    let both = Access { keys: vec![other.clone(), access("admin").keys.remove(0)], ..access("admin") };
    apply(&host, &both).unwrap();
    let commands = |wanted: &Access| {
        seen.commands.borrow_mut().clear();
        apply(&host, wanted).unwrap();
        let commands = seen.commands.take();
        commands.into_iter().filter(|c| c.starts_with("systemctl")).collect::<Vec<_>>()
    };
    let (stop, start) = ("systemctl stop ssh.service", "systemctl start ssh.service");
    assert_eq!(commands(&both), [start]);
    // A key goes; the networks that it is good for change; the account changes; all keys go.
    assert_eq!(commands(&access("admin")), [stop, start]);
    let from = Access { from: vec!["10.0.0.0/24".parse().unwrap()], ..access("admin") };
    assert_eq!(commands(&from), [stop, start]);
    assert_eq!(commands(&Access { user: "ops".into(), ..from }), [stop, start]);
    assert_eq!(commands(&Access::default()), [stop]);
    // A power cut after the stop and before the key went: it is stopped again.
    apply(&host, &both).unwrap();
    let file = format!("{}/admin", sshd::KEYS_DIR);
    seen.fuse.set(Some(1));
    apply(&host, &access("admin")).unwrap_err();
    seen.fuse.set(None);
    assert_eq!(text(&host, &file).unwrap(), sshd::keys(&both));
    assert_eq!(commands(&access("admin")), [stop, start]);
}

/// What an image of others has: Debian's, where the service is enabled, or Ubuntu's, where a socket starts it.
fn of_image(root: &Path, links: &[(&str, &str)]) {
    put_for_tests(root, &CONFIG[1..], "PermitRootLogin yes\n");
    for (path, unit) in links {
        let path = root.join(&path[1..]);
        #[allow(clippy::disallowed_methods)] // a test's own root
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(format!("/usr/lib/systemd/system/{unit}"), path).unwrap();
    }
}

#[test]
fn ssh_of_an_image_ends_with_a_seed_and_is_kept_for_a_reset() {
    let debian = [(ENABLED.0, UNIT)];
    let ubuntu = SOCKET_LINKS.map(|path| (path, SOCKET));
    for (links, stop) in
        [(&debian[..], "systemctl stop ssh.service"), (&ubuntu, "systemctl stop ssh.socket ssh.service")]
    {
        let dir = tempfile::tempdir().unwrap();
        let (host, seen) = machine(dir.path());
        of_image(dir.path(), links);
        // A power cut anywhere, then the whole of it.
        for fuse in 0.. {
            seen.fuse.set(Some(fuse));
            if apply(&host, &Access::default()).is_ok() {
                break;
            }
        }
        seen.fuse.set(None);
        assert!(check(&host, &Access::default()).unwrap());
        assert!(seen.commands.borrow().iter().all(|command| command == stop), "{:?}", seen.commands.borrow());
        let kept = |path: &str| {
            let journal = host.journal();
            let backup = journal.records().iter().find_map(|record| match record {
                Record::Effect(Effect::Replaced { path: of, backup }) if of == path => Some(backup.clone()),
                _ => None,
            });
            backup.unwrap()
        };
        assert_eq!(text(&host, &kept(CONFIG)).unwrap(), "PermitRootLogin yes\n");
        for (path, unit) in links {
            let target = format!("/usr/lib/systemd/system/{unit}");
            assert_eq!((host.exists(path).unwrap(), host.read_link(&kept(path)).unwrap()), (false, Some(target)));
        }
    }
}

#[test]
fn a_seed_with_keys_takes_the_place_of_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = machine(dir.path());
    of_image(dir.path(), &SOCKET_LINKS.map(|path| (path, SOCKET)));
    assert!(!check(&host, &access("admin")).unwrap());
    apply(&host, &access("admin")).unwrap();
    assert!(check(&host, &access("admin")).unwrap());
    let commands = seen.commands.take();
    let commands: Vec<&str> = commands.iter().map(String::as_str).filter(|c| c.starts_with("systemctl")).collect();
    let stop = ["systemctl stop ssh.service", "systemctl stop ssh.socket ssh.service"];
    assert_eq!(commands, [stop[0], stop[1], "systemctl daemon-reload", "systemctl start ssh.service"]);
}

/// Wherever a power cut interrupts the replacement of one account by another, resuming gives the result of an
/// uninterrupted run, and there is never a password.
#[test]
fn power_cut_anywhere_is_repaired_on_resume() {
    let whole = tempfile::tempdir().unwrap();
    let (host, _) = machine(whole.path());
    apply(&host, &access("admin")).unwrap();
    let files = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", CONFIG, sshd::HOST_KEY];
    let wanted = files.map(|path| text(&host, path));
    let mut cuts = 0;
    for fuse in 0.. {
        // In memory where possible: most of the time goes into flushing.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let (host, seen) = machine(dir.path());
        apply(&host, &access("ops")).unwrap();
        host.remove(sshd::HOST_KEY).unwrap();
        seen.fuse.set(Some(fuse));
        let ended = apply(&host, &access("admin")).is_ok();
        seen.fuse.set(None);
        assert!(with_password(&text(&host, "/etc/shadow").unwrap()).is_empty(), "after {fuse} effects");
        apply(&host, &access("admin")).unwrap();
        assert!(check(&host, &access("admin")).unwrap(), "after {fuse} effects");
        assert_eq!(files.map(|path| text(&host, path)), wanted, "after {fuse} effects");
        if ended {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 20, "{cuts} cuts");
}

#[test]
fn reserved_name_is_a_seed_fault_and_missing_sshd_an_image_fault() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    let fault = apply(&host, &access("systemd-journal")).unwrap_err();
    assert_eq!(fault.code, Code::SettingDoesNotFit);
    let words = "make account systemd-journal: this system has one of that name for itself; change user in [access]";
    assert_eq!(fault.to_string(), words);
    host.remove(SSHD).unwrap();
    let fault = apply(&host, &access("admin")).unwrap_err();
    assert_eq!(fault.code, Code::ProgramMissing);
    assert_eq!(fault.to_string(), "find /usr/sbin/sshd: the seed has SSH keys, and this image no SSH");
}

#[test]
fn audit_finds_passwords_shells_and_set_id_programs() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = machine(dir.path());
    let findings_for = |kept: SeedOverrides| {
        let findings = audit(&AuditContext { host: &host, kept }).unwrap();
        findings.into_iter().map(|f| (f.id, f.state, f.found)).collect::<Vec<_>>()
    };
    host.write("/usr/bin/su", b"", 0o755).unwrap();
    let good = findings_for(SeedOverrides::default());
    assert!(good.len() == 6 && good.iter().all(|(_, state, _)| *state == Verdict::Ok), "{good:?}");
    host.write("/usr/bin/su", b"x", 0o4755).unwrap();
    host.write("/etc/shadow", b"root::1::::::\n", 0o640).unwrap();
    host.remove("/etc/systemd/system/getty@.service").unwrap();
    let bad = findings_for(SeedOverrides { access: access("admin"), ..SeedOverrides::default() });
    let get = |id: &str| bad.iter().find(|(i, ..)| i == id).map(|(_, s, f)| (*s, f.as_str())).unwrap();
    assert_eq!(get("access/passwords"), (Verdict::Drift, "root"));
    assert_eq!(get("access/console"), (Verdict::Drift, "getty@.service"));
    assert_eq!(get("access/set-id/usr/bin/su"), (Verdict::Drift, "yes"));
    assert_eq!(get("access/ssh"), (Verdict::Drift, "inactive"));
    assert!(get("access/sshd-configuration").1.contains("PermitRootLogin missing"));
}
