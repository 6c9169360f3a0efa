// SPDX-License-Identifier: Apache-2.0
//! The address that three control planes share, natively: etcd, kube-apiserver and keepalived of each run in a network and
//! a root directory of its own, by the configuration that a device writes and the manifests that its kubeadm makes. What
//! kubelet does, starting again what has ended, the test does. Boots nothing, needs no root where user namespaces exist.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use firstboot::control_plane::kubeadm::{Device, configuration};
use firstboot::control_plane::{patches, virtual_ip};
use firstboot::seed;
use imagebuild::{cache, component, device, setup};
use qemu::link::namespace::Namespace;
use qemu::link::vrrp::{Held, longest_shared};
use qemu::process::{Process, tail};
use qemu::run_dir::RunDir;
use qemu::wait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const VERSION: &str = "1.36.3";
/// Deadline for the API to answer again: it ends what hangs.
const ANSWERS: Duration = Duration::from_secs(180);
/// How long the address may be on two devices.
const TWICE: Duration = Duration::from_secs(3);
/// Files that `kubeadm join --control-plane` downloads: each control plane makes its own certificates by them.
const SHARED_KEYS: [&str; 8] =
    ["ca.crt", "ca.key", "sa.key", "sa.pub", "front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key"];
/// Becomes a program in a root directory that has the libraries of the images' keepalived: DIRECTORY LIBRARIES CACHE PROGRAM
/// WORDS. keepalived reads its own program, so no loader can start it in another way.
const ENTER: &str = r#"
root=$1 usr=$2 cache=$3; shift 3
basename "${root%/root}" >/proc/sys/kernel/hostname
for directory in lib lib64; do
  [ ! -d "$usr/$directory" ] || { mkdir -p "$root/$directory"; mount --rbind "$usr/$directory" "$root/$directory"; }
done
mkdir -p "$root/etc/keepalived"
mount --rbind "$usr/../etc/keepalived" "$root/etc/keepalived"
for same in /proc /dev "$cache"; do mkdir -p "$root$same"; mount --rbind "$same" "$root$same"; done
exec chroot "$root" "$@"
"#;
/// Reads an object at an address ten times a second, each time by a new connection: `UNIX-SECONDS STATUS`.
const ASK: &str = r#"
import http.client, ssl, sys, time
host, ca, pair = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(pair)
while True:
    begun = time.time()
    try:
        connection = http.client.HTTPSConnection(host, 6443, timeout=1, context=context)
        connection.request("GET", "/api/v1/namespaces/default")
        said = str(connection.getresponse().status)
        connection.close()
    except Exception as error:
        said = type(error).__name__
    print(f"{begun:.3f} {said}", flush=True)
    time.sleep(max(0, begun + 0.1 - time.time()))
"#;

/// A family of addresses.
#[derive(Clone, Copy)]
struct Family {
    net: &'static str,
    bits: u8,
    seed: &'static str,
}

const V4: Family = Family { net: "192.0.2.", bits: 24, seed: "" };
const V6: Family =
    Family { net: "fd00:2::", bits: 64, seed: "pod-subnet = \"fd01::/48\"\nservice-subnet = \"fd02::/112\"\n" };

impl Family {
    fn address(self, last: u8) -> IpAddr {
        format!("{}{last}", self.net).parse().unwrap()
    }

    /// The one that is shared.
    fn shared(self) -> IpAddr {
        self.address(10)
    }

    /// `HOST` of a URL.
    fn host(self, last: u8) -> String {
        let address = self.address(last);
        if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
    }
}

/// One control plane.
struct Plane {
    number: u8,
    dir: PathBuf,
    network: Namespace,
    etcd: Option<Process>,
    api_server: Option<Process>,
    keepalived: Option<Process>,
    /// Says when an address comes and goes.
    _monitor: Process,
}

