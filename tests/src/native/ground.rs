// SPDX-License-Identifier: Apache-2.0
//! What firstboot finds on a machine: a small image with a bundle of its own, and the files that the kernel shows.

use anyhow::{Context, Result};
use firstboot::bundle::{BUNDLE_DIR, COMMANDS, File, Image, Manifest};
use firstboot::harden;
use firstboot::image::{IMAGE_INFO, ImageInfo};
use firstboot::text::hex;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Version of the bundle's kubelet.
pub const KUBELET: &str = "1.36.3";
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// Files of the image beside those that are made: path, mode, text.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/machine-id", 0o444, "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f\n"),
    ("etc/hostname", 0o644, "image\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n"),
    ("etc/default/kubelet", 0o600, "# of the image\n"),
    ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/bash\n"),
    ("etc/group", 0o644, "root:x:0:\nadm:x:4:\nsystemd-journal:x:999:\n"),
    ("etc/shadow", 0o640, "root:!*:20000:0:99999:7:::\n"),
    ("etc/gshadow", 0o640, "root:!*::\nadm:!*::\nsystemd-journal:!*::\n"),
    ("usr/sbin/sshd", 0o755, ""),
    ("usr/bin/losetup", 0o755, ""),
    ("usr/bin/mount", 0o755, ""),
    ("usr/bin/cp", 0o755, ""),
    ("usr/lib/systemd/system/kubelet.service", 0o600, "[Service]\n"),
    ("usr/lib/systemd/system/containerd.service", 0o600, "[Service]\n"),
    ("usr/lib/systemd/system/systemd-networkd.service", 0o644, "[Service]\n"),
    ("usr/lib/systemd/system/systemd-timesyncd.service", 0o644, "[Service]\n"),
];

const DIRECTORIES: [&str; 9] =
    ["dev", "etc/systemd/system", "opt", "run", "tmp", "usr/bin", "usr/libexec", "var/lib", "var/log"];

/// Kernel options that a node needs, all of them built in.
const OPTIONS: &str = "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CPUSETS MEMCG INET EXT4_FS PROC_FS \
    NETFILTER_XT_TARGET_REDIRECT NETFILTER_XT_MATCH_COMMENT FAIR_GROUP_SCHED CGROUPS CGROUP_BPF CGROUP_PIDS \
    CGROUP_SCHED OVERLAY_FS BRIDGE_NETFILTER BLK_DEV_DM CFS_BANDWIDTH SECCOMP SECCOMP_FILTER CGROUP_HUGETLB";
const RELEASE: &str = "6.12.57+deb13-amd64";

fn put(root: &Path, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let path = root.join(path.trim_start_matches('/'));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
}

/// A device as it was flashed, after systemd has made a machine-id.
///
/// # Errors
/// When it cannot be written.
pub fn flashed(root: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    for (path, mode, text) in FILES {
        put(root, path, *mode, text.as_bytes())?;
    }
    for (path, text) in harden::image_files() {
        put(root, path, 0o644, text.as_bytes())?;
    }
    let options: String = OPTIONS.split_whitespace().map(|o| format!("CONFIG_{o}=y\n")).collect();
    put(root, &format!("boot/config-{RELEASE}"), 0o644, options.as_bytes())?;
    symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf"))?;
    let image = ImageInfo { build_time: 1_700_000_000, ..ImageInfo::for_tests() };
    put(root, IMAGE_INFO, 0o644, serde_json::to_string(&image)?.as_bytes())?;
    bundle(root)
}

