// SPDX-License-Identifier: Apache-2.0
//! Seeds of devices that create their cluster.

use super::super::CertificateKey;
use super::super::{Membership, NewCluster, Seed, parse};

/// The beginning of one, of 72 bytes.
const REQUEST: &str =
    "MIHUMHwCAQAwGjEYMBYGA1UEAwwPYWRtaW5pc3RyYXRvcjEwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQAAAAAAAAAAAAA";

fn with(cluster: &str, rest: &str) -> Result<Seed, String> {
    let text = format!("version = 1\n[cluster]\ncreate = true\n{cluster}{rest}");
    parse(text.as_bytes()).map_err(|error| error.to_string())
}

fn created(cluster: &str) -> NewCluster {
    match with(cluster, "").unwrap().membership {
        Membership::Create(cluster) => *cluster,
        Membership::Join(_) => panic!("it joins"),
    }
}

fn nets(nets: &[ipnet::IpNet]) -> String {
    nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn one_line_is_enough() {
    let cluster = created("");
    assert_eq!(
        (nets(&cluster.pod_subnet), nets(&cluster.service_subnet)),
        ("10.244.0.0/16".into(), "10.96.0.0/12".into())
    );
    assert_eq!((cluster.endpoint, cluster.join_seed_hours, cluster.cert_sans.len()), (None, 24, 0));
    let seed = with("", "").unwrap();
    assert!(seed.token().is_none() && seed.servers().is_empty() && seed.join().is_none());
}

#[test]
fn everything_that_can_be_said() {
    let request = format!("-----BEGIN CERTIFICATE REQUEST-----\n{REQUEST}\n-----END CERTIFICATE REQUEST-----");
    let cluster = created(&format!(
        "endpoint = \"api.example.com\"\npod-subnet = [\"10.1.0.0/16\", \"fd01::/48\"]\nservice-subnet = [\"10.2.0.0/16\", \
         \"fd02::/112\"]\ncert-sans = [\"10.0.0.9\", \"*.example.com\"]\nadmin-request = \"\"\"\n{request}\n\"\"\"\n\
         join-seed-hours = 0\n[cluster.kubeadm]\nclusterName = \"shop\"\ntimeouts = {{ controlPlaneComponentHealthCheck = \
         \"10m\" }}\napiServer = {{ extraArgs = [{{ name = \"audit-log-maxage\", value = \"7\" }}] }}\n"
    ));
    assert_eq!(cluster.endpoint.unwrap().to_string(), "api.example.com:6443");
    assert_eq!(nets(&cluster.pod_subnet), "10.1.0.0/16,fd01::/48");
    assert_eq!((cluster.join_seed_hours, cluster.cert_sans.join(" ")), (0, "10.0.0.9 *.example.com".to_owned()));
    assert_eq!(cluster.kubeadm.cluster["apiServer"]["extraArgs"][0]["value"], "7");
    assert_eq!(cluster.kubeadm.init["timeouts"]["controlPlaneComponentHealthCheck"], "10m");
    let request = cluster.admin_request.unwrap();
    assert!(request.lines().all(|line| line.len() <= 64) && request.lines().count() == 4, "{request}");
}

#[test]
fn what_is_wrong_is_named_by_its_line() {
    let join = "token = \"abcdef.0123456789abcdef\"\n";
    for (cluster, rest, want) in [
        (
            join,
            "",
            "seed.toml:4: create and token in [cluster] are both set: a device creates a cluster or joins one, not both",
        ),
        (
            "pod-subnet = \"10.96.0.0/16\"\n",
            "",
            "seed.toml:4: pod-subnet 10.96.0.0/16 and service-subnet 10.96.0.0/12 in [cluster] overlap",
        ),
        (
            "pod-subnet = \"10.244.0.0/28\"\n",
            "",
            "seed.toml:4: pod-subnet 10.244.0.0/28 in [cluster] has to be between /8 and /24: each node gets a /24 of it",
        ),
        (
            "service-subnet = \"172.0.0.0/8\"\n",
            "",
            "seed.toml:4: service-subnet 172.0.0.0/8 in [cluster] has to be between /12 and /28",
        ),
        (
            "pod-subnet = [\"10.1.0.0/16\", \"10.2.0.0/16\"]\n",
            "",
            "seed.toml:4: pod-subnet in [cluster] has more than one network of an address family",
        ),
        (
            "pod-subnet = [\"10.1.0.0/16\", \"fd01::/48\"]\n",
            "",
            "seed.toml:4: pod-subnet and service-subnet in [cluster] are not of the same address families, in the same order",
        ),
        (
            "pod-subnet = \"10.244.1.0\"\n",
            "",
            "seed.toml:4: malformed pod-subnet in [cluster]: expected a network, as in 10.244.0.0/16",
        ),
        (
            "cert-sans = \"a_b\"\n",
            "",
            "seed.toml:4: malformed cert-sans in [cluster]: expected a DNS name or an IP address, as in api.example.com",
        ),
        (
            "join-seed-hours = 169\n",
            "",
            "seed.toml:4: join-seed-hours in [cluster] must be a number from 0 (no join-edge.toml) to 168",
        ),
        ("create2 = true\n", "", "seed.toml:4: unknown key \"create2\" in [cluster]; did you mean create?"),
        (
            "admin-request = \"-----BEGIN EC PRIVATE KEY-----\"\n",
            "",
            "seed.toml:4: malformed admin-request in [cluster]: this is a private key, which must not leave the administrator's machine; give its request",
        ),
        (
            "admin-request = \"-----BEGIN CERTIFICATE-----\"\n",
            "",
            "seed.toml:4: malformed admin-request in [cluster]: expected one certificate request in PEM, as imagebuild cluster new makes it",
        ),
        (
            "",
            "[cluster.kubeadm]\nnetworking = {}\n",
            "seed.toml:5: networking in [cluster.kubeadm] is refused: use pod-subnet and service-subnet in [cluster]",
        ),
        (
            "",
            "[cluster.kubeadm]\napiserver = {}\n",
            "seed.toml:5: unknown field \"apiserver\" in [cluster.kubeadm]; did you mean apiServer?",
        ),
        ("", "[cluster.kubeadm]\netcd = 1\n", "seed.toml:5: etcd in [cluster.kubeadm] must be a table"),
        (
            "",
            "[node]\noffline = true\n",
            "seed.toml:4: offline in [node] and create in [cluster] are both set: a control plane has its own API server",
        ),
        (
            "join-control-plane = true\n",
            "",
            "seed.toml:4: join-control-plane in [cluster] needs endpoint or virtual-ip: one name or address that leads to each of the control planes",
        ),
        (
            "virtual-ip = \"127.0.0.1\"\n",
            "",
            "seed.toml:4: malformed virtual-ip in [cluster]: expected an IP address of the devices' network, as in 192.0.2.10",
        ),
        (
            "virtual-ip = \"10.96.0.10\"\n",
            "",
            "seed.toml:2: virtual-ip 10.96.0.10 in [cluster] is in 10.96.0.0/12, which is a network of pods or Services",
        ),
        (
            "virtual-ip = \"192.0.2.7\"\n",
            "[network]\naddresses = \"192.0.2.7/24\"\n",
            "seed.toml:2: virtual-ip 192.0.2.7 in [cluster] and addresses in [network] are the same: control planes share it",
        ),
        (
            "virtual-ip = \"192.0.3.7\"\n",
            "[network]\naddresses = \"192.0.2.7/24\"\n",
            "seed.toml:2: virtual-ip 192.0.3.7 in [cluster] is in no network of addresses in [network]",
        ),
        (
            "certificate-key = \"x\"\n",
            "",
            "seed.toml:4: create and certificate-key in [cluster] are both set: a device creates a cluster or joins one, not both",
        ),
        (
            "",
            "[network]\naddresses = \"10.244.3.7/24\"\n",
            "seed.toml:4: addresses in [network] and pod-subnet 10.244.0.0/16 in [cluster] overlap",
        ),
    ] {
        assert_eq!(with(cluster, rest).unwrap_err(), want, "{cluster}{rest}");
    }
    let text =
        "version = 1\njoin = \"kubeadm join a:6443 --token abcdef.0123456789abcdef\"\n[cluster]\ncreate = true\n";
    let error = parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "seed.toml:2: join and create in [cluster] are both set: give one of them");
    let text = format!(
        "version = 1\n[cluster]\napiserver = \"a\"\nendpoint = \"b\"\n{join}ca-cert-hashes = \"sha256:{:064}\"\n",
        0
    );
    let error = parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        error,
        "seed.toml:4: endpoint in [cluster] needs create = true; the address of a cluster to join is apiserver"
    );
    let joins = parse(text.replace("endpoint = \"b\"", "create = false").as_bytes()).unwrap();
    assert!(joins.join().is_some() && joins.create().is_none());
}

