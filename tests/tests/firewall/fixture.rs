// SPDX-License-Identifier: Apache-2.0
//! Three networks of this machine's kernel: one in the device's place, one outside of it, one for a pod behind a
//! bridge; servers and clients that speak real TCP and UDP over them. A fourth one is at a second link of the device.
//!
//! The device's links are of the kind `macvlan`: the end of a virtual pair would be of the kind that pods have.

use firstboot::firewall::peers::ClusterPeers;
use firstboot::firewall::render::rules;
use firstboot::harden::overrides::SeedOverrides;
use firstboot::seed::{self, Seed};
use qemu::link::namespace::Namespace;
use qemu::process::Process;
use qemu::run_dir::RunDir;
use std::path::Path;
use std::time::Duration;

/// The device, as the outside sees it.
pub const DEVICE: &str = "192.168.77.1";
pub const DEVICE_V6: &str = "fd00:77::1";
/// An API server, outside.
pub const SERVER: &str = "192.168.77.10";
pub const SERVER_V6: &str = "fd00:77::10";
/// Anybody else outside.
pub const OTHER: &str = "192.168.77.2";
pub const OTHER_V6: &str = "fd00:77::2";
/// A pod of the device.
pub const POD: &str = "10.244.1.5";
pub const POD_V6: &str = "fd00:244::5";
/// A host at the device's second link, and the device there.
pub const OFFICE: &str = "192.168.78.2";
pub const OFFICE_V6: &str = "fd00:78::2";

/// Answers every connection and every datagram with the port that it came in at. Arguments: ports.
const SERVE: &str = r#"
import selectors, socket, sys
all = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        s.bind(('::', port))
        if kind == socket.SOCK_STREAM:
            s.listen(64)
        all.register(s, selectors.EVENT_READ, port)
print('ready', flush=True)
kept = []
while True:
    for key, _ in all.select():
        s, port = key.fileobj, str(key.data).encode()
        if s.type == socket.SOCK_STREAM:
            c, _ = s.accept()
            c.sendall(port)
            kept.append(c)
        else:
            # The answer comes from the address that was asked.
            _, to, _, peer = s.recvmsg(100, 100)
            s.sendmsg([port], to, 0, peer)
"#;

/// Tries all its arguments at once, each `PROTOCOL/SOURCE/SOURCE PORT/DESTINATION/PORT`, and prints what became of each:
/// the answer (`pong` to a `ping`), `refused`, or `silence` after a while.
pub const PROBE: &str = r#"
import select, socket, sys, time
def start(word):
    proto, source, sport, to, port = word.split('/')
    family = socket.AF_INET6 if ':' in to else socket.AF_INET
    v6, ping = family == socket.AF_INET6, proto == 'ping'
    kind = socket.SOCK_STREAM if proto.endswith('tcp') else socket.SOCK_DGRAM
    number = {'ping': socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP, 'mptcp': 262}
    s = socket.socket(family, kind, number.get(proto, 0))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((source, int(sport)))
    s.setblocking(False)
    try:
        s.connect((to, int(port)))
        if proto == 'udp':
            s.send(b'?')
        if ping:
            s.send(bytes([128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1]))
    except BlockingIOError:
        pass
    except OSError as e:
        return s, 'refused'
    return s, None
probes = [start(w) for w in sys.argv[1:]]
found = [result for _, result in probes]
end = time.monotonic() + 1.5
while None in found and time.monotonic() < end:
    open_ones = [s for (s, _), f in zip(probes, found) if f is None]
    ready, _, _ = select.select(open_ones, [], [], end - time.monotonic())
    for at, (s, _) in enumerate(probes):
        if s in ready:
            try:
                answer = s.recv(100)
                found[at] = 'pong' if sys.argv[1 + at].startswith('ping') else answer.decode()
            except OSError:
                found[at] = 'refused'
print('\n'.join(f or 'silence' for f in found))
"#;

/// One connection that is used again when a file is there. Arguments: address, port, file.
const STAY: &str = r#"
import os, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
s.settimeout(5)
print(s.recv(100).decode(), flush=True)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.02)
s.sendall(b'more')
print(s.recv(100).decode(), flush=True)
"#;

/// Answers a connection twice: at once, and when it is asked again.
const TWICE: &str = r#"
import socket, sys
s = socket.create_server(('', int(sys.argv[1])))
print('ready', flush=True)
c, _ = s.accept()
c.sendall(b'one')
c.recv(100)
c.sendall(b'two')
c.recv(100)
"#;

/// Lets the interfaces of a network send only what a test sends: no other host can have their addresses, so they are
/// usable at once, and no host asks for a router, which the device, as it forwards, would take for itself.
fn silence(namespace: &Namespace) {
    for name in ["accept_dad", "router_solicitations"] {
        namespace.sysctl(&format!("net/ipv6/conf/default/{name}"), "0").unwrap();
    }
}

/// The three networks.
pub struct Fixture {
    // Order matters: what runs in the networks ends before their holders.
    servers: Vec<Process>,
    pub pod: Namespace,
    pub outside: Namespace,
    pub device: Namespace,
    dir: RunDir,
}

