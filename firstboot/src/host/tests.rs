// SPDX-License-Identifier: Apache-2.0
//! The door against a real file system below a temporary root.

use super::fake::{Fake, Recorded};
use super::*;
use crate::journal::facts::Fact;
use std::rc::Rc;

fn host() -> (tempfile::TempDir, Host, Rc<Recorded>) {
    let dir = tempfile::tempdir().unwrap();
    let (fake, seen) = Fake::new();
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    (dir, host, seen)
}

fn effects(host: &Host) -> Vec<Effect> {
    host.journal()
        .records()
        .iter()
        .filter_map(|r| if let Record::Effect(e) = r { Some(e.clone()) } else { None })
        .collect()
}

#[test]
fn a_file_is_recorded_before_it_is_made_and_written_once() {
    let (dir, host, seen) = host();
    host.write("/etc/hostname", b"edge-1\n", 0o644).unwrap();
    assert_eq!(
        effects(&host),
        [Effect::Directory { path: "/etc".into() }, Effect::Created { path: "/etc/hostname".into() }]
    );
    assert_eq!(host.read_text("/etc/hostname").unwrap().as_deref(), Some("edge-1"));
    assert_eq!(host.size_and_mode("/etc/hostname").unwrap(), Some((7, 0o644)));
    seen.fuse.set(Some(0));
    host.write("/etc/hostname", b"edge-1\n", 0o644).unwrap();
    let error = host.write("/etc/hostname", b"edge-2\n", 0o644).unwrap_err();
    assert_eq!(format!("{error:#}"), "create /etc/hostname: power lost before /etc/hostname");
    assert_eq!(std::fs::read(dir.path().join("etc/hostname")).unwrap(), b"edge-1\n");
}

#[test]
fn what_was_there_before_is_kept_once() {
    let (dir, host, _) = host();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/hosts"), "old\n").unwrap();
    host.write("/etc/hosts", b"new\n", 0o600).unwrap();
    host.write("/etc/hosts", b"newer\n", 0o600).unwrap();
    let [Effect::Directory { .. }, Effect::Replaced { path, backup }] = &effects(&host)[..] else {
        panic!("{:?}", effects(&host))
    };
    assert_eq!(path, "/etc/hosts");
    assert_eq!(host.read_text(backup).unwrap().as_deref(), Some("old"));
}

#[test]
fn what_is_withdrawn_is_kept_unless_firstboot_made_it() {
    let (dir, host, _) = host();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("/usr/x", dir.path().join("etc/theirs")).unwrap();
    host.write("/etc/ours", b"x", 0o644).unwrap();
    for path in ["/etc/theirs", "/etc/ours", "/etc/none"] {
        host.withdraw(path).unwrap();
        assert!(!host.exists(path).unwrap());
    }
    let [Effect::Created { path: ours }, Effect::Directory { .. }, Effect::Replaced { path, backup }] =
        &effects(&host)[..]
    else {
        panic!("{:?}", effects(&host))
    };
    assert_eq!((ours.as_str(), path.as_str()), ("/etc/ours", "/etc/theirs"));
    assert_eq!(host.read_link(backup).unwrap().as_deref(), Some("/usr/x"));
}

#[test]
fn no_link_leads_out_of_the_root() {
    let (dir, host, _) = host();
    std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../etc", dir.path().join("up")).unwrap();
    assert_eq!(host.read("/out/passwd").unwrap(), None);
    assert_eq!(host.read("/up/passwd").unwrap(), None);
    let error = host.write("/a/../b", b"", 0o644).unwrap_err();
    assert_eq!(error.to_string(), "use path /a/../b: it leads upwards");
}

#[test]
fn links_are_replaced_whole() {
    let (_dir, host, _) = host();
    host.mkdir("/opt/links", 0o755).unwrap();
    host.symlink("/opt/links/current", "bundles/a").unwrap();
    host.symlink("/opt/links/current", "bundles/b").unwrap();
    assert_eq!(host.read_link("/opt/links/current").unwrap().as_deref(), Some("bundles/b"));
    host.remove("/opt/links/current").unwrap();
    host.remove("/opt/links/current").unwrap();
    assert_eq!(host.list("/opt/links").unwrap(), Vec::<String>::new());
}

