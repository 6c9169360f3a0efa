// SPDX-License-Identifier: Apache-2.0
//! What a seed opens on a hardened device, each only to the named user: SSH by a key, kubelet's
//! port, and the ways out of an egress list for pods. Boots 1 guest, so only `make test-long` runs it.

#![allow(clippy::unwrap_used)]

use e2e::ports::open_to_strangers;
use e2e::{SOON, device_options, status_value};
use qemu::control_plane::{ControlPlane, Options};
use qemu::device::Device;
use qemu::link::site::{STRANGER, Scan, Site};
use qemu::pods;
use qemu::process::Process;
use qemu::seed::Seed;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const NAME: &str = "edge-access";
/// Who may log in.
const OPERATOR: &str = "10.0.2.4";
/// Who may reach kubelet.
const METRICS: &str = "10.0.2.5";
/// Where the device may go.
const ALLOWED: &str = "10.0.2.6";
/// A port that answers at every address of the network's other side.
const PORT: u16 = 8000;

fn seed_part(key: &str) -> String {
    format!(
        "\n[access]\nssh-keys = [\"{}\"]\nssh-from = [\"{OPERATOR}\"]\n\n[harden]\nkubelet-from = [\"{METRICS}\"]\negress = \
         [\"{ALLOWED}\"]\n",
        key.trim()
    )
}

/// Logs in from `source`; what it says on both channels.
struct Ssh<'a> {
    site: &'a Site,
    dir: &'a Path,
    address: String,
}

impl Ssh<'_> {
    fn run(&self, source: &str, options: &str, command: &str) -> String {
        let (dir, address) = (self.dir.display(), &self.address);
        let script = format!(
            "ssh -F none -b {source} -i {dir}/key -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=20 -o \
             StrictHostKeyChecking=accept-new -o UserKnownHostsFile={dir}/known {options} admin@{address} '{command}' \
             2>&1; echo \"rc $?\""
        );
        self.site.run("bash", &["-c", &script]).unwrap()
    }

    fn admin(&self, command: &str) -> String {
        self.run(OPERATOR, "", command)
    }
}

#[test]
fn the_device_reads_this_seed() {
    let (token, pin) = ("abcdef.0123456789abcdef".to_owned(), format!("sha256:{}", "0f".repeat(32)));
    let seed = Seed { apiserver: "10.0.2.2:1".to_owned(), token, pin, more: seed_part(e2e::UNUSED_KEY) };
    firstboot::seed::parse(seed.text().as_bytes()).unwrap();
}

#[test]
#[ignore = "boots a guest"]
fn only_named_users_have_access() {
    if !e2e::can_boot(e2e::own_arch()) || !e2e::can_network() || !e2e::can_log_in() {
        return;
    }
    let site = Site::start().unwrap();
    for address in [OPERATOR, METRICS, ALLOWED] {
        site.namespace().ip(&format!("addr add {address}/24 dev lan")).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    site.run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at("key")]).unwrap();
    let _server = answers(&site, dir.path());

    let plane = ControlPlane::start(&Options { namespace: Some(site.namespace()), ..Options::default() }).unwrap();
    let options = qemu::device::Options { link: site.socket(), ..device_options("access") };
    let mut device = Device::new(&e2e::image(e2e::own_arch()).unwrap(), &options).unwrap();
    let token = plane.create_token("2h").unwrap();
    let more = seed_part(&std::fs::read_to_string(at("key.pub")).unwrap());
    device.disk().put_seed(&Seed { more, ..Seed::for_guest(&plane, &token).unwrap() }.text()).unwrap();
    device.power_on().unwrap();
    device.wait_console(&format!("node {NAME} is Ready, seed destroyed"), SOON).unwrap();
    plane.wait_node_ready(NAME, SOON, || device.check()).unwrap();

    let address = site.address().unwrap();
    assert_eq!(open_to_strangers(&site, &address).unwrap(), [""; 0]);
    assert_eq!(site.scan(OPERATOR, &address, Scan::Tcp).unwrap(), ["tcp/22"]);
    assert_eq!(site.scan(METRICS, &address, Scan::Tcp).unwrap(), ["tcp/10250"]);
    logs_in(&Ssh { site: &site, dir: dir.path(), address });
    ways_out(&plane, &device);
}

