// SPDX-License-Identifier: Apache-2.0
//! Each check on a good device, then with one thing wrong: level, owner and exact text.

use super::CHECKS;
use super::check::CheckContext;
use super::check::{Level, Outcome};
use crate::bundle::installed::Installed;
use crate::bundle::{Image, Manifest};
use crate::check::{Row, judge, render};
use crate::fault::Code;
use crate::host::Host;
use crate::host::fake::Fake;
use crate::image::ImageInfo;
use crate::journal::Record;
use crate::kube::wire_tests::{Ca, ok_json, serve};
use crate::paths::{KUBELET_CONF, KUBELET_WANTED};
use crate::seed::{self, Seed};
use std::path::Path;
use std::time::{Duration, SystemTime};

const BUILT: u64 = 1_700_000_000;
const CONFIG: &str = "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CPUSETS MEMCG INET EXT4_FS PROC_FS \
    NETFILTER_XT_TARGET_REDIRECT NETFILTER_XT_MATCH_COMMENT FAIR_GROUP_SCHED CGROUPS CGROUP_BPF CGROUP_PIDS \
    CGROUP_SCHED OVERLAY_FS BRIDGE_NETFILTER BLK_DEV_DM CFS_BANDWIDTH SECCOMP SECCOMP_FILTER CGROUP_HUGETLB";

/// A flashed and seeded device that passes all checks.
struct Device {
    dir: tempfile::TempDir,
    host: Host,
    image: ImageInfo,
    bundle: Installed,
    seed: Option<Seed>,
}

fn device() -> Device {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| put(dir.path(), path, text);
    let config: String = CONFIG.split_whitespace().map(|o| format!("CONFIG_{o}=y\n")).collect();
    put("proc/sys/kernel/osrelease", "6.12.57+deb13-amd64\n");
    put("boot/config-6.12.57+deb13-amd64", &config);
    put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
    put("proc/meminfo", "MemTotal:        2014132 kB\nMemFree: 1 kB\n");
    put("proc/mounts", "sysfs /sys sysfs rw 0 0\n/dev/vda3 / ext4 rw,noatime 0 0\n");
    put("proc/net/tcp", "  sl  local_address rem_address   st\n   0: 0100007F:0035 00000000:0000 0A\n");
    put("proc/self/environ", "PATH=/usr/bin\0LANG=C\0");
    put("usr/lib/systemd/system/kubelet.service", "[Service]\n");
    put("usr/lib/systemd/system/systemd-timesyncd.service", "[Service]\n");
    for program in ["losetup", "mount", "cp"] {
        let path = format!("usr/bin/{program}");
        put(&path, "");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path().join(path), mode).unwrap();
    }
    put("sys/class/dmi/id/product_serial", "AB-12\n");
    put("etc/machine-id", "0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f\n");
    let (fake, seen) = Fake::new();
    seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(BUILT + 100)));
    let fake = fake.answering(|argv| match argv {
        ["/usr/bin/kubelet", "--version"] => Some(Ok("Kubernetes v1.36.3\n".into())),
        _ => None,
    });
    let host = Host::open(dir.path(), Box::new(fake)).unwrap();
    let image = ImageInfo { build_time: BUILT, ..ImageInfo::for_tests() };
    Device { dir, host, image, bundle: bundle(), seed: None }
}

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn bundle() -> Installed {
    let image = Image {
        name: "registry.k8s.io/pause:3.10.2".into(),
        sha256: "00".into(),
        layers: vec!["00".into()],
        chain_id: "sha256:00".into(),
        content: vec!["00".into()],
        component: "pause".into(),
        version: "3.10.2".into(),
    };
    let manifest = Manifest { sandbox_image: image.name.clone(), images: vec![image], ..Manifest::for_tests() };
    Installed { manifest, id: "0123456789abcdef".into() }
}

impl Device {
    fn put(&self, path: &str, text: &str) {
        put(self.dir.path(), path, text);
    }

    fn done(&self, phase: &str) {
        self.host.record(Record::Done { phase: phase.into(), seconds: 0.1 }).unwrap();
    }

    fn outcome(&self, id: &str) -> Outcome {
        let check = CHECKS.iter().find(|c| c.id == id).unwrap();
        let context = CheckContext::new(&self.host, &self.image, &self.bundle, self.seed.as_ref().map(Ok));
        Outcome::new(check.id, (check.run)(&context).unwrap())
    }

