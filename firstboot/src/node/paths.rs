// SPDX-License-Identifier: Apache-2.0
//! Where files of a node lie that more than one part of firstboot writes or reads.

/// `--config-dir` of kubelet: files ending in `.conf`, in the order of their names.
pub const KUBELET_DROP_INS: &str = "/etc/firstboot/kubelet.conf.d";

/// What is written from here; sorts before what the seed says.
pub const DROP_IN: &str = "/etc/firstboot/kubelet.conf.d/10-harden.conf";

/// What the seed says.
pub const SEED_DROP_IN: &str = "/etc/firstboot/kubelet.conf.d/50-seed.conf";

/// containerd's configuration.
pub const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// What enables kubelet.
pub(crate) const KUBELET_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/kubelet.service";

/// kubelet's unit, which the image brings.
pub(crate) const KUBELET_UNIT: &str = "/usr/lib/systemd/system/kubelet.service";
