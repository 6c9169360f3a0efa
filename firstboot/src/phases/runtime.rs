// SPDX-License-Identifier: Apache-2.0
//! The container runtime: configured, enabled, running and answering on CRI.

use super::{CURRENT, Cx, proxy, rebuild, registries};
use crate::cri::Cri;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::containerd::CONFIG;
use crate::host::Host;
use crate::journal::{Effect, Record};
use anyhow::{Context, Result};
use std::time::Duration;

const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/containerd.service";
const UNIT: &str = "/usr/lib/systemd/system/containerd.service";
/// How long it may take to start, on an empty folder, too.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two questions whether it answers, and between two looks whether its state is damaged.
const INTERVAL: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_secs(5);
const SILENT: &str = "wait for containerd, see journalctl -u containerd";

pub(super) fn check(cx: &Cx) -> Result<bool, Fault> {
    let held = || -> Result<bool> {
        // An edited configuration is the administrator's; a missing one is ours.
        Ok(cx.host.read(CONFIG)?.is_some_and(|b| !b.is_empty())
            && cx.host.read_link(WANTED)?.is_some()
            && registries::hold(&cx.host, &cx.seed.registries)?
            && proxy::holds(&cx.host, &cx.seed.network.via)?)
    };
    Ok(held().owned_by(Owner::Host)? && answers(&cx.host).is_ok())
}

pub(super) fn apply(cx: &Cx) -> Result<(), Fault> {
    let work = || -> Result<()> {
        cx.host.write(CONFIG, config(&cx.bundle.manifest.sandbox_image).as_bytes(), 0o600)?;
        // Folders that kubelet, CNI plugins and administrators expect to be there.
        for folder in ["/etc/cni/net.d", "/opt/cni/bin", registries::FOLDER] {
            cx.host.mkdir(folder, 0o755)?;
        }
        registries::put(&cx.host, &cx.seed.registries)?;
        let proxy = proxy::put(&cx.host, &cx.seed.network.via)?;
        cx.host.enable_unit(WANTED, UNIT)?;
        let started = Record::Effect(Effect::Started { unit: "containerd.service".into() });
        if proxy && cx.host.journal().records().contains(&started) {
            // It would go on with the environment that an earlier seed gave it.
            cx.host.run(&["systemctl", "stop", "containerd.service"])?;
        }
        cx.host.start_unit("containerd.service")?;
        match answer_or_damage(&cx.host)? {
            None => Ok(()),
            // The power went while it wrote, earlier.
            Some(why) => {
                rebuild::set_aside(&cx.host, &why)?;
                wait(&cx.host)
            }
        }
    };
    work().owned_by(Owner::Host)
}

/// Waits until it answers; or why it never will.
fn answer_or_damage(host: &Host) -> Result<Option<String>> {
    let mut next = host.sys().uptime() + LOOK;
    wait_for(host, INTERVAL, || match answers(host) {
        Ok(()) => Ok(None),
        Err(silent) if host.sys().uptime() < next => Err(silent),
        Err(silent) => {
            next = host.sys().uptime() + LOOK;
            rebuild::damage(host)?.map(Some).ok_or(silent)
        }
    })
}

/// Waits until it answers.
pub(super) fn wait(host: &Host) -> Result<()> {
    wait_for(host, INTERVAL, || answers(host))
}

/// Waits until it has an answer to what is asked every `interval`; then gives it.
pub(super) fn wait_for<T>(host: &Host, interval: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let answered = host.wait(LIMIT, interval, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(e) => {
            last = Some(e);
            Ok(None)
        }
    })?;
    match (answered, last) {
        (Some(answer), _) => Ok(answer),
        (None, Some(last)) => Err(last).context(SILENT),
        (None, None) => anyhow::bail!(SILENT),
    }
}

fn answers(host: &Host) -> Result<()> {
    Cri::connect(host.sys())?.ready()
}

/// containerd's configuration, version 3 (containerd 2.x, docs/cri/config.md).
///
/// A layer is on record the moment it is unpacked, and its files reach the disk up to half a minute later: a power cut between
/// leaves empty files that nobody looks at again. `sync_fs` is for what is imported, `image_pull_with_sync_fs` for what kubelet
/// pulls, which the transfer service cannot do yet (containerd#9401, #10284).
fn config(sandbox_image: &str) -> String {
    format!(
        r#"# Written by firstboot.
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.service.v1.diff-service"]
  sync_fs = true

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  image_pull_with_sync_fs = true
  use_local_image_pull = true

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox_image}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{CURRENT}/bin/runc"
  SystemdCgroup = true

[plugins."io.containerd.cri.v1.runtime".cni]
  # The cluster's own plugins, once it brings any, come first.
  bin_dirs = ["/opt/cni/bin", "{CURRENT}/cni"]
  conf_dir = "/etc/cni/net.d"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    /// A machine whose containerd never answers: what systemd and its log say of it.
    fn silent(unit: &'static str, log: &'static str) -> (Result<Option<String>>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.sockets_below(dir.path()).answering(move |argv| match argv[0] {
            "systemctl" => Some(Ok(unit.to_owned())),
            "journalctl" => Some(Ok(log.to_owned())),
            _ => None,
        });
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let found = answer_or_damage(&host);
        (found, host.sys().uptime())
    }

    #[test]
    fn a_damaged_runtime_is_not_waited_for_and_a_slow_one_is() {
        let (found, waited) = silent("ActiveState=activating\nNRestarts=3\n", "level=fatal error=\"checksum error\"");
        assert_eq!((found.unwrap().as_deref(), waited), (Some("it says \"checksum error\""), LOOK));
        let (found, waited) = silent("ActiveState=activating\nNRestarts=0\n", "level=info msg=starting");
        assert!(found.unwrap_err().to_string().starts_with(SILENT));
        assert_eq!(waited, LIMIT);
    }

    #[test]
    fn the_configuration_is_toml_and_pins_the_sandbox_image() {
        let config: toml::Table = config("registry.k8s.io/pause:3.10.2").parse().unwrap();
        assert_eq!(config["version"].as_integer(), Some(3));
        let plugins = &config["plugins"];
        let sandbox = &plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"];
        assert_eq!(sandbox.as_str(), Some("registry.k8s.io/pause:3.10.2"));
        let runc = &plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["runc"]["options"];
        assert_eq!(runc["SystemdCgroup"].as_bool(), Some(true));
    }
}