    /// `[LEVEL ID]: message (owner)`, without the id.
    fn line(&self, id: &str) -> String {
        self.outcome(id).line().unwrap().replace(&format!(" {id}]: "), "] ")
    }
}

fn seed(more: &str) -> Option<Seed> {
    let text = format!(
        "version = 1\n[cluster]\napiserver = \"10.0.0.1\"\ntoken = \"abcdef.0123456789abcdef\"\n\
         ca-cert-hashes = [\"sha256:{}\"]\n{more}",
        "0".repeat(64)
    );
    Some(seed::parse(text.as_bytes()).unwrap())
}

#[test]
fn good_device_passes() {
    let mut device = device();
    device.seed = seed("");
    // The API server of this seed does not exist.
    let checked = CHECKS.iter().filter(|c| !["Endpoint", "Clock"].contains(&c.id));
    for check in checked {
        let outcome = device.outcome(check.id);
        assert_eq!((outcome.level, outcome.code), (Level::Ok, None), "{}", outcome.line().unwrap());
    }
}

#[test]
fn files_of_another_join_are_errors_and_own_files_are_not() {
    let device = device();
    for (id, path) in [
        ("FileAvailable--etc-kubernetes-kubelet.conf", KUBELET_CONF),
        ("FileAvailable--etc-kubernetes-bootstrap-kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf"),
        ("FileAvailable--etc-kubernetes-pki-ca.crt", "/etc/kubernetes/pki/ca.crt"),
    ] {
        device.put(&path[1..], "x");
        let want =
            format!("[ERROR] remove {path}: another join left it; kubeadm reset removes all of it (host, FB309)");
        assert_eq!(device.line(id), want);
        std::fs::remove_file(device.dir.path().join(&path[1..])).unwrap();
        device.host.write(path, b"ours", 0o600).unwrap();
        assert_eq!(device.line(id), format!("[OK] {path} is firstboot's"));
    }
}

#[test]
fn port_10250_must_be_free_or_kubelets() {
    let device = device();
    device.put("proc/net/tcp6", "head\n   1: 00000000000000000000000000000000:280A 0:0 0A 0\n");
    let taken = "[ERROR] free port 10250 for kubelet: something listens on it, see ss -ltnp (host, FB308)";
    assert_eq!(device.line("Port-10250"), taken);
    device.host.symlink(KUBELET_WANTED, "/usr/lib/systemd/system/kubelet.service").unwrap();
    assert_eq!(device.line("Port-10250"), "[OK] kubelet listens on port 10250");
}

#[test]
fn kernels_and_cgroups() {
    let device = device();
    let config = "boot/config-6.12.57+deb13-amd64";
    let all: String = CONFIG.split_whitespace().map(|o| format!("CONFIG_{o}=m\n")).collect();
    let redirect = all.replace("NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT");
    device.put(config, &redirect);
    assert_eq!(device.line("SystemVerification"), "[OK] kernel 6.12.57+deb13-amd64, cgroup v2");
    device.put(config, &all.replace("CONFIG_SECCOMP_FILTER=m\n", ""));
    let want = "[WARNING] kernel 6.12.57+deb13-amd64 lacks CONFIG_SECCOMP_FILTER (image, FB209)";
    assert_eq!(device.line("SystemVerification"), want);
    device.put(config, &all.replace("CONFIG_CGROUP_BPF=m\n", "# CONFIG_CGROUP_BPF is not set\n"));
    let want = "[ERROR] use a kernel with CONFIG_CGROUP_BPF: kernel 6.12.57+deb13-amd64 lacks it (image, FB209)";
    assert_eq!(device.line("SystemVerification"), want);
    std::fs::remove_file(device.dir.path().join(config)).unwrap();
    let want = "[WARNING] the configuration of kernel 6.12.57+deb13-amd64 cannot be read (image, FB209)";
    assert_eq!(device.line("SystemVerification"), want);
    device.put(config, &all);
    device.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n");
    let want = "[ERROR] find cgroup controller pids: this kernel has it off (image, FB209)";
    assert_eq!(device.line("SystemVerification"), want);
    std::fs::remove_file(device.dir.path().join("sys/fs/cgroup/cgroup.controllers")).unwrap();
    let want = "[ERROR] use cgroup v2: /sys/fs/cgroup is not; kubelet does not start with v1 (image, FB209)";
    assert_eq!(device.line("SystemVerification"), want);
}

