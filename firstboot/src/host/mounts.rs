// SPDX-License-Identifier: Apache-2.0
//! What is mounted (proc_pid_mountinfo(5)) and what is swapped to.

use super::Host;
use super::exclusions::{Exclusions, is_within};
use crate::unescape::resolved;
use anyhow::Result;

/// Network namespaces of pods, which the runtime mounts by name.
const NAMESPACES: &str = "/run/netns/cni-";

/// Beginnings of the types of file systems that a server, or a program, stands behind.
const REMOTE: [&str; 6] = ["nfs", "cifs", "smb", "ceph", "9p", "fuse"];

/// Something that is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Mount point.
    pub point: String,
    /// Options of the mount, joined by commas.
    pub options: String,
    /// Type of the file system.
    pub kind: String,
}

impl Mount {
    /// Whether it is the network namespace of a pod: a file that is there to be mounted on.
    pub fn is_namespace(&self) -> bool {
        self.point.starts_with(NAMESPACES)
    }

    /// Whether a server, or a program, has to answer for it to be unmounted.
    pub fn is_remote(&self) -> bool {
        REMOTE.iter().any(|r| self.kind.starts_with(r))
    }

    fn of(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(4);
        // Blanks and their like are written as three octal digits.
        let point = resolved(left.next()?, b'\\', 3, 8);
        Some(Mount { point, options: left.next()?.to_owned(), kind: right.split(' ').next()?.to_owned() })
    }
}

/// Everything that is mounted, in the order in which it was.
pub(crate) fn mounted(host: &Host) -> Result<Vec<Mount>> {
    Ok(parse(&host.read_text("/proc/self/mountinfo")?.unwrap_or_default()))
}

/// The same, out of the text of such a file.
pub(crate) fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(Mount::of).collect()
}

/// What is mounted strictly below the directories, and the namespaces of pods: what was mounted last comes first.
pub(crate) fn below(mounts: Vec<Mount>, directories: &[String], keep: &Exclusions) -> Vec<Mount> {
    let ours = |mount: &Mount| {
        let point = &mount.point;
        let within = directories.iter().any(|directory| point != directory && is_within(point, directory));
        (within || mount.is_namespace()) && !keep.covers(point)
    };
    mounts.into_iter().rev().filter(ours).collect()
}

/// What is swapped to.
pub(crate) fn swaps(host: &Host) -> Result<Vec<String>> {
    let text = host.read("/proc/swaps")?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_is_the_first_to_go_and_no_other_goes() {
        let text = "22 1 254:3 / / rw - ext4 /dev/vda3 rw\n\
            30 22 0:24 / /tmp rw - tmpfs tmpfs rw\n\
            31 22 8:1 / /var/lib/containerd rw - ext4 /dev/sda1 rw\n\
            40 22 0:40 / /var/lib/kubelet/pods/a/volumes/x\\040y rw - tmpfs tmpfs rw\n\
            41 40 0:41 / /var/lib/kubelet/pods/a/volumes/x\\040y/z rw - nfs h:/d rw\n\
            42 22 0:42 / /var/lib/kubelet-2 rw - tmpfs tmpfs rw\n\
            43 22 0:43 / /var/lib/kubelet/keep rw - tmpfs tmpfs rw\n\
            44 22 0:4 net:[4026532000] /run/netns/cni-1 rw - nsfs nsfs rw\n\
            45 22 0:4 net:[4026532001] /run/netns/mine rw - nsfs nsfs rw\n";
        let directories = ["/var/lib/kubelet".to_owned(), "/var/lib/containerd".to_owned()];
        let keep = Exclusions::parse(&["/var/lib/kubelet/keep"]).unwrap();
        let mounts = below(parse(text), &directories, &keep);
        let shown: Vec<(&str, bool)> = mounts.iter().map(|m| (m.point.as_str(), m.is_remote())).collect();
        assert_eq!(
            shown,
            [
                ("/run/netns/cni-1", false),
                ("/var/lib/kubelet/pods/a/volumes/x y/z", true),
                ("/var/lib/kubelet/pods/a/volumes/x y", false),
            ]
        );
    }
}
