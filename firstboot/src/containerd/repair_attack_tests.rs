// SPDX-License-Identifier: Apache-2.0
//! What a tenant, a registry or a pod's author can make of containerd's state and of its log sets nothing aside.

use super::*;

/// A tenant's image of one layer with an empty file `pause`, pulled later than the bundle's: a newer snapshot.
#[test]
fn s06_a_tenants_empty_pause_sets_nothing_aside() {
    let device = Device::new();
    device.put("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/40/fs/pause");
    let (done, seen) = device.settle(None);
    done.unwrap();
    assert_eq!(seen.lines.take(), Vec::<String>::new());
    assert!(device.has(KNOWN) && device.past().is_none());
}

/// What a registry, a pod's author and a client can write into containerd's log, while CRI answers too late.
#[test]
fn s06_words_that_a_tenant_or_a_registry_chooses_set_nothing_aside() {
    let time = "time=\"2026-11-28T17:00:00.000000000Z\"";
    for line in [
        // The reason phrase of a registry's HTTP answer.
        "level=error msg=\"PullImage \\\"r.example/a:1\\\" failed\" error=\"unexpected status from HEAD request to \
         https://r.example/v2/a/manifests/1: 500 checksum error\"",
        // The command of an exec probe.
        "level=error msg=\"ExecSync for \\\"1\\\" failed\" error=\"rpc error: exec: \\\"invalid database\\\": executable \
         file not found\"",
        // A pod's name, and the stack of a panic inside a message.
        "level=error msg=\"RunPodSandbox for &PodSandboxMetadata{Name:missing parent,} failed\"",
        "level=info msg=\"x\\ngo.etcd.io/bbolt.(*Tx).page(0x1)\\n\" image=\"go.etcd.io/bbolt\"",
        // All words of a true message, inside another.
        "level=info msg=\"level=fatal msg=\\\"failed to load plugin\\\" error=\\\"invalid database\\\" \
         id=io.containerd.metadata.v1.bolt\"",
    ] {
        let device = Device::new();
        device.put("/var/lib/containerd/torn");
        device.log.replace(format!("{time} {line}\n"));
        let (done, seen) = device.settle(None);
        done.unwrap();
        assert!(seen.lines.take().is_empty() && device.past().is_none(), "{line}");
        assert!(device.has(KNOWN), "{line}");
    }
}

/// Every image with a file of no content has that blob, and anyone may push one.
#[test]
fn s06_empty_blobs_of_others_set_nothing_aside() {
    let device = Device::new();
    let (host, _) = device.on();
    // Even one that the bundle has, too.
    device.put(&format!("{BLOBS}/{NOTHING}"));
    device.put(&format!("{BLOBS}/{}", "4".repeat(64)));
    let bundle = Installed::read(&host).unwrap();
    assert_eq!(damage::of_images(&host, &bundle.manifest, &[PROXY.to_owned()]).unwrap(), None);
}