impl Fixture {
    /// Networks whose device listens on these ports; the pod on 80, the outside on 53, 123, 443, 3128 and 6443.
    pub fn new(device_ports: &[u16]) -> Self {
        let dir = RunDir::new("firewall").unwrap();
        let device = Namespace::new(dir.path()).unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let (outside, pod) = (device.sibling(&at("outside")).unwrap(), device.sibling(&at("pod")).unwrap());
        [&device, &outside, &pod].into_iter().for_each(silence);
        outside.sysctl("net/ipv4/ping_group_range", "0 0").unwrap();
        device.sysctl("net/ipv4/ip_forward", "1").unwrap();
        // Only the link answers for its address, and not the virtual pair below it.
        device.sysctl("net/ipv4/conf/all/arp_ignore", "1").unwrap();
        device.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let all = |namespace: &Namespace, lines: &[String]| lines.iter().for_each(|l| namespace.ip(l).unwrap());
        let text = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let (out, inner) = (outside.pid(), pod.pid());
        all(
            &device,
            &[
                format!("link add wire0 type veth peer name eth0 netns {out}"),
                "link set wire0 up".to_owned(),
                "link add link wire0 name eth0 type macvlan".to_owned(),
                format!("link add veth1 type veth peer name eth0 netns {inner}"),
                format!("addr add {DEVICE}/24 dev eth0"),
                format!("addr add {DEVICE_V6}/64 dev eth0"),
            ],
        );
        all(
            &device,
            &text(&[
                "link add cni0 type bridge",
                "addr add 10.244.1.1/24 dev cni0",
                "addr add fd00:244::1/64 dev cni0",
                "link set veth1 master cni0",
                "link set veth1 type bridge_slave hairpin on",
                "link set veth1 up",
                "link set cni0 up",
                "link set eth0 up",
            ]),
        );
        for address in [SERVER, OTHER] {
            outside.ip(&format!("addr add {address}/24 dev eth0")).unwrap();
        }
        for address in [SERVER_V6, OTHER_V6] {
            outside.ip(&format!("addr add {address}/64 dev eth0")).unwrap();
        }
        outside.ip("link set eth0 up").unwrap();
        all(
            &pod,
            &[
                format!("addr add {POD}/24 dev eth0"),
                format!("addr add {POD_V6}/64 dev eth0"),
                "link set eth0 up".to_owned(),
                "route add default via 10.244.1.1".to_owned(),
                "-6 route add default via fd00:244::1".to_owned(),
            ],
        );
        let mut fixture = Fixture { servers: Vec::new(), pod, outside, device, dir };
        let ports = |all: &[u16]| all.iter().map(u16::to_string).collect::<Vec<_>>();
        fixture.serve("device", SERVE, ports(device_ports), |g| &g.device);
        fixture.serve("pod-server", SERVE, ports(&[80]), |g| &g.pod);
        fixture.serve("outside-server", SERVE, ports(&[53, 123, 443, 3128, 6443]), |g| &g.outside);
        fixture
    }

    /// Plugs a second link into the device, with a host that has the device as its router, as have the hosts outside;
    /// that host answers at 443 and runs a pod of its own (10.244.2.5) behind a VXLAN of flannel's.
    pub fn second_link(&mut self) -> Namespace {
        let path = self.dir.path().join("office");
        std::fs::create_dir(&path).unwrap();
        let office = self.device.sibling(&path).unwrap();
        silence(&office);
        office.sysctl("net/ipv4/ping_group_range", "0 0").unwrap();
        let all = |namespace: &Namespace, lines: &[&str]| lines.iter().for_each(|l| namespace.ip(l).unwrap());
        self.device.ip(&format!("link add wire1 type veth peer name eth1 netns {}", office.pid())).unwrap();
        all(&self.device, &["link set wire1 up", "link add link wire1 name eth1 type macvlan"]);
        for (namespace, own, peer, end) in [(&self.device, "1", "2", "10.244.1.0"), (&office, "2", "1", "10.244.2.0")] {
            let vxlan = "link add flannel.1 type vxlan id 1 dstport 8472 nolearning dev eth1";
            all(
                namespace,
                &[
                    &format!("addr add 192.168.78.{own}/24 dev eth1"),
                    &format!("addr add fd00:78::{own}/64 dev eth1"),
                    "link set eth1 up",
                    &format!("{vxlan} local 192.168.78.{own} remote 192.168.78.{peer}"),
                    &format!("addr add {end}/32 dev flannel.1"),
                    "link set flannel.1 up",
                ],
            );
        }
        all(
            &office,
            &[
                "addr add 10.244.2.5/32 dev lo",
                "route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
                "route add default via 192.168.78.1",
                "-6 route add default via fd00:78::1",
            ],
        );
        self.device.ip("route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink").unwrap();
        all(&self.outside, &["route add 192.168.78.0/24 via 192.168.77.1", "-6 route add fd00:78::/64 via fd00:77::1"]);
        let serving = self.start_server("office-server", &office, SERVE, vec!["443".to_owned()]);
        self.servers.push(serving);
        office
    }

