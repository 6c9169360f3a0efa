// SPDX-License-Identifier: Apache-2.0
//! What tests of several phases share.

use super::context::PhaseContext;
use crate::boot_partition::formatted_for_tests;
use crate::bundle::installed::Installed;
use crate::bundle::{Image, Manifest};
use crate::host::Host;
use crate::host::fake::Fake;
use crate::image::ImageInfo;
use crate::seed;
use anyhow::{Result, anyhow};
use std::cell::OnceCell;
use std::path::Path;

/// Everything that a phase is given: this machine and this seed, an empty bundle.
pub(super) fn cx(root: &Path, sys: Fake, seed: &str) -> PhaseContext {
    // One machine may be given several seeds, one after the other.
    let boot = (0..).map(|n| root.join(format!("boot-{n}.img"))).find(|p| !p.exists()).unwrap();
    PhaseContext {
        seed: seed::parse(seed.as_bytes()).unwrap(),
        image: ImageInfo { build_time: 0, ..ImageInfo::for_tests() },
        bundle: Installed { manifest: Manifest::for_tests(), id: "0".repeat(16) },
        boot: formatted_for_tests(&boot, 0, 16 << 20).unwrap(),
        card: None,
        seed_name: "seed.toml".into(),
        removable: false,
        preflight: OnceCell::new(),
        host: Host::open(root, Box::new(sys)).unwrap(),
    }
}

/// An image of each of these components.
pub(super) fn images(components: &[&str]) -> Vec<Image> {
    components.iter().map(|name| Image::for_tests(&format!("registry.example/{name}:1"), name)).collect()
}

/// What a device answers whose kubeadm, run by `unit`, fails with these lines.
pub(super) fn kubeadm_fails(unit: &'static str, log: &'static str) -> impl Fn(&[&str]) -> Option<Result<String>> {
    move |argv| match argv {
        ["systemctl", "start", started] if *started == unit => Some(Err(anyhow!("run systemctl: exit status: 1"))),
        ["journalctl", ..] => Some(Ok(log.to_owned())),
        ["ip", "-json", "route", ..] => Some(Ok("[{\"prefsrc\":\"192.0.2.7\"}]".to_owned())),
        _ => None,
    }
}