#[test]
fn missing_memory_controller_is_reported_with_a_fix_for_the_board() {
    let device = device();
    device.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
    let want = "[ERROR] find cgroup controller memory: it is off; add cgroup_enable=memory cgroup_memory=1 to the kernel \
                command line (host, FB307)";
    assert_eq!(device.line("CgroupMemory"), want);
    device.put("sys/firmware/devicetree/base/model", "Raspberry Pi 4 Model B Rev 1.4\0");
    let want = "[ERROR] find cgroup controller memory: it is off; append cgroup_enable=memory cgroup_memory=1 to the \
                single line of /boot/firmware/cmdline.txt (host, FB307)";
    assert_eq!(device.line("CgroupMemory"), want);
}

#[test]
fn disk_space_and_memory() {
    let device = device();
    device.put("proc/meminfo", "MemTotal:         498000 kB\n");
    assert_eq!(device.line("Memory"), "[WARNING] 486 MiB of memory leave little for pods (host, FB306)");
    device.put("proc/meminfo", "MemTotal:         245760 kB\n");
    let want = "[ERROR] use a device with more memory: it has 240 MiB, a node needs 400 (host, FB306)";
    assert_eq!(device.line("Memory"), want);
    assert!(device.line("Disk").ends_with(" MiB are free, 256 are needed"), "{}", device.line("Disk"));
    device.put("proc/mounts", "/dev/vda3 / ext4 ro,noatime 0 0\n");
    let want = "[ERROR] write to the file system of /var: it is read-only; if it was not meant to be, the disk has errors \
                (dmesg) (host, FB304)";
    assert_eq!(device.line("Disk"), want);
    // The root of an image is always read-only, and it is not where anything is written.
    device.put("proc/mounts", "/dev/mapper/root / erofs ro 0 0\n/dev/vda5 /var ext4 rw,nodev 0 0\n");
    assert!(device.line("Disk").starts_with("[OK] "));
}

#[test]
fn a_weak_power_supply_is_reported_where_the_kernel_does() {
    let device = device();
    let fine = "[OK] not looked at: this kernel does not report it";
    assert_eq!(device.line("Power"), fine);
    let weak = "[WARNING] use a stronger power supply or a shorter cable: the board reports that its voltage was too low \
                (host, FB327)";
    let throttled = "sys/devices/platform/soc/soc:firmware/get_throttled";
    for (bits, want) in [
        ("50005\n", weak),
        ("10000\n", weak),
        ("40000\n", "[WARNING] cool the board: it reports that it was slowed down by heat (host, FB327)"),
        ("0\n", "[OK] the board reports no shortage since power-on"),
    ] {
        device.put(throttled, bits);
        assert_eq!(device.line("Power"), want, "{bits}");
    }
    device.put("sys/class/hwmon/hwmon0/name", "cpu_thermal\n");
    device.put("sys/class/hwmon/hwmon1/name", "rpi_volt\n");
    device.put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n");
    assert_eq!(device.line("Power"), weak);
    assert_eq!(device.line("DiskSize"), "[OK] not looked at: this system is on a disk of another image");
}

#[test]
fn an_old_boot_loader_in_the_eeprom_is_to_be_updated() {
    let device = device();
    assert_eq!(device.line("BootLoader"), "[OK] not looked at: the firmware does not say how old it is");
    let path = "sys/firmware/devicetree/base/chosen/bootloader/build-timestamp";
    device.put(path, "");
    let put = |seconds: u32| std::fs::write(device.dir.path().join(path), seconds.to_be_bytes()).unwrap();
    put(1_619_654_400);
    assert_eq!(
        device.line("BootLoader"),
        "[WARNING] update the boot loader in the EEPROM: it is of 2021-04-29, and before 2022-11-25 none was made for \
         two versions of a system; start the board once with a card that Raspberry Pi Imager wrote (Misc utility images, \
         Bootloader), or run `sudo rpi-eeprom-update -a` on Raspberry Pi OS (host, FB329)"
    );
    put(1_669_334_399);
    assert!(device.line("BootLoader").starts_with("[WARNING] "));
    put(1_669_334_400);
    assert_eq!(device.line("BootLoader"), "[OK] the one in the EEPROM is of 2022-11-25");
}

