// SPDX-License-Identifier: Apache-2.0
//! This device as the control plane of a cluster that it creates: kubeadm's configuration, the pod network that is
//! deployed, and the files that are left on the boot partition for other devices and for the administrator.
//!
//! The cluster itself is made by the bundle's own kubeadm, unmodified (`kubeadm init`), so it is a cluster that kubeadm
//! knows and upgrades. Nothing here runs before the phase `create`.

pub mod address;
pub mod card;
pub mod etcd;
pub mod flannel;
pub mod in_memory;
pub mod kubeadm;
pub mod others;
pub mod patches;
pub mod virtual_ip;

use crate::bundle::{Image, Manifest};
use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::journal::facts::Fact;

/// kubeadm's kubeconfig of the administrator. It stays where kubeadm puts it, readable for root alone.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// The data of etcd.
pub const ETCD: &str = "/var/lib/etcd";
/// Components of the bundle without which there is no control plane.
pub(crate) const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The bundle's image of a component.
///
/// # Errors
/// The image's: this bundle is not one for control planes.
pub fn image<'b>(bundle: &'b Manifest, component: &str, target: &str) -> Result<&'b Image, Fault> {
    bundle.images.iter().find(|image| image.component == component).ok_or_else(|| {
        let text = format!(
            "create a cluster: this image has no container image of {component}; build one with imagebuild build --target \
             {target} --control-plane"
        );
        Fault::new(Code::ControlPlaneImages, text)
    })
}

/// Whether this device has created its cluster.
pub fn is_created(host: &Host) -> bool {
    host.journal().is_set(Fact::ClusterCreated)
}

/// Whether this device runs an API server of its cluster: it created the cluster, or has joined it as one more control
/// plane.
pub fn is_control_plane(host: &Host) -> bool {
    is_created(host) || host.journal().is_set(Fact::ControlPlaneJoined)
}

/// Whether etcd may count on this device: it is a control plane, or was about to become one.
pub fn may_be_member(host: &Host) -> bool {
    is_control_plane(host) || host.journal().is_set(Fact::EtcdJoining)
}

/// Whether the bundle can be a control plane.
///
/// # Errors
/// As [`image`].
pub fn fits(bundle: &Manifest, target: &str) -> Result<(), Fault> {
    COMPONENTS.iter().try_for_each(|component| image(bundle, component, target).map(drop))
}
