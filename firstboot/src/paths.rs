// SPDX-License-Identifier: Apache-2.0
//! Paths on a node that more than one part of firstboot names: kubeadm's, kubelet's, containerd's, systemd's and ours.
//!
//! A path stands here once, and `firstboot/tests/tidy.rs` refuses a second one. Paths that a single file uses stay
//! there.

/// kubeadm's directory: which cluster this is.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// kubelet's kubeconfig. kubelet takes it as "there is a certificate", so it is written last.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// Static pods.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What kubelet trusts.
pub const CLUSTER_PKI: &str = "/etc/kubernetes/pki";
/// Certificates and keys of etcd, on a control plane.
pub const ETCD_PKI: &str = "/etc/kubernetes/pki/etcd";
/// The CA certificates of the cluster, PEM.
pub const CA_FILE: &str = "/etc/kubernetes/pki/ca.crt";

/// kubelet's directory: its configuration, and the volumes of pods.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";
/// kubelet's certificates and keys.
pub const PKI: &str = "/var/lib/kubelet/pki";
/// The node's client certificate and key: a link to the newest pair.
pub const CURRENT_PEM: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// The configuration that the cluster publishes.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// This node's part of the configuration.
pub const INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";
/// kubelet's flags, as kubeadm writes them.
pub const KUBEADM_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// kubelet's flags of the node's operator.
pub const KUBELET_ARGS: &str = "/etc/default/kubelet";
/// kubelet's unit, which the image brings.
pub const KUBELET_UNIT: &str = "/usr/lib/systemd/system/kubelet.service";
/// What enables kubelet.
pub const KUBELET_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/kubelet.service";

/// `--config-dir` of kubelet: files ending in `.conf`, in the order of their names.
pub const KUBELET_DROP_INS: &str = "/etc/firstboot/kubelet.conf.d";
/// The hardened host's part; sorts before the seed's.
pub const DROP_IN: &str = "/etc/firstboot/kubelet.conf.d/10-harden.conf";
/// The seed's part.
pub const SEED_DROP_IN: &str = "/etc/firstboot/kubelet.conf.d/50-seed.conf";
/// The same for `kubeadm upgrade node --patches`.
pub const KUBELET_PATCH: &str = "/etc/firstboot/patches/kubeletconfiguration+strategic.json";
/// What `kubeadm init` is given on a device that creates its cluster.
pub const KUBEADM_CONFIG: &str = "/etc/firstboot/kubeadm.yaml";
/// keepalived's configuration, where control planes share an address.
pub const KEEPALIVED_CONFIG: &str = "/etc/firstboot/keepalived.conf";
/// What starts keepalived at boot.
pub const KEEPALIVED_WANTED: &str = "/etc/systemd/system/multi-user.target.wants/firstboot-virtual-ip.service";
/// firstboot's directory of settings.
pub const SETTINGS: &str = "/etc/firstboot";
/// The seed's proxy; the units of containerd and kubelet name it.
pub const PROXY_ENV: &str = "/etc/firstboot/proxy.env";

/// containerd's configuration.
pub const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
/// How containerd reaches registries.
pub const REGISTRIES: &str = "/etc/containerd/certs.d";
/// What containerd keeps: images, containers, snapshots.
pub const CONTAINERD_ROOT: &str = "/var/lib/containerd";
/// containerd's runtime state.
pub const CONTAINERD_STATE: &str = "/run/containerd";
/// containerd's socket; access to it equals root.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Configurations of pod networks.
pub const CNI_CONF: &str = "/etc/cni/net.d";
/// Programs of pod networks.
pub const CNI_BIN: &str = "/opt/cni/bin";
/// Ours that come before them where pods keep their addresses: links to [`PROGRAM`].
pub const CNI_BEFORE: &str = "/usr/lib/firstboot/cni";
/// Ours for addresses, one of them.
pub const CNI_HOST_LOCAL: &str = "/usr/lib/firstboot/cni/host-local";
/// This program.
pub const PROGRAM: &str = "/usr/bin/firstboot";

/// Units that the image brings.
pub const UNIT_DIR: &str = "/usr/lib/systemd/system";
/// Units that are enabled for a normal boot.
pub const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";
/// What enables the renewal of the seed for the next device.
pub const TIMER_WANTED: &str = "/etc/systemd/system/timers.target.wants/firstboot-control-plane.timer";
/// Linked to /dev/null, it keeps swap off at the next boot.
pub const SWAP_TARGET: &str = "/etc/systemd/system/swap.target";
/// Names of hosts.
pub const HOSTS: &str = "/etc/hosts";
/// The host name (hostname(5)).
pub const HOSTNAME: &str = "/etc/hostname";
/// Name servers (resolv.conf(5)); often a link to systemd-resolved's.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
