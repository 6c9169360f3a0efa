// SPDX-License-Identifier: Apache-2.0
//! What is taken away, and above all what is not, on a real file system with real mounts.

use super::*;
use crate::host::exclusions::Exclusions;
use crate::host::fake::Fake;
use crate::host::mounts;
use crate::host::{Linux, System};
use crate::test_namespaces::inside;
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const KEPT: Keep<'static> = &|_| false;

fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
    (dir, host)
}

fn put(root: &Path, path: &str, text: &str, mode: u32) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn links_are_removed_and_never_followed() {
    let (dir, host) = host();
    let root = dir.path();
    put(root, "srv/data/file", "theirs", 0o600);
    put(root, "var/lib/kubelet/file", "x", 0o644);
    symlink("/srv/data", root.join("var/lib/kubelet/directory")).unwrap();
    symlink("/srv/data/file", root.join("var/lib/kubelet/secret")).unwrap();
    host.remove_tree("/var/lib/kubelet", KEPT).unwrap();
    assert!(!root.join("var/lib/kubelet").exists());
    // The named path itself.
    symlink("/srv/data", root.join("var/lib/kubelet")).unwrap();
    let error = host.remove_tree("/var/lib/kubelet", KEPT).unwrap_err().to_string();
    assert_eq!(error, "remove /var/lib/kubelet: it is a symbolic link, and its target may be a person's data");
    host.remove_directory("/var/lib/kubelet").unwrap();
    assert!(root.join("var/lib/kubelet").is_symlink());
    host.remove_entry("/var/lib/kubelet").unwrap();
    assert!(!root.join("var/lib/kubelet").is_symlink());
    assert_eq!(std::fs::read(root.join("srv/data/file")).unwrap(), b"theirs");
    for path in ["/", "/var", "var/lib", "/var/../srv"] {
        assert!(host.empty_directory(path, KEPT).is_err(), "{path}");
    }
    assert_eq!(std::fs::read(root.join("srv/data/file")).unwrap(), b"theirs");
}

#[test]
fn a_secret_is_overwritten_unless_it_has_another_name_somewhere() {
    let (dir, host) = host();
    let root = dir.path();
    put(root, "etc/key", "secret", 0o600);
    put(root, "etc/shared", "theirs", 0o600);
    std::fs::hard_link(root.join("etc/shared"), root.join("etc/other")).unwrap();
    let mut open = std::fs::File::open(root.join("etc/key")).unwrap();
    host.remove_entry("/etc/key").unwrap();
    host.remove_entry("/etc/shared").unwrap();
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut open, &mut text).unwrap();
    assert_eq!(text, [0; 6]);
    assert_eq!(std::fs::read(root.join("etc/other")).unwrap(), b"theirs");
    assert!(!root.join("etc/key").exists() && !root.join("etc/shared").exists());
}