impl Plane {
    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The words of `unshare` that become a program in its root directory.
    fn words(&self, program: &str, args: &[String]) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        let (root, usr, cache) = (shown(&self.root()), shown(&keepalived_usr()), shown(&cache::dir().unwrap()));
        let enter = ["--mount", "--uts", "--", "sh", "-e", "-c", ENTER, "sh", &root, &usr, &cache, program];
        enter.iter().map(|word| (*word).to_owned()).chain(args.iter().cloned()).collect()
    }

    fn start(&self, program: &Path, args: &[String]) -> Process {
        let name = program.file_name().unwrap().to_str().unwrap();
        let words = self.words(program.to_str().unwrap(), args);
        self.network.start(name, Path::new("unshare"), &words, &self.dir.join(format!("{name}.log"))).unwrap()
    }

    /// Runs a phase of `kubeadm init`.
    fn kubeadm(&self, phase: &str) {
        let mut args: Vec<String> = ["init", "phase"]
            .iter()
            .chain(&phase.split(' ').collect::<Vec<_>>())
            .map(|word| (*word).to_owned())
            .collect();
        args.extend(["--config", "/etc/firstboot/kubeadm.yaml"].map(str::to_owned));
        let words = self.words(kubernetes("kubeadm").to_str().unwrap(), &args);
        self.network.run("unshare", &words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    }

    /// The command of a static pod that kubeadm has made.
    fn command(&self, component: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.root().join(format!("etc/kubernetes/manifests/{component}.yaml")));
        let pod: Value = serde_yaml_ng::from_str(&text.unwrap()).unwrap();
        let words = pod["spec"]["containers"][0]["command"].as_array().unwrap().clone();
        words[1..].iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    fn start_api_server(&mut self) {
        self.api_server = Some(self.start(&kubernetes("kube-apiserver"), &self.command("kube-apiserver")));
    }

    fn holds(&self, shared: IpAddr) -> bool {
        let shown = self.network.run("ip", &["-oneline", "address", "show", "dev", "eth0"]).unwrap();
        String::from_utf8(shown).unwrap().contains(&format!(" {shared}/"))
    }

    /// When it had the address, in seconds of the day.
    fn held(&self, shared: IpAddr) -> Vec<Held> {
        let mut all: Vec<Held> = Vec::new();
        let end = Duration::MAX;
        for line in tail(&self.dir.join("monitor.log"), usize::MAX).lines() {
            // `[2026-12-01T04:10:11.123456] Deleted 2: eth0    inet 192.0.2.10/32 scope global eth0 …`
            let Some((stamp, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) else { continue };
            if !rest.contains(&format!(" {shared}/")) {
                continue;
            }
            let at = seconds_of_the_day(stamp);
            match (rest.trim_start().starts_with("Deleted"), all.last_mut()) {
                (true, Some(last)) if last.to == end => last.to = at,
                // Announced again: its lifetime, for example.
                (false, Some(last)) if last.to == end => {}
                (true, _) => {}
                (false, _) => all.push(Held { place: self.number.into(), from: at, to: end }),
            }
        }
        all
    }
}

/// Of `2026-12-01T04:10:11.123456`.
fn seconds_of_the_day(stamp: &str) -> Duration {
    let parts: Vec<f64> = stamp.split('T').nth(1).unwrap().split(':').map(|part| part.parse().unwrap()).collect();
    Duration::from_secs_f64(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

/// Where the packages of keepalived are unpacked.
fn keepalived_usr() -> PathBuf {
    setup::keepalived().unwrap().with_file_name("usr")
}

fn kubernetes(name: &str) -> PathBuf {
    let version = if name == "etcd" { None } else { Some(format!("v{VERSION}")) };
    component::ensure(name, e2e::own_arch(), version.as_deref()).unwrap()
}

/// Three control planes on one link, and a client of theirs.
struct Shop {
    family: Family,
    client: Process,
    planes: Vec<Plane>,
    link: Namespace,
    dir: RunDir,
}

impl Shop {
    /// Three that are on and answer.
    fn new(family: Family) -> Self {
        let dir = RunDir::new("virtual-ip").unwrap();
        let link = if is_root() { Namespace::of_root(dir.path()) } else { Namespace::new(dir.path()) }.unwrap();
        link.ip("link add br0 type bridge").unwrap();
        link.ip("link set br0 up").unwrap();
        let planes: Vec<Plane> = (1..=3).map(|number| plane(&dir, &link, family, number)).collect();
        // Not before the first plane has set the rule for new interfaces.
        link.ip(&format!("address add {}/{} dev br0", family.address(200), family.bits)).unwrap();
        planes[0].kubeadm("certs all");
        planes[0].kubeadm("kubeconfig super-admin");
        for plane in &planes[1..] {
            let pki = |plane: &Plane| plane.root().join("etc/kubernetes/pki");
            std::fs::create_dir_all(pki(plane).join("etcd")).unwrap();
            for name in SHARED_KEYS {
                std::fs::copy(pki(&planes[0]).join(name), pki(plane).join(name)).unwrap();
            }
            plane.kubeadm("certs all");
        }
        for plane in &planes {
            plane.kubeadm("etcd local");
            plane.kubeadm("control-plane apiserver");
        }
        let client = client(&dir, &link, family, &planes[0]);
        let mut shop = Shop { family, client, planes, link, dir };
        (1..=3).for_each(|number| shop.switch_on(number));
        shop.answers("three control planes that were just created", Instant::now());
        shop
    }

    fn plane(&mut self, number: u8) -> &mut Plane {
        &mut self.planes[usize::from(number) - 1]
    }

    fn switch_on(&mut self, number: u8) {
        let members: Vec<String> =
            (1..=3).map(|n| format!("{}=https://{}:2380", name(n), self.family.host(n))).collect();
        self.link.ip(&format!("link set wire{number} up")).unwrap();
        let plane = self.plane(number);
        let own = "--initial-cluster=";
        let is_own = |word: &String| word.starts_with(own);
        let mut etcd = plane.command("etcd");
        assert!(etcd.iter().any(is_own), "{etcd:?}");
        etcd.retain(|word| !is_own(word));
        // What `kubeadm join` gives the last one: all members.
        etcd.push(format!("{own}{}", members.join(",")));
        plane.etcd = Some(plane.start(&kubernetes("etcd"), &etcd));
        plane.start_api_server();
        let words =
            ["--dont-fork", "--log-console", "--no-syslog", "--vrrp", "--use-file=/etc/firstboot/keepalived.conf"];
        plane.keepalived = Some(plane.start(&keepalived_usr().join("sbin/keepalived"), &words.map(str::to_owned)));
    }

    /// The power goes: first of all it says nothing more, not even that its connections end.
    fn power_cut(&mut self, number: u8) {
        self.link.ip(&format!("link set wire{number} down")).unwrap();
        let shared = self.family.shared();
        let plane = self.plane(number);
        (plane.keepalived, plane.api_server, plane.etcd) = (None, None, None);
        // It is in memory on a device.
        std::fs::remove_dir_all(plane.root().join("run")).unwrap();
        std::fs::create_dir_all(plane.root().join("run/keepalived")).unwrap();
        if plane.holds(shared) {
            plane.network.ip(&format!("address del {shared}/{} dev eth0", shared_bits(shared))).unwrap();
        }
    }

    fn holders(&self) -> Vec<u8> {
        self.planes.iter().filter(|plane| plane.holds(self.family.shared())).map(|plane| plane.number).collect()
    }

    /// Waits until the API answers at the shared address to what was asked after `since`; how long after. What has ended is
    /// started again, as kubelet would.
    fn answers(&mut self, what: &str, since: Instant) -> Duration {
        let begun = unix_seconds() - since.elapsed().as_secs_f64();
        let found = wait::every(Duration::from_millis(100), what, ANSWERS, || {
            self.client.check()?;
            for plane in self.planes.iter_mut().filter(|plane| plane.etcd.is_some()) {
                plane.keepalived.as_ref().unwrap().check()?;
                if plane.api_server.as_ref().map(Process::ended).transpose()?.flatten().is_some() {
                    plane.start_api_server();
                }
            }
            Ok(self.said().into_iter().find(|(at, said)| *at >= begun && said == "200").map(|(at, _)| at))
        });
        let at = found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()));
        let after = Duration::from_secs_f64(at - begun);
        println!("{what}: the API answers at the shared address after {:.1} s", after.as_secs_f64());
        after
    }

    /// What the client heard, with the time of its question.
    fn said(&self) -> Vec<(f64, String)> {
        let text = tail(&self.dir.path().join("client.log"), usize::MAX);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.map(|(at, said)| (at.parse().unwrap(), said.to_owned())).collect()
    }

    /// The longest time for which two had the address.
    fn twice(&self) -> Duration {
        let all: Vec<Held> = self.planes.iter().flat_map(|plane| plane.held(self.family.shared())).collect();
        assert!(!all.is_empty(), "no device had the address");
        longest_shared(&all)
    }

    fn logs(&self) -> String {
        let names = ["etcd", "kube-apiserver", "keepalived", "monitor"];
        let of = |plane: &Plane| {
            names.map(|name| {
                format!("--- {name} {}\n{}\n", plane.number, tail(&plane.dir.join(format!("{name}.log")), 12))
            })
        };
        self.planes.iter().flat_map(of).collect()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn name(number: u8) -> String {
    format!("card-{number}")
}

fn shared_bits(shared: IpAddr) -> u8 {
    if shared.is_ipv4() { 32 } else { 128 }
}

fn unix_seconds() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A control plane that is switched off, with what a device writes for kubeadm and keepalived.
fn plane(dir: &RunDir, link: &Namespace, family: Family, number: u8) -> Plane {
    let dir = dir.path().join(name(number));
    std::fs::create_dir_all(dir.join("root/usr/bin")).unwrap();
    let network = link.sibling(&dir).unwrap();
    network.sysctl("net/ipv6/conf/default/accept_dad", "0").unwrap();
    let pid = network.pid();
    link.sysctl("net/ipv6/conf/default/accept_dad", "0").unwrap();
    link.ip(&format!("link add wire{number} type veth peer name eth0 netns {pid}")).unwrap();
    link.ip(&format!("link set wire{number} master br0")).unwrap();
    network.ip(&format!("address add {}/{} dev eth0", family.address(number), family.bits)).unwrap();
    network.ip("link set eth0 up").unwrap();
    let words = ["-ts", "-oneline", "monitor", "address"].map(str::to_owned);
    let monitor = network.start("ip monitor", Path::new("ip"), &words, &dir.join("monitor.log")).unwrap();
    let plane = Plane { number, dir, network, etcd: None, api_server: None, keepalived: None, _monitor: monitor };
    let text = format!(
        "version = 1\n[cluster]\ncreate = true\njoin-control-plane = true\nvirtual-ip = \"{}\"\n{}",
        family.shared(),
        family.seed
    );
    let seed = seed::parse(text.as_bytes()).unwrap();
    let described = Device {
        node: &name(number),
        address: family.address(number),
        node_ips: Vec::new(),
        version: VERSION,
        labels: BTreeMap::new(),
        cri_socket: "unix:///run/containerd/containerd.sock",
    };
    let put = |path: &str, text: &str| {
        let path = plane.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("etc/firstboot/kubeadm.yaml", &configuration(seed.create().unwrap(), &seed.node, &described));
    patches::files().for_each(|(name, text)| put(&format!("{}/{name}", &patches::DIRECTORY[1..]), &text));
    put("etc/firstboot/keepalived.conf", &virtual_ip::configuration(family.shared(), described.address, "eth0"));
    std::fs::create_dir_all(plane.root().join("run/keepalived")).unwrap();
    // keepalived looks up who runs its script.
    put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    put("etc/group", "root:x:0:\n");
    std::fs::copy(device::ensure(e2e::own_arch()).unwrap(), plane.root().join("usr/bin/firstboot")).unwrap();
    plane
}

/// Asks the API server at the shared address, as an administrator.
fn client(dir: &RunDir, link: &Namespace, family: Family, plane: &Plane) -> Process {
    let text = std::fs::read_to_string(plane.root().join("etc/kubernetes/super-admin.conf")).unwrap();
    let config: Value = serde_yaml_ng::from_str(&text).unwrap();
    let data = |at: &Value| {
        use base64::Engine;
        let bytes = base64::engine::general_purpose::STANDARD.decode(at.as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let user = &config["users"][0]["user"];
    let (ca, pair) = (dir.path().join("ca.pem"), dir.path().join("pair.pem"));
    std::fs::write(&ca, data(&config["clusters"][0]["cluster"]["certificate-authority-data"])).unwrap();
    std::fs::write(&pair, data(&user["client-certificate-data"]) + &data(&user["client-key-data"])).unwrap();
    let shown = |path: &Path| path.display().to_string();
    let words = ["-c".to_owned(), ASK.to_owned(), family.shared().to_string(), shown(&ca), shown(&pair)];
    link.start("a client", Path::new("python3"), &words, &dir.path().join("client.log")).unwrap()
}

/// What becomes of the address when its holder, its holder's API server, or all of them go, and when they come back.
fn moves(family: Family) {
    if !e2e::can_network() {
        return;
    }
    let mut shop = Shop::new(family);
    let holder = |shop: &Shop| {
        let all = shop.holders();
        assert_eq!(all.len(), 1, "{all:?} have the address\n{}", shop.logs());
        all[0]
    };
    let first = holder(&shop);
    let cut = Instant::now();
    shop.power_cut(first);
    shop.answers("its holder lost its power", cut);
    let second = holder(&shop);
    assert_ne!(second, first);
    shop.switch_on(first);
    let on = Instant::now();
    // Three intervals of keepalived's check, two of them for one that is found dead: long enough to be wrong.
    wait::until("the first one to have come back", ANSWERS, || {
        let api_server = format!("https://{}:6443", shop.family.host(first));
        let words = ["-c", e2e::READY, &api_server, "2"];
        shop.client.check()?;
        Ok((on.elapsed() > Duration::from_secs(12) && shop.link.run("python3", &words).is_ok()).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", shop.logs()));
    assert_eq!(holder(&shop), second, "none takes the address from another that is well");
    // keepalived drops the groups of the user for whom it runs its check, which a user namespace does not permit.
    if is_root() {
        let dead = Instant::now();
        shop.plane(second).api_server = None;
        shop.answers("its holder's API server is gone", dead);
        assert_ne!(holder(&shop), second);
        shop.plane(second).start_api_server();
    } else {
        e2e::skip::skip("whether the address leaves an API server that is gone: not root");
    }
    (1..=3).for_each(|number| shop.power_cut(number));
    (1..=3).for_each(|number| shop.switch_on(number));
    shop.answers("all of them lost their power", Instant::now());
    holder(&shop);
    let twice = shop.twice();
    println!("the address was on two devices for {:.2} s at most", twice.as_secs_f64());
    assert!(twice <= TWICE, "{twice:?}\n{}", shop.logs());
}

#[test]
#[ignore = "runs three control planes for minutes"]
fn the_shared_address_moves() {
    moves(V4);
}

#[test]
#[ignore = "runs three control planes for minutes"]
fn the_shared_address_moves_over_ipv6() {
    moves(V6);
}