#[test]
fn machine_id_from_the_image_is_a_warning() {
    let mut device = device();
    device.image.machine_id = Some(crate::image::machine_id_digest("0f6dd9b27b0c4d2f9d3c2b1a4c5d6e7f"));
    let want = "[WARNING] empty /etc/machine-id in the image: it came with it, so every device flashed from it has the \
                same (image, FB210)";
    assert_eq!(device.line("MachineId"), want);
    device.put("etc/machine-id", "");
    assert_eq!(device.line("MachineId"), "[OK] the phase identity makes one");
    device.done("identity");
    let want = "[ERROR] find an id in /etc/machine-id: it was there and is not any more (host, FB310)";
    assert_eq!(device.line("MachineId"), want);
}

#[test]
fn node_names_by_template_and_hardware() {
    let mut device = device();
    assert_eq!(device.line("NodeName"), "[OK] edge-ab-12");
    device.put("sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n");
    let want = "[WARNING] this device has neither a serial number nor a permanent MAC address: it gets a random name, and \
                another one when it is flashed again; set [node] name in the seed (host, FB300)";
    assert_eq!(device.line("NodeName"), want);
    device.seed = seed("[node]\nname = \"shop-{serial}\"\n");
    let want = "[ERROR] render [node] name: this device has no {serial}; use {mac} or {machine-id} (seed, FB113)";
    assert_eq!(device.line("NodeName"), want);
}

#[test]
fn results_of_a_phase_are_checked_after_it() {
    let device = device();
    device.put("proc/swaps", "Filename Type\n/dev/zram0 partition 1 0 100\n");
    assert_eq!(device.line("Swap"), "[OK] /dev/zram0 is on; the phase kernel switches it off");
    for phase in ["kernel", "identity", "kubelet", "bundle"] {
        device.done(phase);
    }
    assert_eq!(device.line("Swap"), "[WARNING] switch swap off: /dev/zram0 came back (host, FB310)");
    device.put("proc/sys/net/ipv4/ip_forward", "0\n");
    assert_eq!(
        device.line("FileContent--proc-sys-net-ipv4-ip_forward"),
        "[ERROR] set /proc/sys/net/ipv4/ip_forward to 1: something has changed it since (host, FB310)"
    );
    device.put("proc/sys/kernel/hostname", "edge-1\n");
    device.put("etc/hosts", "127.0.0.1 localhost\n");
    let want = "[WARNING] put edge-1 into /etc/hosts: kubelet looks its own name up when it starts (host, FB310)";
    assert_eq!(device.line("Hostname"), want);
    assert_eq!(
        device.line("Service-kubelet"),
        "[WARNING] enable kubelet.service: systemctl enable kubelet (host, FB310)"
    );
    assert_eq!(device.line("KubeletVersion"), "[OK] 1.36.3");
    let older = Device {
        bundle: Installed { manifest: Manifest { kubernetes: "1.40.0".into(), ..bundle().manifest }, ..bundle() },
        ..device
    };
    let want = "[ERROR] use kubelet 1.36.3: kubeadm 1.40.0 works with one at most three minors older (host, FB310)";
    assert_eq!(older.line("KubeletVersion"), want);
    std::fs::remove_file(older.dir.path().join("usr/bin/mount")).unwrap();
    let line = older.line("FileExisting-mount");
    assert!(line.starts_with("[ERROR] find mount: kubelet calls it and it is in no directory of "), "{line}");
}

#[test]
fn bundle_without_its_sandbox_image() {
    let mut device = device();
    device.bundle.manifest.sandbox_image = "registry.k8s.io/pause:9".into();
    let want = "[ERROR] find sandbox image registry.k8s.io/pause:9 in the bundle: without it no pod starts offline (image, FB204)";
    assert_eq!(device.line("SandboxImage"), want);
}

#[test]
fn proxy_that_kubelet_would_use() {
    let mut device = device();
    device.seed = seed("");
    device.put("proc/self/environ", "https_proxy=http://user:secret@proxy:3128\0NO_PROXY=.example.org\0");
    let want = "[WARNING] add 10.0.0.1:6443 to NO_PROXY: kubelet would talk to it through the proxy of HTTPS_PROXY, and \
                expects the cluster's certificate there (host, FB325)";
    assert_eq!(device.line("HTTPProxy"), want);
    device.put("proc/self/environ", "HTTPS_PROXY=http://proxy:3128\0no_proxy=10.0.0.0/8\0");
    assert_eq!(device.line("HTTPProxy"), "[OK] HTTPS_PROXY is set, and NO_PROXY leaves out the API server");
}

