// SPDX-License-Identifier: Apache-2.0
//! What maintainer scripts of the packages would do on an empty system, and what makes the system a firstboot one.

use super::accounts::Accounts;
use super::{hardened, units};
use crate::cmd;
use crate::owner::Owner;
use anyhow::{Context, Result, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Files that every image gets; the file itself describes its format.
pub const OVERLAY_TEXT: &str = include_str!("../../rootfs/overlay.txt");

/// Copies that postinst scripts make: from, to.
const COPIES: [(&str, &str); 5] = [
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/base-files/dot.profile", "root/.profile"),
    ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
    ("usr/share/debianutils/shells", "etc/shells"),
];

/// `update-alternatives --install` of the packages: link, name, path, priority, slaves (link, name, path).
type Alternative = (&'static str, &'static str, &'static str, &'static str, &'static [[&'static str; 3]]);
const ALTERNATIVES: [Alternative; 8] = [
    ("/usr/bin/awk", "awk", "/usr/bin/mawk", "5", &[["/usr/bin/nawk", "nawk", "/usr/bin/mawk"]]),
    ("/usr/bin/pager", "pager", "/bin/more", "50", &[]),
    ("/usr/bin/which", "which", "/usr/bin/which.debianutils", "0", &[]),
    ("/usr/sbin/rmt", "rmt", "/usr/sbin/rmt-tar", "50", &[]),
    (
        "/usr/sbin/iptables",
        "iptables",
        "/usr/sbin/iptables-nft",
        "20",
        &[
            ["/usr/sbin/iptables-restore", "iptables-restore", "/usr/sbin/iptables-nft-restore"],
            ["/usr/sbin/iptables-save", "iptables-save", "/usr/sbin/iptables-nft-save"],
        ],
    ),
    (
        "/usr/sbin/ip6tables",
        "ip6tables",
        "/usr/sbin/ip6tables-nft",
        "20",
        &[
            ["/usr/sbin/ip6tables-restore", "ip6tables-restore", "/usr/sbin/ip6tables-nft-restore"],
            ["/usr/sbin/ip6tables-save", "ip6tables-save", "/usr/sbin/ip6tables-nft-save"],
        ],
    ),
    (
        "/usr/sbin/arptables",
        "arptables",
        "/usr/sbin/arptables-nft",
        "20",
        &[
            ["/usr/sbin/arptables-restore", "arptables-restore", "/usr/sbin/arptables-nft-restore"],
            ["/usr/sbin/arptables-save", "arptables-save", "/usr/sbin/arptables-nft-save"],
        ],
    ),
    (
        "/usr/sbin/ebtables",
        "ebtables",
        "/usr/sbin/ebtables-nft",
        "20",
        &[
            ["/usr/sbin/ebtables-restore", "ebtables-restore", "/usr/sbin/ebtables-nft-restore"],
            ["/usr/sbin/ebtables-save", "ebtables-save", "/usr/sbin/ebtables-nft-save"],
        ],
    ),
];

/// Values for the placeholders in libpam-runtime's templates, as pam-auth-update chooses them for local accounts.
const PAM: [(&str, &str); 8] = [
    ("$auth_primary", "auth\t[success=1 default=ignore]\tpam_unix.so"),
    ("$auth_additional", ""),
    ("$account_primary", "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so"),
    ("$account_additional", ""),
    ("$password_primary", "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt"),
    ("$password_additional", ""),
    ("$session_nonint_primary", "session\t[default=1]\tpam_permit.so"),
    ("$session_primary", "session\t[default=1]\tpam_permit.so"),
];

const ENABLED: [&str; 4] =
    ["systemd-resolved.service", "systemd-networkd.service", "systemd-timesyncd.service", "fstrim.timer"];

/// Links that enabling the above makes and that are removed: the boot must not wait for a network (firstboot waits for
/// it), and no network is configured on the kernel's command line.
const UNLINKED: [&str; 2] = [
    "network-online.target.wants/systemd-networkd-wait-online.service",
    "sysinit.target.wants/systemd-network-generator.service",
];

/// Directories of the root that devices write to: they are on the data partition, below /var, and the root has links.
const MOVED: [(&str, &str, u32); 5] = [
    ("home", "var/home", 0o755),
    ("mnt", "var/mnt", 0o755),
    ("opt", "var/opt", 0o755),
    ("root", "var/roothome", 0o700),
    ("srv", "var/srv", 0o755),
];

