// SPDX-License-Identifier: Apache-2.0
//! The device binary's own join worker, in its sandbox, natively: the same file that an image holds, as another account.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use imagebuild::device;
use qemu::control_plane::ControlPlane;

use super::bench::*;

/// On Debian: `nobody`.
const NOBODY: u32 = 65534;

pub fn the_device_binary_joins_from_its_sandbox(plane: &ControlPlane) {
    let dir = tempdir();
    let program = dir.path().join("firstboot");
    std::fs::copy(device::ensure(e2e::own_arch()).unwrap(), &program).unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (token, seed) = good(plane);
    let (here, there) = UnixStream::pair().unwrap();
    let mut command = Command::new(&program);
    command.arg("network").stdin(OwnedFd::from(there)).stdout(Stdio::null()).stderr(Stdio::piped());
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let child = command.spawn().unwrap();
    drop(command);
    let mut device = Bench::default();
    let joined = device.join_through(&here, &seed, "sandboxed");
    drop(here);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let joined = joined.unwrap_or_else(|fault| panic!("{fault}; it said: {said}"));
    assert!(ended.status.success() && said.is_empty(), "{:?}: {said}", ended.status);
    assert_eq!(device.node_client(&joined).node().unwrap(), None);
    assert_eq!(csrs_by(plane, &token).len(), 1);
    assert!(device.server_time.is_some());
    // Only restrictions of this machine are reported.
    assert!(
        device.reported.iter().all(|t| t.starts_with("this kernel") || t.contains("cannot be locked")),
        "{:?}",
        device.reported
    );
}