#[test]
fn a_folder_that_changes_meanwhile_is_gone_through_again() {
    let (dir, host, _) = host();
    let links = dir.path().join("sys/class/net");
    std::fs::create_dir_all(links.join("eth0")).unwrap();
    let rename = |name: &str| {
        std::fs::rename(links.join("eth0"), links.join("enp0s1")).or_else(|_| bail!("read {name}"))?;
        bail!("{name} is gone")
    };
    let done: Result<Vec<()>> = host.each("/sys/class/net", rename);
    assert_eq!(done.unwrap_err().to_string(), "read enp0s1");
    assert_eq!(host.each("/sys/class/net", |name| Ok(name.to_owned())).unwrap(), ["enp0s1"]);
    assert_eq!(host.each("/sys/class/none", |name| Ok(name.to_owned())).unwrap(), Vec::<String>::new());
}

/// The kernel answers EAGAIN to a `..` when anything on the machine is renamed or mounted meanwhile.
#[test]
fn a_link_with_dots_is_read_while_files_are_renamed() {
    let (dir, host, _) = host();
    host.write("/sys/devices/serial", b"A1\n", 0o444).unwrap();
    host.mkdir("/sys/class", 0o755).unwrap();
    host.symlink("/sys/class/dmi", "../devices").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            std::fs::create_dir(&a).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(&a, &b).unwrap();
                std::fs::rename(&b, &a).unwrap();
            }
        });
        let all_read = (0..20_000).all(|_| host.read_text("/sys/class/dmi/serial").is_ok_and(|t| t.is_some()));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(all_read);
    });
}

#[test]
fn several_processes_at_once_never_damage_a_file() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 40;
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = dir.path();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // A process of its own: it reads what the others have left.
                    let host = Host::open(root, Box::new(Fake::new().0.patient())).unwrap();
                    let name = Fact::Other(format!("fact-{writer}-{round}"));
                    host.record(Record::Fact { name, value: "x".repeat(round * 50) }).unwrap();
                    host.keep(kept::VERIFIED_TIME, format!("{writer} {round}\n").as_bytes()).unwrap();
                    host.write("/etc/shared", format!("{writer} {round}\n").repeat(200).as_bytes(), 0o644).unwrap();
                }
            });
        }
        // Readers see whole records only, and change nothing.
        scope.spawn(move || {
            for _ in 0..ROUNDS * 4 {
                let host = Host::reading(root, Box::new(Fake::new().0)).unwrap();
                let complete = |r: &Record| matches!(r, Record::Fact { .. } | Record::Effect(_));
                assert!(host.journal().records().iter().all(complete));
            }
        });
    });
    let host = Host::reading(root, Box::new(Fake::new().0)).unwrap();
    assert!(host.journal().damage().is_empty(), "{:?}", host.journal().damage());
    let facts = host.journal().records().iter().filter(|r| matches!(r, Record::Fact { .. })).count();
    assert_eq!(facts, WRITERS * ROUNDS);
    let shared = host.read_utf8("/etc/shared").unwrap().unwrap();
    assert!(shared.lines().all(|line| Some(line) == shared.lines().next()) && shared.lines().count() == 200);
    assert_eq!(host.read_kept(kept::VERIFIED_TIME.path).damage, None);
    assert_eq!(host.list("/etc").unwrap(), ["shared"]);
}

#[test]
fn a_file_keeps_its_owner_when_its_content_changes() {
    let (dir, host, _) = host();
    host.write("/etc/shadow", b"a", 0o640).unwrap();
    let path = dir.path().join("etc/shadow");
    if std::os::unix::fs::chown(&path, None, Some(42)).is_err() {
        println!("SKIPPED: changing the group of a file needs root");
        return;
    }
    host.write("/etc/shadow", b"b", 0o640).unwrap();
    assert_eq!(host.owner("/etc/shadow").unwrap().map(|(_, group)| group), Some(42));
    assert_eq!(host.size_and_mode("/etc/shadow").unwrap(), Some((1, 0o640)));
}

#[test]
fn a_command_that_only_looks_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::reading(dir.path(), Box::new(Fake::new().0)).unwrap();
    for error in [
        host.write("/etc/x", b"x", 0o644),
        host.record(Record::Sealed),
        host.keep(kept::STATUS, b"x"),
        host.mkdir("/etc", 0o755),
        host.enable_unit("/etc/x.wants/y.service", "/usr/y.service"),
    ] {
        assert!(format!("{:#}", error.unwrap_err()).ends_with(": this command only reads"));
    }
    host.run(&["sshd", "-T"]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_path_that_only_begins_like_the_state_directory_is_recorded() {
    let (_dir, host, _) = host();
    host.write("/var/lib/firstboot-x", b"x", 0o644).unwrap();
    assert!(effects(&host).contains(&Effect::Created { path: "/var/lib/firstboot-x".into() }));
    host.write("/run/firstboot/status.json", b"x", 0o644).unwrap();
    assert!(!effects(&host).iter().any(|e| format!("{e:?}").contains("/run")));
}