/// dpkg's database: part of the root, for it describes what is there and nothing can be installed. On the data partition
/// it would outlive its root.
const DPKG: (&str, &str) = ("var/lib/dpkg", "usr/lib/sysimage/dpkg");

/// Units that no device needs: log-in prompts (there is no password), questions at first boot, debugging aids,
/// databases that the image leaves out or that are made with the image (linker cache, accounts), what mounts or grows a
/// root that the initrd has mounted, TPM measurements that nothing reads, and modules that a node does not use. On
/// an emulated device each costs up to a second at every boot. Three more are masked for security: no keyboard restarts
/// the device, and sshd starts only as a service; and nftables.service, whose start and stop both empty the packet filter.
#[rustfmt::skip]
const MASKED: [&str; 39] = [
    "ctrl-alt-del.target", "ssh.socket", "nftables.service",
    "getty.target", "getty@.service", "serial-getty@.service", "console-getty.service", "debug-shell.service",
    "systemd-firstboot.service", "systemd-ask-password-console.path", "systemd-ask-password-wall.path",
    "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount",
    "modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@efi_pstore.service",
    "modprobe@fuse.service", "modprobe@loop.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-hibernate-clear.service",
    "systemd-initctl.socket", "systemd-udev-load-credentials.service",
    "systemd-pcrextend.socket", "systemd-pcrlock.socket", "systemd-pcrmachine.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-tpm2-setup-early.service", "systemd-tpm2-setup.service",
    "ldconfig.service", "systemd-update-done.service", "systemd-sysusers.service",
    "systemd-repart.service", "dpkg-db-backup.timer", "e2scrub_reap.service",
];

/// Generators of units for what these images do not have: log-ins, resume from disk, remote debugging, old init
/// scripts, shells on virtual sockets. Only the generator for fstab stays.
#[rustfmt::skip]
const NO_GENERATORS: [&str; 11] = [
    "systemd-bless-boot-generator", "systemd-debug-generator", "systemd-getty-generator", "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator", "systemd-rc-local-generator", "systemd-run-generator",
    "systemd-ssh-generator", "systemd-system-update-generator", "systemd-sysv-generator",
    "systemd-tpm2-generator",
];

