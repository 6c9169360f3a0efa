// SPDX-License-Identifier: Apache-2.0
//! The container runtime: configured, enabled and started. The phase `images` waits for it: it reads its program while
//! the network comes up and the cluster signs.

use super::context::PhaseContext;
use super::registries;
use crate::bundle::{BUNDLE_DIR, Manifest};
use crate::containerd::prepared;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::journal::{Effect, Record};
use crate::node::proxy_env;
use crate::paths::{
    CNI_BEFORE, CNI_BIN, CNI_CONF, CONTAINERD_CONFIG, CONTAINERD_ROOT, CONTAINERD_SOCKET, CONTAINERD_STATE, REGISTRIES,
};
use anyhow::Result;
use std::collections::BTreeMap;

const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/containerd.service";
const UNIT: &str = "/usr/lib/systemd/system/containerd.service";

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        // An edited configuration is the administrator's; a missing one is ours, and one for another seed's `offline`.
        let suits = |text: String| !text.is_empty() && text.contains(CNI_BEFORE) == cx.seed.node.offline;
        Ok(cx.host.read_utf8(CONTAINERD_CONFIG)?.is_some_and(suits)
            && cx.host.read_link(WANTED)?.is_some()
            && registries::hold(&cx.host, &cx.seed.registries)?
            && proxy_env::holds(&cx.host, &cx.seed.network.via)?)
    };
    held().owned_by(Owner::Host)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    let work = || -> Result<()> {
        let config = config(&cx.bundle.manifest, cx.seed.node.offline);
        let configured = cx.host.read(CONTAINERD_CONFIG)?.as_deref() != Some(config.as_bytes());
        cx.host.write(CONTAINERD_CONFIG, config.as_bytes(), 0o600)?;
        // Directories that kubelet, CNI plugins and administrators expect to be there.
        for directory in [CNI_CONF, CNI_BIN, REGISTRIES] {
            cx.host.mkdir(directory, 0o755)?;
        }
        registries::put(&cx.host, &cx.seed.registries)?;
        let proxy = proxy_env::put(&cx.host, &cx.seed.network.via)?;
        // Before anything could start it on an empty directory.
        prepared::place(&cx.host)?;
        cx.host.enable_unit(WANTED, UNIT)?;
        let started = Record::Effect(Effect::Started { unit: "containerd.service".into() });
        if (proxy || configured) && cx.host.journal().records().contains(&started) {
            // It would go on with what an earlier seed gave it.
            cx.host.run(&["systemctl", "stop", "containerd.service"])?;
        }
        cx.host.begin_unit("containerd.service")
    };
    work().owned_by(Owner::Host)
}

/// containerd's configuration, version 3 (containerd 2.x, docs/cri/config.md).
///
/// A layer of a pulled image is on record the moment it is unpacked, and its files reach the disk up to half a minute later: a
/// power cut between leaves empty files that are never checked again. `image_pull_with_sync_fs` is against that, which the
/// transfer service cannot do yet (containerd#9401, #10284); `sync_fs` is for what a person imports.
///
/// All images of the bundle are pinned: kubelet's garbage collection would gain no byte by removing one. CRI takes the image
/// of sandboxes from the pin of that name.
///
/// `offline`: pods keep their addresses over a reboot, whichever network hands them out ([`crate::offline::ipam`]).
fn config(bundle: &Manifest, offline: bool) -> String {
    let before = if offline { format!("\"{CNI_BEFORE}\", ") } else { String::new() };
    let pins: BTreeMap<&str, &str> = bundle
        .images
        .iter()
        .filter(|image| image.name != bundle.sandbox_image)
        .map(|image| (image.component.as_str(), image.name.as_str()))
        .chain([("sandbox", bundle.sandbox_image.as_str())])
        .collect();
    let pins: String = pins.into_iter().map(|(key, name)| format!("  \"{key}\" = \"{name}\"\n")).collect();
    format!(
        r#"# Written by firstboot.
version = 3
root = "{CONTAINERD_ROOT}"
state = "{CONTAINERD_STATE}"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.service.v1.diff-service"]
  sync_fs = true

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  image_pull_with_sync_fs = true
  use_local_image_pull = true

[plugins."io.containerd.cri.v1.images".pinned_images]
{pins}
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{REGISTRIES}"

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "/usr/bin/runc"
  SystemdCgroup = true

[plugins."io.containerd.cri.v1.runtime".cni]
  # The cluster's own plugins, once it brings any, come first.
  bin_dirs = [{before}"{CNI_BIN}", "{BUNDLE_DIR}/cni"]
  conf_dir = "{CNI_CONF}"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_and_pins_every_image() {
        let image = crate::bundle::Image::for_tests;
        let images = vec![image("registry.k8s.io/pause:3.10.2", "pause"), image("example.org/proxy:1", "kube-proxy")];
        let bundle = Manifest { images, ..Manifest::for_tests() };
        let parsed = |offline| config(&bundle, offline).parse::<toml::Table>().unwrap();
        let config = parsed(false);
        assert_eq!(config["version"].as_integer(), Some(3));
        let plugins = &config["plugins"];
        let pins = plugins["io.containerd.cri.v1.images"]["pinned_images"].as_table().unwrap();
        assert_eq!(pins["sandbox"].as_str(), Some("registry.k8s.io/pause:3.10.2"));
        assert_eq!((pins["kube-proxy"].as_str(), pins.len()), (Some("example.org/proxy:1"), 2));
        let runtime = &plugins["io.containerd.cri.v1.runtime"];
        let runc = &runtime["containerd"]["runtimes"]["runc"]["options"];
        assert_eq!(runc["SystemdCgroup"].as_bool(), Some(true));
        let directories = |config: &toml::Table| {
            let all = &config["plugins"]["io.containerd.cri.v1.runtime"]["cni"]["bin_dirs"];
            all.as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(directories(&config), ["/opt/cni/bin", "/usr/lib/firstboot/bundle/cni"]);
        let keeping = ["/usr/lib/firstboot/cni", "/opt/cni/bin", "/usr/lib/firstboot/bundle/cni"];
        assert_eq!(directories(&parsed(true)), keeping);
    }
}