#[test]
fn no_api_server_is_queried_without_a_seed() {
    let device = device();
    assert_eq!(device.line("Endpoint"), "[WARNING] there is no seed yet, so no API server to ask (seed, FB101)");
    let want = "[OK] 2023-11-14T22:15:00Z, not before 2023-11-14T22:13:20Z; no API server to compare with";
    assert_eq!(device.line("Clock"), want);
    let refused = CheckContext::new(
        &device.host,
        &device.image,
        &device.bundle,
        Some(Err((Code::UnknownKey, "seed.toml:3: unknown table [x]".into()))),
    );
    let found = Outcome::new("Endpoint", super::cluster::endpoint(&refused).unwrap());
    assert_eq!(found.line().unwrap(), "[ERROR Endpoint]: seed.toml:3: unknown table [x] (seed, FB105)");
}

/// Two API servers: a real TLS server with a valid certificate, and a closed port.
#[test]
fn api_servers_are_queried_and_their_clock_is_compared() {
    let ca = Ca::new();
    let good = serve(ca.leaf("127.0.0.1", 2020, 2090), ok_json("{}"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = |servers: &str, ca: &Ca| {
        let head = format!("version = 1\n[cluster]\napiserver = [{servers}]\ntoken = \"abcdef.0123456789abcdef\"\n");
        let seed = seed::parse(format!("{head}ca-cert = \"\"\"\n{}\"\"\"\n", ca.pem).as_bytes()).unwrap();
        let device = Device { seed: Some(seed), ..device() };
        // The server's time is 2026-11-22T16:31:48Z.
        device.host.sys().set_clock(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_365_108 - 3600)).unwrap();
        (device.line("Endpoint"), device.line("Clock"))
    };
    let (endpoint, clock) = text(&format!("\"{good}\""), &ca);
    assert_eq!(endpoint, format!("[OK] {good}: answers, and is the cluster's"));
    assert_eq!(clock, "[WARNING] the clock is 3600 s behind the cluster's; firstboot sets it by that (host, FB311)");
    let (endpoint, _) = text(&format!("\"{closed}\", \"{good}\""), &ca);
    let refused = format!("connect to API server {closed}: connection refused");
    assert_eq!(endpoint, format!("[WARNING] {refused}; {good} answers (cluster, FB407)"));
    let (endpoint, clock) = text(&format!("\"{closed}\", \"{good}\""), &Ca::new());
    let foreign = format!("certificate of API server {good} is not signed by the cluster's CA");
    assert_eq!(endpoint, format!("[ERROR] {refused}; {foreign} (cluster, FB407)"));
    assert!(clock.ends_with("; no API server to compare with"), "{clock}");
}

#[test]
fn clock_before_its_floor() {
    let mut device = device();
    device.image.build_time = BUILT + 3600;
    let want = "[ERROR] set the clock: it shows 2023-11-14T22:15:00Z, but it is 2023-11-14T23:13:20Z or later; \
                firstboot-guard.service should have done so (host, FB311)";
    assert_eq!(device.line("Clock"), want);
}

#[test]
fn errors_become_one_fault_and_the_report_is_json() {
    let device = device();
    device.put("proc/meminfo", "MemTotal: 1024 kB\n");
    device.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu pids\n");
    let outcomes = ["Swap", "Memory", "CgroupMemory"].map(|id| device.outcome(id));
    let fault = judge(&outcomes).unwrap_err();
    assert_eq!(
        (fault.owner().exit_code(), fault.to_string().as_str()),
        (
            12,
            "Memory: use a device with more memory: it has 1 MiB, a node needs 400; CgroupMemory: find cgroup controller \
             memory: it is off; add cgroup_enable=memory cgroup_memory=1 to the kernel command line"
        )
    );
    let json: serde_json::Value = serde_json::from_str(&render(&outcomes, true).unwrap()).unwrap();
    let want = serde_json::json!({"id": "Swap", "level": "ok", "message": "swap is off", "owner": null, "code": null});
    assert_eq!((&json["version"], &json["checks"][0]), (&1.into(), &want));
    assert_eq!((&json["checks"][1]["owner"], &json["checks"][1]["code"]), (&"host".into(), &"FB306".into()));
    assert_eq!(render(&outcomes[..1], false).unwrap(), "[OK Swap]: swap is off\n");
}