/// A server at every address of the network's other side.
fn answers(site: &Site, dir: &Path) -> Process {
    let pages = dir.join("pages");
    std::fs::create_dir(&pages).unwrap();
    std::fs::write(pages.join("hello"), "hello\n").unwrap();
    let words =
        ["-m", "http.server", &PORT.to_string(), "--directory", &pages.display().to_string()].map(str::to_owned);
    let server = site.namespace().start("the server", Path::new("python3"), &words, &dir.join("server.log")).unwrap();
    let up = || Ok(site.run("bash", &["-c", &format!("exec 3<>/dev/tcp/{ALLOWED}/{PORT}")]).ok());
    qemu::wait::every(Duration::from_millis(200), "the server to listen", SOON, up).unwrap();
    server
}

/// What the account may do, and what it may not.
fn logs_in(ssh: &Ssh<'_>) {
    let said = ssh.admin("firstboot status");
    assert!(said.contains("Unauthorized use is prohibited") && said.ends_with("rc 0\n"), "{said}");
    assert_eq!(status_value(&said, "state"), "joined", "{said}");
    for exception in [
        format!("SSH: user admin, 1 key(s), from {OPERATOR}/32"),
        format!("may reach kubelet (tcp/10250): {METRICS}/32"),
    ] {
        assert!(said.contains(&exception), "{exception}: {said}");
    }
    let said = ssh.admin("journalctl --unit=firstboot.service --lines=5 --output=cat");
    assert!(said.contains(&format!("node {NAME} is Ready")), "{said}");
    assert!(ssh.admin("cat /etc/kubernetes/kubelet.conf").contains("Permission denied"));
    assert!(ssh.admin("cat /etc/shadow").contains("Permission denied"));
    // Not to root, not through the device, not without the key, not from anywhere else.
    assert!(ssh.admin("sudo -n true || setpriv --reuid=0 true").contains("Operation not permitted"));
    let said = ssh.run(OPERATOR, "-W 127.0.0.1:10248", "");
    assert!(said.contains("administratively prohibited"), "{said}");
    let said = ssh.run(OPERATOR, "-o PubkeyAuthentication=no", "true");
    assert!(said.contains("Permission denied (publickey)."), "{said}");
    let said = ssh.run(OPERATOR, "-l root", "true");
    assert!(said.contains("Permission denied (publickey)."), "{said}");
    let said = ssh.run(STRANGER, "-o ConnectTimeout=5", "true");
    assert!(said.contains("timed out") && said.ends_with("rc 255\n"), "{said}");
    // By no shell, either: not to what the egress list names, not to ports of this node.
    for (to, port) in [(ALLOWED, PORT), (STRANGER, PORT), ("127.0.0.1", 10248), ("127.0.0.53", 53)] {
        let refused = ssh.admin(&format!("timeout 5 bash -c \"exec 3<>/dev/tcp/{to}/{port}\""));
        assert!(refused.contains("No route to host") && refused.ends_with("rc 1\n"), "{to}: {refused}");
    }
    // It cannot fill the root file system, or the table of processes.
    let said = ssh.admin("head --bytes=80M /dev/zero >/var/tmp/a; ulimit -u; stat --file-system --format=%T /var/tmp");
    let full = said.contains("File size limit exceeded") || said.contains("No space left on device");
    assert!(full && said.contains("128\ntmpfs\n"), "{said}");
}

/// Pods keep to the egress list, too.
fn ways_out(plane: &ControlPlane, device: &Device) {
    let fetch = |name: &str, to: &str| -> Value {
        pods::run(plane, device, name, &["fetch", &format!("http://{to}:{PORT}/hello"), "1m"], SOON).unwrap()
    };
    let state = fetch("way-out", ALLOWED);
    assert_eq!((&state["exitCode"], &state["message"]), (&json!(0), &json!("hello\n")), "{state}");
    let state = fetch("no-way-out", STRANGER);
    assert_eq!(state["exitCode"], 1, "{state}");
    assert!(state["message"].as_str().unwrap().contains("no route to host"), "{state}");
}
