// SPDX-License-Identifier: Apache-2.0
//! Fields of kubeadm's ClusterConfiguration and InitConfiguration, kubeadm.k8s.io/v1beta4, with their types
//! (`apis/kubeadm/v1beta4/types.go` of Kubernetes 1.36). No name is in both.

use super::kubelet::Kind;
use super::suggest;

/// Where a field belongs.
pub(super) enum Place {
    /// Into ClusterConfiguration.
    Cluster(Kind),
    /// Into InitConfiguration.
    Init(Kind),
    /// It is not the seed's to set, for this reason.
    Owned(&'static str),
}

const CLUSTER: [(&str, Kind); 10] = [
    ("etcd", Kind::Table),
    ("apiServer", Kind::Table),
    ("controllerManager", Kind::Table),
    ("scheduler", Kind::Table),
    ("dns", Kind::Table),
    ("proxy", Kind::Table),
    ("featureGates", Kind::BoolMap),
    ("clusterName", Kind::String),
    ("encryptionAlgorithm", Kind::String),
    ("certificateValidityPeriod", Kind::Duration),
];
const INIT: [(&str, Kind); 2] = [("timeouts", Kind::Table), ("skipPhases", Kind::Strings)];
const OWNED: [(&str, &str); 14] = [
    ("apiVersion", "firstboot writes it"),
    ("kind", "firstboot writes it"),
    ("kubernetesVersion", "it is the one of the image"),
    ("controlPlaneEndpoint", "use endpoint in [cluster]"),
    ("networking", "use pod-subnet and service-subnet in [cluster]"),
    ("certificatesDir", "firstboot finds the certificates at /etc/kubernetes/pki"),
    ("imageRepository", "the image brings the container images"),
    ("caCertificateValidityPeriod", "the CA is not renewed by itself; it lives for ten years"),
    ("bootstrapTokens", "firstboot makes one for join-edge.toml"),
    ("nodeRegistration", "use [node]"),
    ("localAPIEndpoint", "it is this device's own address, of [network]"),
    ("certificateKey", "firstboot makes one where it is needed"),
    ("patches", "use the fields of apiServer, controllerManager, scheduler and etcd"),
    ("dryRun", "a device that does nothing never becomes a node"),
];

/// Where a field belongs; none for what is no field.
pub(super) fn find(name: &str) -> Option<Place> {
    let kind = |fields: &[(&str, Kind)]| fields.iter().find(|(field, _)| *field == name).map(|(_, kind)| *kind);
    let owned = || OWNED.iter().find(|(field, _)| *field == name).map(|(_, why)| Place::Owned(why));
    kind(&CLUSTER).map(Place::Cluster).or_else(|| kind(&INIT).map(Place::Init)).or_else(owned)
}

/// The field that a name with a typing error means.
pub(super) fn closest(name: &str) -> Option<&'static str> {
    suggest::closest(name, CLUSTER.iter().chain(&INIT).map(|(field, _)| *field))
}
