// SPDX-License-Identifier: Apache-2.0
//! The text of a seed that creates a cluster: for the device, and with comments for the person who changes it.

use crate::seed;
use anyhow::{Context, Result, ensure};
use firstboot::seed::{Membership, SeedRequest};
use std::net::IpAddr;
use toml::Value;

const HEAD: &str = "\
# Seed of the device that creates a cluster and is its control plane. imagebuild cluster new made it.
# It is for one card: each device that gets it creates a cluster of its own.
# It holds no secret. docs/seed.md lists every key, and docs/clusters.md says what happens with it.
version = 1

[cluster]
create = true
";
const ENDPOINT: &str = "
# Name or address at which all machines reach the API server. Without it that is the device's own address.
";
const SHARED: &str = "
# Address that the control planes share, on the link of the devices: the API server stays reachable at it while one of
# them is off. It is the endpoint where none is set.
";
const MORE: &str = "
# Leaves join-control-plane.toml, too: the seed for one more control plane. Each is enough to take the cluster over, for
# two hours.
";
const NETWORKS: &str = "
# Addresses of pods and of Services. They must not be in use where the devices and their users are.
";
const NAMES: &str = "
# More names and addresses for the API server's certificate.
";
const HOURS: &str = "
# How long the token in join-edge.toml, the seed for the next device, is good for. 0: there is no such file.
";
const REQUEST: &str = "
# The request for the administrator's certificate. The private key that belongs to it is in admin.key, and stays there.
";
const NETWORK: &str = "
# The API server's certificate is for the address that the device has when it creates the cluster. So the address has
# to stay the same: reserve it at the DHCP server, or set it here.
# [network]
# addresses = [\"192.0.2.11/24\"]
# gateway = \"192.0.2.254\"
# dns = [\"192.0.2.53\"]
";
const ACCESS: &str = "
# Who may log in by SSH, to read logs.
";

/// What the seed says besides the defaults.
#[derive(Debug, Default)]
pub struct NewSeed<'a> {
    /// `HOST[:PORT]`.
    pub endpoint: Option<&'a str>,
    /// Networks of pods.
    pub pod_subnet: &'a [String],
    /// Networks of Services.
    pub service_subnet: &'a [String],
    /// Names for the API server's certificate.
    pub cert_sans: &'a [String],
    /// Hours of the token in `join-edge.toml`.
    pub join_seed_hours: Option<u32>,
    /// Address that the control planes share.
    pub virtual_ip: Option<IpAddr>,
    /// Whether there is a seed for further control planes.
    pub join_control_plane: bool,
    /// Certificate request, PEM.
    pub request: &'a str,
    /// Name of the cluster.
    pub name: Option<&'a str>,
    /// Name of the node.
    pub node_name: Option<&'a str>,
    /// Lines of `.pub` files.
    pub ssh_keys: &'a [String],
}