/// Where containerd's data base is, below its directory.
pub(super) const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// A program of each kind and two images, a few bytes each, with a state that stands for containerd's.
fn bundle(root: &Path) -> Result<()> {
    let (component, version) = (|| "test".to_owned(), || "1".to_owned());
    let digest = |content: &str| hex(&Sha256::digest(content));
    let bundled = |path: &str, mode: u32, text: &str| put(root, &format!("{BUNDLE_DIR}/{path}"), mode, text.as_bytes());
    let mut manifest = Manifest::for_tests();
    for path in ["bin/kubelet", "bin/containerd", "bin/ctr", "bin/runc", "cni/bridge"] {
        let content = format!("{path}\n").repeat(100);
        bundled(path, 0o755, &content)?;
        manifest.files.push(File {
            path: path.into(),
            mode: 0o755,
            size: content.len() as u64,
            sha256: digest(&content),
            component: component(),
            version: version(),
        });
        let name = path.rsplit('/').next().unwrap_or_default();
        if COMMANDS.contains(&name) {
            symlink(format!("../lib/firstboot/bundle/{path}"), root.join("usr/bin").join(name))?;
        }
    }
    let blobs = "containerd/io.containerd.content.v1.content/blobs/sha256";
    let snapshots = "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    for (n, name) in [PAUSE, "registry.k8s.io/kube-proxy:v1.36.3"].into_iter().enumerate() {
        let layer = digest(name);
        bundled(&format!("layers/{layer}/program"), 0o755, name)?;
        let content: Vec<String> = ["manifest", "config"].map(|kind| format!("{{\"{kind}\":\"{name}\"}}")).to_vec();
        for blob in &content {
            bundled(&format!("{blobs}/{}", digest(blob)), 0o444, blob)?;
        }
        // In the place of what containerd.service mounts there.
        bundled(&format!("{snapshots}/{}/fs/program", n + 1), 0o755, name)?;
        let content: Vec<String> = content.iter().map(|blob| digest(blob)).collect();
        manifest.images.push(Image {
            name: name.into(),
            sha256: content[0].clone(),
            chain_id: format!("sha256:{layer}"),
            layers: vec![layer],
            content,
            component: component(),
            version: version(),
        });
    }
    bundled(&format!("containerd/{DATABASE}"), 0o644, "knows all images of the manifest")?;
    fs::set_permissions(root.join(&BUNDLE_DIR[1..]).join("containerd"), fs::Permissions::from_mode(0o700))?;
    bundled("manifest.json", 0o644, &serde_json::to_string(&manifest)?)
}

/// The power comes back: nothing is left in memory, and the kernel shows what it has. Gives the id of this boot.
///
/// # Errors
/// When it cannot be written.
pub fn power_on(root: &Path, serial: &str) -> Result<String> {
    let last = fs::read_to_string(root.join(BOOT_ID)).unwrap_or_default();
    let last: u64 = last.trim().rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let boot_id = format!("00000000-0000-4000-8000-{:012}", last + 1);
    for directory in ["run", "proc", "sys"] {
        let _ = fs::remove_dir_all(root.join(directory));
        fs::create_dir_all(root.join(directory))?;
    }
    let release = fs::read_dir(root.join("boot"))
        .ok()
        .and_then(|mut all| all.find_map(|e| e.ok()?.file_name().to_str()?.strip_prefix("config-").map(str::to_owned)));
    let release = release.unwrap_or_else(|| RELEASE.to_owned());
    let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                 eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\n";
    for (path, text) in [
        (BOOT_ID, boot_id.as_str()),
        ("proc/sys/kernel/random/uuid", "aaaaaaaa-bbbb-4d2f-9d3c-2b1a4c5d6e7f"),
        ("proc/sys/kernel/osrelease", &release),
        ("proc/meminfo", "MemTotal:        2014132 kB"),
        ("proc/mounts", "/dev/vda3 / ext4 rw,noatime 0 0"),
        ("proc/self/environ", "PATH=/usr/bin\0"),
        ("proc/self/mountinfo", ""),
        ("proc/swaps", "Filename Type Size Used Priority"),
        ("proc/net/route", route),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids"),
        ("sys/class/dmi/id/product_serial", serial),
        ("sys/class/net/eth0/address", "02:00:5e:00:53:01"),
        ("sys/class/net/eth0/carrier", "1"),
        ("sys/class/net/eth0/device/uevent", "DRIVER=x"),
    ] {
        put(root, path, 0o444, format!("{text}\n").as_bytes())?;
    }
    set_kernel(root)?;
    Ok(boot_id)
}

/// What systemd-sysctl does at every boot.
fn set_kernel(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    for directory in ["usr/lib/sysctl.d", "etc/sysctl.d"] {
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten() {
            files.push(entry?.path());
        }
    }
    files.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    for file in files {
        for line in fs::read_to_string(&file)?.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.trim_start_matches('-').split_once(" = ") else { continue };
            let path = format!("proc/sys/{}", key.replace('.', "/"));
            let links: &[&str] = if path.contains('*') { &["all", "default"] } else { &["*"] };
            for link in links {
                put(root, &path.replace('*', link), 0o644, format!("{value}\n").as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The id of the boot that the machine is in.
pub(super) fn boot_id(root: &Path) -> String {
    fs::read_to_string(root.join(BOOT_ID)).unwrap_or_default().trim().to_owned()
}
