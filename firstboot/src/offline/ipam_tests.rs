// SPDX-License-Identifier: Apache-2.0
//! That a pod gets the addresses that it had, with a program in the place of host-local that hands out what is asked for.
#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::PermissionsExt;

/// Hands out the addresses that it is asked for, unless a file `taken` names the first; without such the next in line, by
/// a file `next`. As host-local, it answers a failure on standard output.
const PROGRAM: &str = r#"#!/bin/sh
cd "${0%/*}"
config=$(cat)
case $config in
  *'"ips":["'*) ip=${config#*'"ips":["'} ip=${ip%%'"'*} ;;
  *) ip=10.0.0.$(cat next) ;;
esac
if [ "$ip" = "$(cat taken 2>/dev/null)" ]; then echo '{"code":999}'; exit 1; fi
echo "$config" >>asked
echo "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"$ip/24\"},{\"address\":\"fd00::5/64\"}]}"
"#;
const CONFIG: &[u8] = br#"{"cniVersion":"1.0.0","name":"firstboot","ipam":{"type":"host-local"}}"#;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HOST_LOCAL);
        std::fs::write(&path, PROGRAM).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Bench { dir }
    }

    fn set(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("addresses")
    }

    fn add(&self, interface: Option<&str>) -> (u8, String) {
        let (code, answer) = add(&self.dir.path().join(HOST_LOCAL), CONFIG, interface, &self.kept()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        (code, answer["ips"][0]["address"].as_str().unwrap_or("none").to_owned())
    }
}

#[test]
fn a_pod_gets_the_addresses_that_it_had() {
    let bench = Bench::new();
    bench.set("next", "7");
    assert_eq!(bench.add(Some("a-1")), (0, "10.0.0.7/24".to_owned()));
    assert_eq!(had(&bench.kept().join("a-1")), ["10.0.0.7", "fd00::5"].map(|a| a.parse::<IpAddr>().unwrap()));
    // After a reboot another one is next in line.
    bench.set("next", "8");
    assert_eq!(bench.add(Some("a-1")), (0, "10.0.0.7/24".to_owned()));
    let asked = std::fs::read_to_string(bench.dir.path().join("asked")).unwrap();
    assert!(asked.lines().last().unwrap().contains(r#""args":{"cni":{"ips":["10.0.0.7","fd00::5"]}}"#), "{asked}");
    // Another pod has it meanwhile: any other will do, and is kept from now on.
    bench.set("taken", "10.0.0.7");
    assert_eq!(bench.add(Some("a-1")), (0, "10.0.0.8/24".to_owned()));
    bench.set("next", "9");
    assert_eq!(bench.add(Some("a-1")), (0, "10.0.0.8/24".to_owned()));
    // No address at all: host-local's own answer.
    bench.set("taken", "10.0.0.9");
    assert_eq!(bench.add(Some("b-1")), (1, "none".to_owned()));
    assert!(!bench.kept().join("b-1").exists());
    // Without a UID nothing is kept.
    bench.set("taken", "");
    assert_eq!(bench.add(None), (0, "10.0.0.9/24".to_owned()));
    assert_eq!(std::fs::read_dir(bench.kept()).unwrap().count(), 1);
}

#[test]
fn the_next_of_this_name_on_the_path_hands_out_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let own = at("firstboot");
    std::fs::write(&own, "x").unwrap();
    for name in ["image", "network", "bundle"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    symlink("../firstboot", at("image").join(HOST_LOCAL)).unwrap();
    let path = ["image", "network", "bundle"].map(|name| at(name).display().to_string()).join(":");
    assert_eq!(delegate(&path, &own), None, "it never starts itself");
    std::fs::write(at("bundle").join(HOST_LOCAL), "x").unwrap();
    assert_eq!(delegate(&path, &own), Some(at("bundle").join(HOST_LOCAL)));
    // One that a pod network has installed comes before the bundle's.
    std::fs::write(at("network").join(HOST_LOCAL), "x").unwrap();
    assert_eq!(delegate(&path, &own), Some(at("network").join(HOST_LOCAL)));
}

#[test]
fn the_oldest_pods_are_forgotten() {
    let bench = Bench::new();
    bench.set("next", "7");
    std::fs::create_dir(bench.kept()).unwrap();
    for n in 0..MOST {
        symlink("10.0.0.1", bench.kept().join(format!("old-{n}"))).unwrap();
    }
    bench.add(Some("new"));
    assert_eq!(std::fs::read_dir(bench.kept()).unwrap().count(), MOST);
    assert!(std::fs::read_link(bench.kept().join("new")).is_ok());
}

/// One that lives long gets its addresses again and again, and is the newest then.
#[test]
fn a_pod_that_comes_back_is_not_forgotten() {
    let bench = Bench::new();
    bench.set("next", "7");
    bench.add(Some("a_net_eth0"));
    let link = bench.kept().join("a_net_eth0");
    let first = link.symlink_metadata().unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(bench.add(Some("a_net_eth0")), (0, "10.0.0.7/24".to_owned()));
    assert!(link.symlink_metadata().unwrap().modified().unwrap() > first);
}

#[test]
fn an_address_is_one_pods() {
    let bench = Bench::new();
    std::fs::create_dir(bench.kept()).unwrap();
    let others = ["a_net_eth0", "b_net_eth0", "a_net_eth1", "a_other_eth0", "a-1"];
    for (name, addresses) in others.iter().zip(["10.0.0.7,fd00::9", "10.0.0.8", "10.0.0.7", "10.0.0.7", "10.0.0.7"]) {
        symlink(addresses, bench.kept().join(name)).unwrap();
    }
    bench.set("next", "7");
    bench.add(Some("new_net_eth0"));
    let left = others.map(|name| std::fs::read_link(bench.kept().join(name)).is_ok());
    assert_eq!(left, [false, true, true, true, true], "another network's, and one of no network, stay");
}

#[test]
fn what_an_interface_is_remembered_by() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=5f1c-9";
    assert_eq!(interface(args, CONFIG, "eth0").unwrap(), "5f1c-9_firstboot_eth0");
    for none in ["", "K8S_POD_NAME=b", "K8S_POD_UID=", "K8S_POD_UID=../x", "K8S_POD_UID=.a"] {
        assert_eq!(interface(none, CONFIG, "eth0"), None, "{none}");
    }
    for config in ["{", "{}", r#"{"name":"a/b"}"#] {
        assert_eq!(interface(args, config.as_bytes(), "eth0"), None, "{config}");
    }
    assert_eq!(interface(args, CONFIG, ""), None);
    assert!(is_called(Path::new(crate::paths::CNI_HOST_LOCAL)) && !is_called(Path::new("/usr/bin/firstboot")));
    assert_eq!(wanting(br#"{"args":{"cni":{}}}"#, &["10.0.0.1".parse().unwrap()]), None, "it has addresses of its own");
    assert_eq!(wanting(b"{", &["10.0.0.1".parse().unwrap()]), None);
    assert_eq!(had(Path::new("/nowhere")), Vec::<IpAddr>::new());
}
