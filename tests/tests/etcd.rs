// SPDX-License-Identifier: Apache-2.0
//! How a device leaves etcd, by three real members with TLS on addresses of loopback, in a network of their own. Boots
//! nothing, needs no root where user namespaces exist.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use firstboot::control_plane::etcd::{leave, other_voters};
use firstboot::fault::Code;
use firstboot::host::Host;
use firstboot::host::fake::Fake;
use imagebuild::{cmd, component};
use qemu::link::namespace::Namespace;
use qemu::process::Process;
use qemu::wait;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Set where this program runs in the network of its own.
const INSIDE: &str = "FIRSTBOOT_TEST_IN_NAMESPACE";
const PKI: &str = "etc/kubernetes/pki/etcd";
/// Where other API servers are.
const OTHERS: [u8; 2] = [2, 3];
const LIMIT: Duration = Duration::from_secs(60);

fn address(number: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, number])
}

/// A CA, and a certificate for all three as server and client, as kubeadm names the files.
fn certificates(root: &Path) {
    let dir = root.join(PKI);
    std::fs::create_dir_all(&dir).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.crt"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new((1..=3).map(|n| address(n).to_string()).collect::<Vec<_>>()).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    for name in ["peer", "server"] {
        std::fs::write(dir.join(format!("{name}.crt")), leaf.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    // One that a power cut has torn: the other one is taken.
    std::fs::write(dir.join("healthcheck-client.crt"), &leaf.pem()[..40]).unwrap();
    std::fs::write(dir.join("healthcheck-client.key"), key.serialize_pem()).unwrap();
}

/// Starts a member, as kubeadm's manifest does.
fn member(root: &Path, number: u8) -> Process {
    let url = |number: u8, port: u16| format!("https://{}:{port}", address(number));
    let cluster: Vec<String> = (1..=3).map(|n| format!("card-{n}={}", url(n, 2380))).collect();
    let file = |name: &str| root.join(PKI).join(name).display().to_string();
    let mut words = vec![
        format!("--name=card-{number}"),
        format!("--data-dir={}", root.join(format!("member-{number}")).display()),
        format!("--listen-client-urls={}", url(number, 2379)),
        format!("--advertise-client-urls={}", url(number, 2379)),
        format!("--listen-peer-urls={}", url(number, 2380)),
        format!("--initial-advertise-peer-urls={}", url(number, 2380)),
        format!("--initial-cluster={}", cluster.join(",")),
        "--unsafe-no-fsync=true".to_owned(),
    ];
    for (prefix, pair) in [("", "server"), ("peer-", "peer")] {
        words.extend([
            format!("--{prefix}cert-file={}", file(&format!("{pair}.crt"))),
            format!("--{prefix}key-file={}", file(&format!("{pair}.key"))),
            format!("--{prefix}trusted-ca-file={}", file("ca.crt")),
            format!("--{prefix}client-cert-auth=true"),
        ]);
    }
    let program = component::ensure("etcd", e2e::own_arch(), None).unwrap();
    Process::start("etcd", &program, &words, &root.join(format!("member-{number}.log"))).unwrap()
}

/// The device with the first member.
fn device(root: &Path) -> Host {
    let shown = r#"[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","prefixlen":8}]}]"#;
    let fake = Fake::new().0.answering(|argv| (argv[0] == "ip").then(|| Ok(shown.to_owned())));
    Host::open(root, Box::new(fake)).unwrap()
}

fn leaves() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    certificates(root);
    let (host, others) = (device(root), OTHERS.map(address).into());
    let refused = |found: firstboot::fault::Fault| (found.code, found.to_string());
    let (code, text) = refused(leave(&host, &others).unwrap_err());
    assert!(code == Code::Cluster && text.starts_with("ask etcd 127.0.0."), "{code:?} {text}");
    let mut members: Vec<Option<Process>> = (1..=3).map(|number| Some(member(root, number))).collect();
    let log = |number: u8| qemu::process::tail(&root.join(format!("member-{number}.log")), 5);
    let voters = |wanted: usize| {
        let found = wait::every(Duration::from_millis(200), "etcd to name its members", LIMIT, || {
            Ok(other_voters(&host, &others).ok().filter(|found| *found == wanted))
        });
        found.unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", log(1), log(2)));
    };
    voters(2);
    // Without a quorum none lets it go, and none says who the members are.
    (members[1], members[2]) = (None, None);
    let (code, text) = refused(leave(&host, &others).unwrap_err());
    assert!(code == Code::Cluster && text.starts_with("ask etcd 127.0.0."), "{code:?} {text}");
    assert_eq!(other_voters(&host, &others).unwrap_err().code, Code::Cluster);
    // Of two that would be left one is off: without this one they would have no quorum.
    members[1] = Some(member(root, 2));
    voters(2);
    let (code, text) = refused(leave(&host, &others).unwrap_err());
    assert!(code == Code::Cluster && text.contains(": it answers 503: etcdserver: "), "{code:?} {text}");
    members[2] = Some(member(root, 3));
    wait::every(Duration::from_millis(200), "etcd to let it go", LIMIT, || Ok(leave(&host, &others).ok())).unwrap();
    // Its own member ends by that, and the others say who is left.
    wait::until("the member that has left to end", LIMIT, || members[0].as_ref().unwrap().ended()).unwrap();
    voters(2);
    // A second time there is nothing to do.
    leave(&host, &others).unwrap();
    voters(2);
}

#[test]
fn a_device_leaves_etcd_and_the_others_go_on() {
    if std::env::var_os(INSIDE).is_some() {
        return leaves();
    }
    if !e2e::can_network() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let namespace = Namespace::new(dir.path()).unwrap();
    let mut inside = namespace.command(&std::env::current_exe().unwrap());
    inside
        .args(["--exact", "a_device_leaves_etcd_and_the_others_go_on", "--nocapture"])
        .env(INSIDE, "yes")
        .env("RUST_BACKTRACE", "0");
    let said = String::from_utf8(cmd::output(&mut inside).unwrap()).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}