/// Turns unpacked packages into a root file system.
pub fn run(owner: &Owner, tree: &Path) -> Result<()> {
    let accounts = Accounts::read(tree)?;
    accounts.write(tree)?;
    files(owner, tree)?;
    pam(tree)?;
    certificates(tree)?;
    for (link, name, path, priority, slaves) in ALTERNATIVES.iter().filter(|a| tree.join(&a.2[1..]).exists()) {
        alternative(tree, [link, name, path, priority], slaves).with_context(|| format!("set alternative {name}"))?;
    }
    remove_log(tree)?;
    for unit in ENABLED {
        units::enable(tree, unit)?;
    }
    for link in UNLINKED {
        let path = tree.join("etc/systemd/system").join(link);
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    for unit in MASKED {
        units::mask(tree, unit)?;
    }
    units::default_target(tree, "multi-user.target")?;
    for generator in NO_GENERATORS {
        units::no_generator(tree, generator)?;
    }
    overlay(tree)?;
    hardened::files(tree)?;
    owners(owner, tree, &accounts)?;
    links(tree)
}

/// Moves what devices write below /var, and what they do not write out of it.
fn links(tree: &Path) -> Result<()> {
    let rename = |from: &str, to: &str| {
        let (from, to) = (tree.join(from), tree.join(to));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        fs::rename(&from, &to).with_context(|| format!("rename {} to {}", from.display(), to.display()))
    };
    let link = |target: &str, name: &str| symlink(target, tree.join(name)).with_context(|| format!("link /{name}"));
    for (name, place, mode) in MOVED {
        rename(name, place)?;
        let path = tree.join(place);
        fs::set_permissions(&path, Permissions::from_mode(mode)).with_context(|| format!("chmod /{place}"))?;
        link(place, name)?;
    }
    let (from, to) = DPKG;
    rename(from, to)?;
    link(&format!("../../{to}"), from)?;
    // Where the initrd mounts the data partition.
    let data = tree.join("data");
    fs::create_dir(&data).context("create /data")?;
    fs::set_permissions(&data, Permissions::from_mode(0o700)).context("chmod /data")
}

fn files(owner: &Owner, tree: &Path) -> Result<()> {
    for (from, to) in COPIES {
        fs::copy(tree.join(from), tree.join(to)).with_context(|| format!("copy /{from} to /{to}"))?;
    }
    for dir in
        ["mnt", "srv", "opt", "media", "var/mail", "var/log/journal", "var/lib/dbus", "usr/local/bin", "usr/local/sbin"]
    {
        fs::create_dir_all(tree.join(dir)).with_context(|| format!("create /{dir}"))?;
    }
    for (target, link) in [
        ("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf"),
        ("../proc/self/mounts", "etc/mtab"),
        ("/usr/share/zoneinfo/UTC", "etc/localtime"),
        ("debian", "etc/dpkg/origins/default"),
        ("/etc/machine-id", "var/lib/dbus/machine-id"),
        ("/run", "var/run"),
        ("/run/lock", "var/lock"),
    ] {
        let path = tree.join(link);
        if path.is_dir() && !path.is_symlink() {
            // Through fakeroot: otherwise it takes the next file with this inode number for the removed directory.
            cmd::run(owner.command("rmdir").arg(&path))?;
        }
        if !path.is_symlink() {
            symlink(target, &path).with_context(|| format!("link /{link}"))?;
        }
    }
    // Empty, not absent: systemd makes an id at each device's first boot, but asks its user no questions then
    // (machine-id(5), "First boot semantics").
    put(tree, "/etc/machine-id", "", 0o444)?;
    put(tree, "/etc/security/opasswd", "", 0o600)?;
    put(tree, "/etc/environment", "", 0o644)?;
    put(tree, "/var/log/wtmp", "", 0o664)?;
    put(tree, "/var/log/btmp", "", 0o660)
}

/// Fills libpam-runtime's templates.
fn pam(tree: &Path) -> Result<()> {
    for name in ["auth", "account", "password", "session", "session-noninteractive"] {
        let path = tree.join(format!("usr/share/pam/common-{name}"));
        let template = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let session = "session\trequired\tpam_unix.so";
        let mut text = template.replace("$session_nonint_additional", session).replace("$session_additional", session);
        for (placeholder, value) in PAM {
            text = text.replace(placeholder, value);
        }
        ensure!(!text.contains("\n$"), "fill {}: a placeholder is left", path.display());
        put(tree, &format!("/etc/pam.d/common-{name}"), &text, 0o644)?;
    }
    Ok(())
}

/// One file with all certificates that Debian ships, as update-ca-certificates writes it.
fn certificates(tree: &Path) -> Result<()> {
    let directory = tree.join("usr/share/ca-certificates/mozilla");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .with_context(|| format!("list {}", directory.display()))?
        .map(|e| Ok(e?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let mut bundle = String::new();
    let mut list = String::new();
    for name in &names {
        bundle += &fs::read_to_string(directory.join(name)).with_context(|| format!("read {name}"))?;
        list += &format!("mozilla/{name}\n");
        let pem = name.replace(".crt", ".pem");
        symlink(format!("/usr/share/ca-certificates/mozilla/{name}"), tree.join("etc/ssl/certs").join(pem))
            .with_context(|| format!("link /etc/ssl/certs for {name}"))?;
    }
    put(tree, "/etc/ca-certificates.conf", &list, 0o644)?;
    put(tree, "/etc/ssl/certs/ca-certificates.crt", &bundle, 0o644)
}

fn alternative(tree: &Path, main: [&str; 4], slaves: &[[&str; 3]]) -> Result<()> {
    let mut command = Command::new("update-alternatives");
    command.arg("--root").arg(tree).arg("--log").arg("/dev/null").arg("--quiet").arg("--install").args(main);
    for slave in slaves {
        command.arg("--slave").args(slave);
    }
    cmd::run(&mut command)
}

/// Removes what update-alternatives wrote to /dev/null: it takes that path below the tree, too, and the file would be in the
/// image, with the time of the build and directories of the build machine.
fn remove_log(tree: &Path) -> Result<()> {
    match fs::remove_file(tree.join("dev/null")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("remove the log of update-alternatives"),
        _ => Ok(()),
    }
}

/// Writes the files of [`OVERLAY_TEXT`].
fn overlay(tree: &Path) -> Result<()> {
    for (mode, path, text) in overlay_files(OVERLAY_TEXT)? {
        put(tree, path, &text, mode)?;
    }
    Ok(())
}

fn overlay_files(all: &str) -> Result<Vec<(u32, &str, String)>> {
    let mut files: Vec<(u32, &str, String)> = Vec::new();
    for line in all.lines().skip(1) {
        match line.strip_prefix("== ") {
            Some(head) => {
                let (mode, path) = head.split_once(' ').with_context(|| format!("read overlay: `{line}`"))?;
                let mode = u32::from_str_radix(mode, 8).with_context(|| format!("read overlay: `{line}`"))?;
                files.push((mode, path, String::new()));
            }
            None => {
                let (_, _, text) = files.last_mut().with_context(|| format!("read overlay: `{line}`"))?;
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(files)
}

/// Writes one file below the tree; `path` is absolute as on the device.
pub fn put(tree: &Path, path: &str, text: &str, mode: u32) -> Result<()> {
    let file = tree.join(path.trim_start_matches('/'));
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    fs::set_permissions(&file, Permissions::from_mode(mode)).with_context(|| format!("chmod {}", file.display()))
}

/// Owners and modes that need groups which exist only now.
fn owners(owner: &Owner, tree: &Path, accounts: &Accounts) -> Result<()> {
    let helper = "/usr/lib/dbus-1.0/dbus-daemon-launch-helper";
    for (path, group, mode) in [
        ("/etc/shadow", "shadow", "640"),
        ("/etc/gshadow", "shadow", "640"),
        ("/usr/sbin/unix_chkpwd", "shadow", "2755"),
        ("/var/log/wtmp", "utmp", "664"),
        ("/var/log/btmp", "utmp", "660"),
        ("/var/mail", "mail", "2775"),
        ("/var/log/journal", "systemd-journal", "2755"),
        (helper, "messagebus", "4754"),
    ] {
        let gid = accounts.gid(group).with_context(|| format!("find group {group}"))?;
        let file = tree.join(&path[1..]);
        // One at a time: setting the group clears the set-id bits.
        cmd::run(owner.command("chgrp").arg(gid.to_string()).arg(&file))?;
        cmd::run(owner.command("chmod").arg(mode).arg(&file))?;
    }
    let overrides = format!("root messagebus 4754 {helper}\n") + &hardened::no_set_id(owner, tree)?;
    put(tree, "/var/lib/dpkg/statoverride", &overrides, 0o644)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_write_is_below_var_and_dpkg_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in MOVED.iter().map(|(name, _, _)| *name).chain([DPKG.0]) {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("root/.profile"), "p").unwrap();
        fs::write(dir.path().join("var/lib/dpkg/status"), "s").unwrap();
        links(dir.path()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("root/.profile"), read("var/roothome/.profile")), ("p".to_owned(), "p".to_owned()));
        assert_eq!(
            (read("var/lib/dpkg/status"), read("usr/lib/sysimage/dpkg/status")),
            ("s".to_owned(), "s".to_owned())
        );
        let link = |name: &str| fs::read_link(dir.path().join(name)).unwrap();
        assert_eq!((link("opt"), link("root")), ("var/opt".into(), "var/roothome".into()));
        let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("root"), mode("srv"), mode("data")), (0o700, 0o755, 0o700));
        // systemd makes them anew, should the data partition lose them.
        for (_, place, mode) in MOVED {
            assert!(OVERLAY_TEXT.contains(&format!("\nd /{place} {mode:04o} ")), "{place}");
        }
        assert!(OVERLAY_TEXT.contains(&format!("\nL /{} - - - - ../../{}\n", DPKG.0, DPKG.1)));
    }

    #[test]
    fn alternatives_leave_no_log() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr/bin", "dev", "etc/alternatives", "var/lib/dpkg/alternatives"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        put(dir.path(), "/usr/bin/mawk", "", 0o755).unwrap();
        alternative(dir.path(), ["/usr/bin/awk", "awk", "/usr/bin/mawk", "5"], &[]).unwrap();
        assert!(dir.path().join("usr/bin/awk").is_symlink());
        remove_log(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("dev")).unwrap().count(), 0);
        remove_log(dir.path()).unwrap();
    }

    #[test]
    fn overlay_is_well_formed() {
        let files = overlay_files(OVERLAY_TEXT).unwrap();
        assert!(files.iter().all(|(mode, path, text)| *mode == 0o644 && path.starts_with('/') && !text.is_empty()));
        let hostname = files.iter().find(|(_, path, _)| *path == "/etc/hostname").unwrap();
        assert_eq!(hostname.2, "localhost\n");
        assert_eq!(overlay_files("#\nstray\n").unwrap_err().to_string(), "read overlay: `stray`");
    }
}