impl NewSeed<'_> {
    /// The text, accepted by the device's own parser.
    ///
    /// # Errors
    /// A value that the parser refuses.
    pub fn text(&self) -> Result<String> {
        let text = self.written();
        let context = || "make a seed: the device would refuse it";
        let SeedRequest::Join(read) = seed::parse_request(text.as_bytes()).with_context(context)? else {
            unreachable!("it is no request for a reset")
        };
        let Membership::Create(cluster) = &read.membership else { unreachable!("it joins no cluster") };
        let request = cluster.admin_request.as_deref().with_context(context)?;
        ensure!(
            request.trim() == self.request.replace('\r', "").trim(),
            "make a seed: its certificate request differs"
        );
        Ok(text)
    }

    fn written(&self) -> String {
        let list = |items: &[String]| Value::from(items.to_vec()).to_string();
        let lists = |key: &str, items: &[String], default: &str| match items.is_empty() {
            true => format!("# {key} = {default}\n"),
            false => format!("{key} = {}\n", list(items)),
        };
        let word = |key: &str, value: Option<&str>, default: &str| match value {
            None => format!("# {key} = {default}\n"),
            Some(value) => format!("{key} = {}\n", Value::from(value)),
        };
        let mut text = HEAD.to_owned();
        text += ENDPOINT;
        text += &word("endpoint", self.endpoint, "\"api.example.com:6443\"");
        text += SHARED;
        text += &word("virtual-ip", self.virtual_ip.map(|address| address.to_string()).as_deref(), "\"192.0.2.10\"");
        text += NETWORKS;
        text += &lists("pod-subnet", self.pod_subnet, "[\"10.244.0.0/16\"]");
        text += &lists("service-subnet", self.service_subnet, "[\"10.96.0.0/12\"]");
        text += NAMES;
        text += &lists("cert-sans", self.cert_sans, "[\"api.example.com\", \"192.0.2.10\"]");
        text += HOURS;
        text += &match self.join_seed_hours {
            None => "# join-seed-hours = 24\n".to_owned(),
            Some(hours) => format!("join-seed-hours = {hours}\n"),
        };
        text += MORE;
        text += if self.join_control_plane { "join-control-plane = true\n" } else { "# join-control-plane = true\n" };
        text += REQUEST;
        text += &format!("admin-request = \"\"\"\n{}\n\"\"\"\n", self.request.replace('\r', "").trim());
        if let Some(name) = self.name {
            text += &format!("\n[cluster.kubeadm]\nclusterName = {}\n", Value::from(name));
        }
        text += "\n[node]\n";
        text += &word("name", self.node_name, "\"edge-{serial}\"");
        text += NETWORK;
        if !self.ssh_keys.is_empty() {
            text += ACCESS;
            let lines: Vec<String> =
                self.ssh_keys.iter().map(|key| format!("    {},\n", Value::from(key.as_str()))).collect();
            text += &format!("[access]\nssh-keys = [\n{}]\n", lines.concat());
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::admin_key::NewKey;
    use super::*;
    use firstboot::seed::{NewCluster, Seed, parse};

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn created(text: &str) -> (Seed, NewCluster) {
        let seed = parse(text.as_bytes()).unwrap();
        let cluster = seed.create().unwrap().clone();
        (seed, cluster)
    }

    #[test]
    fn without_anything_else_the_device_has_its_defaults() {
        let request = NewKey::make("admin").unwrap().request;
        let text = NewSeed { request: &request, ..NewSeed::default() }.text().unwrap();
        let (seed, cluster) = created(&text);
        let (bare, mut default) = created("version = 1\n[cluster]\ncreate = true\n");
        assert_eq!(cluster.admin_request.as_deref(), Some(request.replace('\r', "").as_str()));
        default.admin_request.clone_from(&cluster.admin_request);
        assert_eq!((cluster, seed.node), (default, bare.node));
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        // What is a comment is a value of its key, too.
        let all = text.replace("\n# [", "\n[");
        let all = all.lines().map(|line| match line.split_once(" = ") {
            Some((key, _)) if key.starts_with("# ") => line.trim_start_matches("# ").to_owned(),
            _ => line.to_owned(),
        });
        created(&all.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn each_flag_is_a_key() {
        let request = NewKey::make("admin").unwrap().request;
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA \"admin\"";
        let text = NewSeed {
            endpoint: Some("api.example.com"),
            pod_subnet: &strings(&["10.1.0.0/16", "fd01::/48"]),
            service_subnet: &strings(&["10.2.0.0/16", "fd02::/112"]),
            cert_sans: &strings(&["10.0.0.9"]),
            join_seed_hours: Some(0),
            virtual_ip: Some(IpAddr::from([192, 0, 2, 10])),
            join_control_plane: true,
            request: &request,
            name: Some("shop"),
            node_name: Some("shop-1"),
            ssh_keys: &strings(&[key]),
        }
        .text()
        .unwrap();
        let (seed, cluster) = created(&text);
        assert_eq!(cluster.endpoint.unwrap().to_string(), "api.example.com:6443");
        assert_eq!((cluster.virtual_ip, cluster.join_control_plane), (Some(IpAddr::from([192, 0, 2, 10])), true));
        assert_eq!((cluster.pod_subnet.len(), cluster.service_subnet.len(), cluster.join_seed_hours), (2, 2, 0));
        assert_eq!(
            (cluster.cert_sans, &cluster.kubeadm.cluster["clusterName"]),
            (strings(&["10.0.0.9"]), &"shop".into())
        );
        assert_eq!(seed.node.name.unwrap().as_str(), "shop-1");
        assert_eq!(seed.access.keys[0].to_string(), key);
    }

    #[test]
    fn a_value_that_the_device_would_refuse_is_refused_here() {
        let request = NewKey::make("admin").unwrap().request;
        let error = |seed: NewSeed<'_>| format!("{:#}", seed.text().unwrap_err());
        let wrong = strings(&["a_b"]);
        let seed = |cert_sans| NewSeed { request: &request, cert_sans, ..NewSeed::default() };
        assert_eq!(
            error(seed(&wrong)),
            "make a seed: the device would refuse it: FB107: seed.toml:21: malformed cert-sans in [cluster]: expected a DNS \
             name or an IP address, as in api.example.com"
        );
        let error = error(NewSeed { pod_subnet: &strings(&["10.96.0.0/16"]), ..seed(&[]) });
        assert!(
            error.contains("pod-subnet 10.96.0.0/16 and service-subnet 10.96.0.0/12 in [cluster] overlap"),
            "{error}"
        );
    }
}
