// SPDX-License-Identifier: Apache-2.0
//! S13: the account for SSH opens no connection from this device, and serves none.
//!
//! A user namespace of a test has no second user, so this test runs as root, in network namespaces without one.

use super::fixture::{PROBE, seed};
use firstboot::firewall::peers::ClusterPeers;
use firstboot::firewall::render::rules;
use firstboot::harden::access::accounts::IDS;
use firstboot::harden::overrides::SeedOverrides;
use qemu::process::Process;
use qemu::run_dir::RunDir;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Answers connections and datagrams at a port, in the name of the user who starts it.
const SERVE: &str = r#"
import os, selectors, socket, sys
port, user = int(sys.argv[1]), int(sys.argv[2])
all = selectors.DefaultSelector()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('::', port))
    if kind == socket.SOCK_STREAM:
        s.listen(64)
    all.register(s, selectors.EVENT_READ)
print('ready', flush=True)
kept = []
while True:
    for key, _ in all.select():
        s = key.fileobj
        if s.type == socket.SOCK_STREAM:
            c, _ = s.accept()
            # As sshd: root accepts, the account speaks.
            if os.fork() == 0:
                os.setuid(user)
                c.sendall(str(port).encode())
                c.recv(100)
                os._exit(0)
            kept.append(c)
        else:
            _, peer = s.recvfrom(100)
            try:
                s.sendto(str(port).encode(), peer)
            except OSError:
                pass
"#;

/// The account does not get into a home directory of root's, where another one may be.
const PYTHON: &str = "/usr/bin/python3";

/// A device and a host beside it.
struct Pair {
    // Order matters: what runs in the networks ends before their holders.
    servers: Vec<Process>,
    far: Process,
    device: Process,
    dir: RunDir,
}

impl Pair {
    fn new() -> Self {
        let dir = RunDir::new("account").unwrap();
        let holder = |name: &str| {
            let words = ["--net", "--", "sleep", "infinity"].map(str::to_owned);
            let log = dir.path().join(format!("{name}.log"));
            let holder = Process::start(name, Path::new("unshare"), &words, &log).unwrap();
            let entered = || {
                holder.check()?;
                let comm = std::fs::read_to_string(format!("/proc/{}/comm", holder.pid()));
                Ok(comm.is_ok_and(|comm| comm.trim() == "sleep").then_some(()))
            };
            qemu::wait::until("a network namespace", Duration::from_secs(10), entered).unwrap();
            holder
        };
        let (device, far) = (holder("device"), holder("far"));
        let pair = Pair { servers: Vec::new(), far, device, dir };
        let to = pair.far.pid();
        let ours = format!("ip link add eth0 type veth peer name eth0 netns {to}");
        let rest = "ip link set lo up && ip link set eth0 up && echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range";
        let address =
            |end| format!("ip addr add 192.168.79.{end}/24 dev eth0 && ip addr add fd00:79::{end}/64 dev eth0 nodad");
        pair.run(&pair.device, "sh", &["-c", &format!("{ours} && {} && {rest}", address("1"))]);
        pair.run(&pair.far, "sh", &["-c", &format!("{} && {rest}", address("2"))]);
        pair
    }

    fn enter(holder: &Process) -> Vec<String> {
        vec![format!("--target={}", holder.pid()), "--net".to_owned(), "--".to_owned()]
    }