    fn serve(&mut self, name: &str, script: &str, args: Vec<String>, place: impl Fn(&Fixture) -> &Namespace) {
        let server = self.start_server(name, place(self), script, args);
        self.servers.push(server);
    }

    fn start_server(&self, name: &str, place: &Namespace, script: &str, args: Vec<String>) -> Process {
        let log = self.dir.path().join(format!("{name}.log"));
        let all: Vec<String> = ["-c".to_owned(), script.to_owned()].into_iter().chain(args).collect();
        let server = place.start(name, Path::new("python3"), &all, &log).unwrap();
        qemu::wait::until("a server", Duration::from_secs(20), || {
            server.check()?;
            Ok(qemu::process::tail(&log, usize::MAX).contains("ready").then_some(()))
        })
        .unwrap();
        server
    }

    /// Loads rules as the device does: by one run of nft.
    pub fn load(&self, text: &str) {
        self.try_load(text).unwrap();
    }

    /// The same, where nft may refuse them.
    pub fn try_load(&self, text: &str) -> anyhow::Result<()> {
        let path = self.dir.path().join("rules.nft");
        std::fs::write(&path, text)?;
        self.device.run("nft", &["-f", &path.display().to_string()]).map(drop)
    }

    /// What nft says of the device.
    pub fn nft(&self, words: &[&str]) -> String {
        String::from_utf8(self.device.run("nft", words).unwrap()).unwrap()
    }

    /// Loads the filter of a device with this seed, and says what is known of its cluster.
    pub fn filter(&self, more: &str) -> (SeedOverrides, ClusterPeers) {
        let seed = seed(more);
        let (kept, known) = (SeedOverrides::of(&seed), ClusterPeers::from_seed(&seed, ClusterPeers::default()));
        self.load(&rules(&kept, &known));
        (kept, known)
    }

    /// What becomes of each of these, from outside: `PROTOCOL SOURCE[#PORT] DESTINATION PORT`.
    pub fn probe_from_outside(&self, probes: &[&str]) -> Vec<String> {
        probe(&self.outside, probes)
    }

    /// The same from the device itself.
    pub fn probe_from_device(&self, probes: &[&str]) -> Vec<String> {
        probe(&self.device, probes)
    }

    /// The same from the pod.
    pub fn probe_from_pod(&self, probes: &[&str]) -> Vec<String> {
        probe(&self.pod, probes)
    }

    /// Opens a connection from outside to `port` of the device, calls `between`, and uses it again: what was heard.
    pub fn stays_open(&mut self, port: u16, between: impl Fn(&Fixture)) -> String {
        self.serve("twice", TWICE, vec![port.to_string()], |g| &g.device);
        let (log, go) = (self.dir.path().join("stay.log"), self.dir.path().join("go"));
        let words = ["-c", STAY, DEVICE, &port.to_string(), &go.display().to_string()].map(str::to_owned);
        let client = self.outside.start("a connection", Path::new("python3"), &words, &log).unwrap();
        let heard = |word: &str| {
            qemu::wait::until("an answer", Duration::from_secs(20), || {
                let text = qemu::process::tail(&log, usize::MAX);
                client.check().ok();
                Ok(text.contains(word).then_some(text))
            })
        };
        heard("one").unwrap();
        between(self);
        std::fs::write(&go, "").unwrap();
        heard("two").unwrap()
    }
}

/// What becomes of each of these, from this network: `PROTOCOL SOURCE[#PORT] DESTINATION PORT`.
pub fn probe(namespace: &Namespace, probes: &[&str]) -> Vec<String> {
    let word = |probe: &&str| {
        let parts: Vec<&str> = probe.split(' ').collect();
        let [protocol, source, to, port] = parts.as_slice() else { panic!("not a probe: {probe}") };
        let (source, source_port) = source.split_once('#').unwrap_or((source, "0"));
        format!("{protocol}/{source}/{source_port}/{to}/{port}")
    };
    let words: Vec<String> = probes.iter().map(word).collect();
    let all: Vec<&str> = ["-c", PROBE].into_iter().chain(words.iter().map(String::as_str)).collect();
    let out = String::from_utf8(namespace.run("python3", &all).unwrap()).unwrap();
    probes.iter().zip(out.lines()).map(|(probe, found)| format!("{probe}: {found}")).collect()
}

/// A seed whose API servers are the one outside.
pub fn seed(more: &str) -> Seed {
    seed_of(&format!("[\"{SERVER}\", \"[{SERVER_V6}]\"]"), more)
}

/// A seed with these API servers, in TOML.
pub fn seed_of(servers: &str, more: &str) -> Seed {
    let pin = "0".repeat(64);
    let text = format!(
        "version = 1\n[cluster]\napiserver = {servers}\ntoken = \"abcdef.0123456789abcdef\"\n\
         ca-cert-hashes = \"sha256:{pin}\"\n{more}"
    );
    seed::parse(text.as_bytes()).unwrap()
}