/// One more control plane: a seed that joins, with the key of the certificates.
#[test]
fn a_control_plane_that_joins() {
    let key = "0123456789abcdef".repeat(4);
    let seed = |cluster: &str, rest: &str| {
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"192.0.2.10\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
             \"sha256:{:064}\"\n{cluster}{rest}",
            0
        );
        parse(text.as_bytes()).map_err(|error| error.to_string())
    };
    let with_key = format!("certificate-key = \"{key}\"\nvirtual-ip = \"192.0.2.10\"\n");
    let role = "[node]\nrole = \"control-plane\"\ntaints = \"a=b:NoExecute\"\n";
    let parsed = seed(&with_key, role).unwrap();
    assert_eq!(parsed.joins_control_plane().unwrap().1.expose(), key);
    assert!(parsed.is_control_plane() && parsed.virtual_ip() == Some("192.0.2.10".parse().unwrap()));
    let taints: Vec<String> = parsed.taints().iter().map(ToString::to_string).collect();
    assert_eq!(taints, ["node-role.kubernetes.io/control-plane:NoSchedule", "a=b:NoExecute"]);
    // Overwriting it must not make the seed another one.
    let erased = seed(&with_key.replace(&key, CertificateKey::ERASED), role).unwrap();
    assert_eq!(erased.digest(), parsed.digest());
    assert!(!format!("{parsed:?}").contains(&key));
    for (cluster, rest, want) in [
        (with_key.as_str(), "", "seed.toml:2: certificate-key in [cluster] needs role = \"control-plane\" in [node]"),
        (
            "",
            role,
            "seed.toml:6: role = \"control-plane\" in [node] needs certificate-key in [cluster], of the control plane that is there",
        ),
        (
            "virtual-ip = \"192.0.2.10\"\n",
            "",
            "seed.toml:6: virtual-ip in [cluster] needs certificate-key or create = true: control planes share it, no other node",
        ),
        (
            "certificate-key = \"0123\"\n",
            role,
            "seed.toml:6: malformed certificate-key in [cluster]: expected 64 digits 0-9a-f, as kubeadm init phase upload-certs prints them",
        ),
        (
            with_key.as_str(),
            "[node]\nrole = \"control-plane\"\noffline = true\n",
            "seed.toml:8: offline in [node] and certificate-key in [cluster] are both set: a control plane has its own API server",
        ),
        (
            with_key.as_str(),
            "[node]\nrole = \"control-plane\"\n[network]\nproxy = \"http://192.0.2.99:3128\"\n",
            "seed.toml:2: certificate-key in [cluster] and proxy in [network] do not go together for API server 192.0.2.10: control planes reach each other directly; add it to no-proxy",
        ),
    ] {
        assert_eq!(seed(cluster, rest).unwrap_err(), want, "{cluster}{rest}");
    }
}