    fn run(&self, holder: &Process, program: &str, words: &[&str]) -> String {
        let out = Command::new("nsenter").args(Self::enter(holder)).arg(program).args(words).output().unwrap();
        assert!(out.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// A server at a port of the device or of the host beside it; `words` come before it.
    fn serve(&mut self, at_device: bool, port: u16, words: &[&str], speaks: u32) {
        let holder = if at_device { &self.device } else { &self.far };
        let log = self.dir.path().join(format!("server-{port}.log"));
        let end = [PYTHON, "-c", SERVE, &port.to_string(), &speaks.to_string()].map(str::to_owned);
        let words: Vec<String> =
            Self::enter(holder).into_iter().chain(words.iter().map(|w| (*w).to_owned())).chain(end).collect();
        let server = Process::start("a server", Path::new("nsenter"), &words, &log).unwrap();
        let ready = || {
            server.check()?;
            Ok(qemu::process::tail(&log, usize::MAX).contains("ready").then_some(()))
        };
        qemu::wait::until("a server", Duration::from_secs(20), ready).unwrap();
        self.servers.push(server);
    }

    fn filter(&self, more: &str) {
        let seed = seed(more);
        let text = rules(&SeedOverrides::of(&seed), &ClusterPeers::from_seed(&seed, ClusterPeers::default()));
        let path = self.dir.path().join("rules.nft");
        std::fs::write(&path, text).unwrap();
        self.run(&self.device, "nft", &["-f", &path.display().to_string()]);
    }

    /// What becomes of these, for this user: `PROTOCOL SOURCE DESTINATION PORT: RESULT`.
    fn finds(&self, from: &Process, user: u32, wanted: &[String]) {
        let word = |line: &String| {
            let (probe, _) = line.rsplit_once(": ").unwrap();
            let parts: Vec<&str> = probe.split(' ').collect();
            format!("{}/{}/0/{}/{}", parts[0], parts[1], parts[2], parts[3])
        };
        let words: Vec<String> = wanted.iter().map(word).collect();
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        let mut all = vec![uid.as_str(), gid.as_str(), "--clear-groups", "--", PYTHON, "-c", PROBE];
        all.extend(words.iter().map(String::as_str));
        let found = self.run(from, "setpriv", &all);
        let shown = wanted.iter().zip(found.lines());
        let shown: Vec<String> =
            shown.map(|(line, found)| format!("{}: {found}", line.rsplit_once(": ").unwrap().0)).collect();
        assert_eq!(shown, wanted, "user {user}");
    }
}

/// Every way out of the device, and to itself.
fn ways(answer: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for (from, to) in [("192.168.79.1", "192.168.79.2"), ("fd00:79::1", "fd00:79::2")] {
        for kind in ["tcp", "mptcp", "udp"] {
            all.push(format!("{kind} {from} {to} 7777: {}", answer.unwrap_or("7777")));
        }
        all.push(format!("ping {from} {to} 0: {}", answer.unwrap_or("pong")));
    }
    for lo in ["127.0.0.1", "::1"] {
        for kind in ["tcp", "mptcp", "udp"] {
            all.push(format!("{kind} {lo} {lo} 10248: {}", answer.unwrap_or("10248")));
        }
    }
    all
}

#[test]
fn s13_the_account_is_no_tunnel() {
    if !e2e::can_network() {
        return;
    }
    if !rustix::process::geteuid().is_root() || !Path::new(PYTHON).is_file() {
        e2e::skip::skip_unless_ci(&format!("not root, or no {PYTHON}"));
        return;
    }
    let mut pair = Pair::new();
    let account = *IDS.start();
    pair.serve(false, 7777, &[], 0);
    pair.serve(true, 10248, &[], 0);
    // sshd's: root listens and accepts, the account speaks.
    pair.serve(true, 22, &[], account);
    // The account's own, at a port that the seed opens.
    let (user, group) = (format!("--reuid={account}"), format!("--regid={account}"));
    pair.serve(true, 9100, &["setpriv", &user, &group, "--clear-groups", "--"], account);
    let visit = |answer: &str| {
        ["tcp 192.168.79.2 192.168.79.1", "tcp fd00:79::2 fd00:79::1", "udp 192.168.79.2 192.168.79.1"]
            .map(|way| format!("{way} 9100: {answer}"))
    };
    let log_in = ["tcp 192.168.79.2 192.168.79.1 22: 22", "tcp fd00:79::2 fd00:79::1 22: 22"].map(str::to_owned);
    // Without a filter everything is reached.
    pair.finds(&pair.device, account, &ways(None));
    pair.finds(&pair.far, 0, &visit("9100"));
    let key = e2e::UNUSED_KEY;
    let keys = format!("[access]\nssh-keys = \"{key}\"\n[harden]\nopen = [\"tcp/9100\", \"udp/9100\"]\n");
    for more in [keys.clone(), format!("{keys}egress = [\"192.168.79.0/24\", \"fd00:79::/64\"]\n")] {
        pair.filter(&more);
        for user in [account, *IDS.end()] {
            pair.finds(&pair.device, user, &ways(Some("refused")));
        }
        pair.finds(&pair.far, 0, &visit("silence"));
        pair.finds(&pair.far, 0, &log_in);
        // root, and whatever else runs on this device.
        pair.finds(&pair.device, 0, &ways(None));
        pair.finds(&pair.device, 1000, &ways(None));
    }
    // A session that outlives its key.
    pair.filter("");
    pair.finds(&pair.device, account, &ways(Some("refused")));
}
