// SPDX-License-Identifier: Apache-2.0
//! What is mounted below the folders that a reset takes away (proc_pid_mountinfo(5)).

use super::keep::{Keep, is_within};
use crate::escapes::resolved;

/// Network namespaces of pods, which the runtime mounts by name.
const NAMESPACES: &str = "/run/netns/cni-";

/// Beginnings of the types of file systems that a server, or a program, stands behind.
const REMOTE: [&str; 6] = ["nfs", "cifs", "smb", "ceph", "9p", "fuse"];

/// Something that is mounted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where.
    pub point: String,
    /// Whether somebody has to answer for it to be unmounted.
    pub remote: bool,
}

impl Mount {
    /// Whether it is the network namespace of a pod: a file that is there to be mounted on.
    pub fn is_namespace(&self) -> bool {
        self.point.starts_with(NAMESPACES)
    }

    fn of(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let remote = REMOTE.iter().any(|r| kind.starts_with(r));
        // Blanks and their like are written as three octal digits.
        Some(Mount { point: resolved(left.split(' ').nth(4)?, b'\\', 3, 8), remote })
    }
}

/// What is mounted strictly below the folders, and the namespaces of pods: what was mounted last comes first.
pub(crate) fn below(mountinfo: &str, folders: &[String], keep: &Keep) -> Vec<Mount> {
    let ours = |mount: &Mount| {
        let point = &mount.point;
        let within = folders.iter().any(|folder| point != folder && is_within(point, folder));
        (within || mount.is_namespace()) && !keep.covers(point)
    };
    mountinfo.lines().rev().filter_map(Mount::of).filter(ours).collect()
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
        let folders = ["/var/lib/kubelet".to_owned(), "/var/lib/containerd".to_owned()];
        let keep = Keep::parse(&["/var/lib/kubelet/keep"]).unwrap();
        let mounts = below(text, &folders, &keep);
        let shown: Vec<(&str, bool)> = mounts.iter().map(|m| (m.point.as_str(), m.remote)).collect();
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