/// How deep a tree is, and how many names are in a directory, a pod decides: 4,000 levels with the longest names, and
/// 200,000 names of 200 bytes in one directory, within 16 MiB and 300 file descriptors.
#[test]
fn s07_any_tree_goes_in_little_memory() {
    if !inside("host::remove::tests::s07_any_tree_goes_in_little_memory", &["--mount"], &[]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(c"nr_inodes=400000")).unwrap();
    let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
    let open = |at: &OwnedFd, name: &str| fs::openat(at, name, OFlags::RDONLY, Mode::empty()).unwrap();
    let top = fs::openat(fs::CWD, dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
    let mode = Mode::from_raw_mode(0o755);
    fs::mkdirat(&top, "srv", mode).unwrap();
    let srv = open(&top, "srv");
    fs::mkdirat(&srv, "tree", mode).unwrap();
    let tree = open(&srv, "tree");
    let (mut at, name) = (open(&srv, "tree"), "n".repeat(255));
    for _ in 0..4000 {
        fs::mkdirat(&at, name.as_str(), mode).unwrap();
        at = open(&at, &name);
    }
    // Deep down, a file and two branches.
    for branch in ["a", "b"] {
        fs::mkdirat(&at, branch, mode).unwrap();
        fs::mkdirat(open(&at, branch), ".firstboot-remove-0", mode).unwrap();
    }
    drop(at);
    fs::mkdirat(&tree, "wide", mode).unwrap();
    let wide = open(&tree, "wide");
    let long = "w".repeat(190);
    for number in 0..200_000 {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        fs::openat(&wide, format!("{long}{number}"), flags, Mode::from_raw_mode(0o644)).unwrap();
    }
    put(dir.path(), "srv/tree/kept/file", "theirs", 0o644);

    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = text.lines().find_map(|l| l.strip_prefix("VmSize:")).unwrap().trim().trim_end_matches(" kB");
    let limit = |resource, most: u64| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
    limit(Resource::As, (size.parse::<u64>().unwrap() + (16 << 10)) << 10);
    limit(Resource::Nofile, 300);
    let keep = |path: &str| path == "/srv/tree/kept";
    host.empty_directory("/srv/tree", &keep).unwrap();
    assert_eq!(host.list("/srv/tree").unwrap(), ["kept"]);
    assert_eq!(std::fs::read(dir.path().join("srv/tree/kept/file")).unwrap(), b"theirs");
}

/// What is moved up and then cut off goes the next time; what is kept somewhere in the middle stays.
#[test]
fn a_removal_that_was_cut_off_in_a_deep_tree_goes_on() {
    let (dir, host) = host();
    let deep = format!("var/x{}", "/d".repeat(OPEN + 40));
    put(dir.path(), &format!("{deep}/file"), "x", 0o644);
    put(dir.path(), "var/x/d/d/kept/file", "theirs", 0o644);
    std::fs::create_dir(dir.path().join("var/x/.firstboot-remove-0")).unwrap();
    host.empty_directory("/var/x", &|path| path == "/var/x/d/d/kept").unwrap();
    assert_eq!(host.list("/var/x").unwrap(), ["d"]);
    assert_eq!(host.list("/var/x/d/d").unwrap(), ["kept"]);
}

#[test]
fn what_is_mounted_stays_and_is_named() {
    let test = "host::remove::tests::what_is_mounted_stays_and_is_named";
    if !inside(test, &["--mount", "--propagation=private"], &[]) {
        return;
    }
    let (dir, host) = host();
    let root = dir.path();
    put(root, "srv/data/file", "theirs", 0o600);
    for path in ["directory", "bound"] {
        std::fs::create_dir_all(root.join("var/lib/kubelet").join(path)).unwrap();
    }
    put(root, "var/lib/kubelet/secret", "", 0o600);
    mount("tmpfs", root.join("var/lib/kubelet/directory"), "tmpfs", MountFlags::empty(), None).unwrap();
    put(root, "var/lib/kubelet/directory/file", "theirs", 0o600);
    mount_bind(root.join("srv/data"), root.join("var/lib/kubelet/bound")).unwrap();
    mount_bind(root.join("srv/data/file"), root.join("var/lib/kubelet/secret")).unwrap();
    for path in ["directory", "bound", "secret"] {
        let others = move |p: &str| p != format!("/var/lib/kubelet/{path}");
        let error = host.empty_directory("/var/lib/kubelet", &others).unwrap_err().to_string();
        assert_eq!(error, format!("remove /var/lib/kubelet/{path}: something is still mounted there"));
    }
    assert_eq!(std::fs::read(root.join("srv/data/file")).unwrap(), b"theirs");
    assert_eq!(std::fs::read(root.join("var/lib/kubelet/directory/file")).unwrap(), b"theirs");
    // What is kept is not looked into. A directory that is mounted on, and is named, is emptied and stays.
    let keep = |p: &str| ["directory", "bound", "secret"].iter().any(|kept| p == format!("/var/lib/kubelet/{kept}"));
    host.remove_tree("/var/lib/kubelet", &keep).unwrap();
    host.remove_tree("/var/lib/kubelet/directory", KEPT).unwrap();
    assert_eq!(host.list("/var/lib/kubelet").unwrap(), ["bound", "directory", "secret"]);
    assert!(host.list("/var/lib/kubelet/directory").unwrap().is_empty());
    // As a reset does it.
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let shown = root.join("var/lib/kubelet").display().to_string();
    let points = mounts::below(mounts::parse(&text), &[shown], &Exclusions::default());
    assert_eq!(points.len(), 3, "{text}");
    // One that is gone already needs no unmounting.
    for mount in points.iter().chain(&points[..1]) {
        Linux::new().unmount(&mount.point, mount.is_remote()).unwrap();
    }
    host.remove_tree("/var/lib/kubelet", KEPT).unwrap();
    assert_eq!(std::fs::read(root.join("srv/data/file")).unwrap(), b"theirs");
    assert!(!root.join("var/lib/kubelet").exists());
}
