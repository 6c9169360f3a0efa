// SPDX-License-Identifier: Apache-2.0
//! Clusters that devices create themselves, on emulated hardware. Each takes many minutes: `make test-long`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use anyhow::{Context, ensure};
use e2e::torture::{each_moment, moments};
use e2e::{FOUND, READY, add_script, cis, found};
use firstboot::boot_partition::JOIN_SEED;
use firstboot::seed::Trust;
use imagebuild::target::Target;
use qemu::cluster::{SEALED, address, imagebuild, network, options, shown};
use qemu::control_plane::is_ready;
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::kubectl::Kubectl;
use qemu::link::segment::Segment;
use qemu::link::vrrp::longest_overlap;
use qemu::progress::Progress;
use qemu::run_dir::RunDir;
use qemu::writes::Replay;
use qemu::{scenario, wait};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

const TARGET: &str = "generic-amd64";
const OFF: Duration = Duration::from_secs(180);
/// Until the phase `create` begins.
const BEGUN: Duration = Duration::from_secs(300);

/// A device that creates its cluster by this seed, switched off.
fn creator(segment: &Segment, more: &str) -> Device {
    device(segment, 1, &format!("version = 1\n[cluster]\ncreate = true\n{more}"))
}

fn segment() -> Segment {
    Segment::new(2, &[(address(1), 6443)]).unwrap()
}

/// A control plane of a cluster with a shared address, and how its administrator reaches it.
struct Shared {
    dir: tempfile::TempDir,
    segment: Segment,
    kubectl: Kubectl,
    devices: Vec<Device>,
}

/// Name of the n-th device.
fn name(number: u8) -> String {
    format!("edge-card-{number}")
}

impl Shared {
    /// A cluster with this many control planes, which share [`SHARED`].
    fn new(control_planes: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (shared, files) = (address(SHARED), dir.path().join("shop"));
        let segment = Segment::new(control_planes.into(), &[(shared, 6443)]).unwrap();
        let virtual_ip = shared.to_string();
        let words = ["new", "--virtual-ip", &virtual_ip, "--join-control-plane", "--cert-san", "127.0.0.1", "--out"];
        imagebuild(&[&words[..], &[&shown(&files)]].concat()).unwrap();
        let seed = std::fs::read_to_string(files.join("seed.toml")).unwrap();
        let mut first = device(&segment, 1, &seed);
        run(&mut first);
        let (kubeconfig, key) = (files.join("kubeconfig"), files.join("admin.key"));
        let api = segment.reach(shared, 6443).unwrap();
        let written = first.while_paused(|disk| {
            let words = ["--key", &shown(&key), "--server", &api, "--out", &shown(&kubeconfig)];
            imagebuild(&[&["kubeconfig", &shown(disk.path())], &words[..]].concat())
        });
        written.unwrap();
        let kubectl = Kubectl::of_lock(&kubeconfig, dir.path()).unwrap();
        let mut all = Shared { dir, segment, kubectl, devices: vec![first] };
        (2..=control_planes).for_each(|number| all.join(number));
        all
    }

    /// One more control plane, by the seed on the first one's card.
    fn join(&mut self, number: u8) {
        let next = self.dir.path().join(format!("next-{number}.toml"));
        let copied = self.devices[0].while_paused(|disk| {
            imagebuild(&["join-seed", &shown(disk.path()), "--control-plane", "--out", &shown(&next)])
        });
        copied.unwrap();
        let seed = std::fs::read_to_string(&next).unwrap();
        let mut device = device(&self.segment, number, &seed);
        assert_eq!(run(&mut device), name(number));
        let parsed = firstboot::seed::parse(seed.as_bytes()).unwrap();
        let (_, key) = parsed.joins_control_plane().unwrap();
        let left = device.while_paused(|disk| qemu::search::find(disk.path(), key.expose())).unwrap();
        assert_eq!(left, [0; 0], "the key of the certificates is on the disk of device {number}");
        self.devices.push(device);
    }

    /// Waits until the API answers at the shared address; how long that took.
    fn answers(&self) -> Duration {
        let start = Instant::now();
        wait::every(Duration::from_millis(500), "the API at the shared address", SEALED, || {
            self.devices.iter().filter(|device| device.is_on()).try_for_each(|device| device.check())?;
            Ok(self.kubectl.run(&["get", "--raw", "/readyz", "--request-timeout=2s"]).ok())
        })
        .unwrap();
        start.elapsed()
    }

    /// Waits until these control planes are Ready, and etcd runs on each.
    fn ready(&self, numbers: impl Iterator<Item = u8> + Clone) {
        wait::every(Duration::from_secs(2), "the control planes to be Ready", SEALED, || {
            self.devices.iter().filter(|device| device.is_on()).try_for_each(|device| device.check())?;
            let ready = |number: u8| {
                let node = self.kubectl.get(&["node", &name(number)]);
                let etcd = self.kubectl.get(&["pod", "-n", "kube-system", &format!("etcd-{}", name(number))]);
                node.is_ok_and(|node| is_ready(&node)) && etcd.is_ok_and(|pod| is_ready(&pod))
            };
            Ok(numbers.clone().all(ready).then_some(()))
        })
        .unwrap();
    }
}

/// The last byte of the shared address is this much over 100.
const SHARED: u8 = 10;

/// The n-th device on a segment, with a seed.
fn device(segment: &Segment, number: u8, seed: &str) -> Device {
    with_seed(&options(&target(), segment, number).unwrap(), number, seed)
}

fn target() -> Target {
    Target::load(&qemu::for_control_plane(TARGET).unwrap()).unwrap()
}

/// The n-th device with these options, and with a seed.
fn with_seed(options: &Options, number: u8, seed: &str) -> Device {
    let image = DiskImage::open(&qemu::image_of(&target().name).unwrap()).unwrap();
    let device = Device::new(&image, options).unwrap();
    device.disk().put_seed(&format!("{seed}{}", network(number))).unwrap();
    device
}

/// Switches it on, and waits until it is sealed; the name of its node.
fn run(device: &mut Device) -> String {
    scenario::run_to_seal(device, &Progress::default(), SEALED).unwrap()
}

/// As many control planes as `FIRSTBOOT_CONTROL_PLANES` says, three at most: one loses its power, then all do, then one
/// leaves.
#[test]
#[ignore = "boots up to three guests at once"]
fn control_planes_share_an_address() {
    let count: u8 = std::env::var("FIRSTBOOT_CONTROL_PLANES").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut all = Shared::new(count);
    all.ready(1..=count);
    println!("{}", all.kubectl.run(&["get", "nodes", "-o", "wide"]).unwrap());
    if count > 2 {
        // The first one has had the address from the beginning, and none takes it from another.
        all.devices[0].power_cut().unwrap();
        println!("without its holder the address answers after {:.1} s", all.answers().as_secs_f64());
        all.devices[0].power_on().unwrap();
        all.ready(1..=count);
    }
    all.devices.iter_mut().for_each(|device| device.power_cut().unwrap());
    all.devices.iter_mut().for_each(|device| device.power_on().unwrap());
    println!("after a power cut of all the address answers after {:.1} s", all.answers().as_secs_f64());
    all.ready(1..=count);
    // The last one leaves: etcd goes on with the members that are left, all of which it needs where there were two.
    let last = all.devices.last_mut().unwrap();
    last.power_off(OFF).unwrap();
    last.disk().put_seed("version = 1\nreset = true\n").unwrap();
    last.power_on().unwrap();
    last.wait_console("reset done: this device waits for a seed", SEALED).unwrap();
    let console = last.console().text().unwrap();
    assert!(!console.contains("reset: leave etcd") && !console.contains("etcd ends with this device"), "{console}");
    last.power_off(OFF).unwrap();
    println!("after one has left the address answers after {:.1} s", all.answers().as_secs_f64());
    all.ready(1..count);
    let claims = all.segment.claims();
    let twice = longest_overlap(&claims);
    println!(
        "{} advertisements; the address was on two devices for {:.1} s at most",
        claims.len(),
        twice.as_secs_f64()
    );
    assert!(!claims.is_empty() && twice <= Duration::from_secs(3), "{twice:?}: {claims:?}");
}

/// The scenario of `make demo CLUSTER=1`.
#[test]
#[ignore = "boots two guests"]
fn two_cards_become_a_cluster() {
    let report = tempfile::tempdir().unwrap();
    let verdict = qemu::cluster::run(TARGET, &report.path().join("cluster.json"), &mut Progress::default()).unwrap();
    println!("{verdict}");
}

/// The CA of the cluster by the seed for the next device; none where there is no such seed.
fn ca(disk: &DiskImage) -> Option<Trust> {
    let text = disk.boot().unwrap().read(JOIN_SEED).unwrap()?;
    let seed = firstboot::seed::parse(&text).unwrap();
    assert!(seed.token().is_some());
    Some(seed.join().unwrap().trust.clone())
}

/// Whether a disk as a power cut left it says that the cluster is there, in what can be read of it before its repair.
fn is_created(disk: &DiskImage) -> bool {
    let journal = disk.read_file("/var/lib/firstboot/journal").ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&journal).contains("\"cluster-created\"")
}

/// A device boots from the disk that a power cut left, and ends with a cluster: the same, where there was one.
fn ends_with_a_cluster(disk: &DiskImage, cluster: &Trust) -> anyhow::Result<()> {
    let created = is_created(disk);
    let segment = segment();
    let mut device = Device::new(disk, &options(&target(), &segment, 1)?)?;
    device.power_on()?;
    device.wait_status("state: joined", SEALED)?;
    let api = format!("https://{}", segment.reach(address(1), 6443)?);
    let ready = wait::every(Duration::from_secs(1), "the API server, and the seed to be gone", SEALED, || {
        device.check()?;
        let answers = std::process::Command::new("python3").args(["-c", READY, &api, "5"]).output()?.status.success();
        Ok((answers && !device.disk().seed_present()?).then_some(()))
    });
    ready.map_err(|error| error.context(device.report()))?;
    device.power_cut()?;
    let now = ca(device.disk()).context("find the seed for the next device")?;
    ensure!(!created || now == *cluster, "find the cluster that there was: its CA is another one");
    Ok(())
}

/// Whenever the power goes while a cluster is created, and whatever of the last writes is lost, the device ends with one
/// cluster, and with the one that there was. `FIRSTBOOT_CUTS` is how many moments are booted.
#[test]
#[ignore = "boots a guest for each cut"]
fn power_cuts_while_a_cluster_is_created() {
    let cuts = std::env::var("FIRSTBOOT_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let dir = RunDir::new("cuts").unwrap();
    let segment = segment();
    let options = Options { record: true, ..options(&target(), &segment, 1).unwrap() };
    let mut device = with_seed(&options, 1, "version = 1\n[cluster]\ncreate = true\n");
    let before = device.disk().copy(&dir.path().join("before.img"), 0).unwrap();
    device.power_on().unwrap();
    device.wait_console("phase 11/18 images done", BEGUN).unwrap();
    let begun = device.recording().unwrap().flushes();
    scenario::wait_sealed(&device, &Progress::default(), SEALED).unwrap();
    device.power_off(OFF).unwrap();
    let cluster = ca(device.disk()).unwrap();
    assert!(is_created(device.disk()));
    let flushes = device.recording().unwrap().flushes();
    println!("{begun} flushes until the phase create, {flushes} until the device was switched off");

    let mut all = moments(flushes - begun, cuts, &mut fastrand::Rng::with_seed(1));
    all.iter_mut().for_each(|moment| moment.flushes += begun);
    let replay = Replay::new(&before, device.recording().unwrap()).unwrap();
    let (mut progress, mut failures) = (Progress::default(), Vec::new());
    let one = |disk: &DiskImage| ends_with_a_cluster(disk, &cluster);
    let at = dir.path().join("at.img");
    let how = ["booted", "one cluster"];
    let converged = each_moment(replay, &all, &at, how, &mut progress, &mut failures, &one).unwrap();
    assert_eq!(failures, [""; 0]);
    assert_eq!(converged, all.len());
}

/// A device that created its cluster and then ran this script, until it said `end`; switched off.
fn ran(script: &str, end: &str, limit: Duration) -> Device {
    let segment = segment();
    let mut device = creator(&segment, "");
    let created = format!(
        "out={FOUND}\nmkdir -p $out\n\
         until grep -q '\"joined\"' /var/lib/firstboot/status.json 2>/dev/null; do sleep 1; done\n"
    );
    add_script(device.disk(), &format!("{created}{script}")).unwrap();
    run(&mut device);
    device.wait_console(end, limit).unwrap();
    device.power_off(OFF).unwrap();
    device
}

/// What kubeadm says of it. Before it plans it has a pod run, and gives that a minute: more than once where all is emulated.
const KUBEADM: &str = r#"
said() { name=$1; shift; "$@" >$out/$name 2>&1; echo "exit $?" >>$out/$name; }
said certificates kubeadm certs check-expiration
said tokens kubeadm token list
for try in $(seq 5); do
  said plan kubeadm upgrade plan "$(kubelet --version | cut -d' ' -f2)"
  tail -1 $out/plan | grep -q 'exit 0' && break
done
sync
echo "test: kubeadm was asked"
"#;

/// kubeadm takes the cluster for one of its own; what it is made of, `plain_kubeadm.rs` compares. Sections 1 to 3 of the CIS
/// Kubernetes Benchmark: nothing fails, and the warnings are those of docs/hardening.md.
#[test]
#[ignore = "boots a guest"]
fn kubeadm_knows_the_cluster() {
    let device = ran(&format!("{}{KUBEADM}", cis::control_plane::SCRIPT), "test: kubeadm was asked", SEALED);
    let said = |name: &str| found(&device, name).unwrap();
    let facts = cis::control_plane::Facts::new(said);
    cis::expect(&cis::verdicts(cis::control_plane::CHECKS, &facts), &cis::control_plane::WARNED);
    for name in ["certificates", "tokens", "plan"] {
        let text = said(name);
        assert!(text.ends_with("exit 0\n"), "{name}: {text}");
    }
    let certificates = said("certificates");
    for name in ["admin.conf", "apiserver", "apiserver-kubelet-client", "etcd-server", "front-proxy-client", "ca"] {
        assert!(certificates.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {certificates}");
    }
    let tokens = said("tokens");
    assert!(tokens.contains("firstboot: join-edge.toml") && tokens.contains("authentication,signing"), "{tokens}");
    // Of the image's own version there is nothing to upgrade.
    assert!(said("plan").contains("[upgrade/versions] Cluster version: "), "{}", said("plan"));
}

/// What the cluster takes of the device in ten minutes, two minutes after it is there.
const AT_REST: &str = r#"
disk=/sys/class/block/$(lsblk --noheadings --output PKNAME "$(findmnt --noheadings --output SOURCE /var)")/stat
state() {
  date +%s; head -1 /proc/stat; cat $disk; grep -E '^(MemTotal|MemAvailable):' /proc/meminfo
  awk '{ticks[$2] += $14 + $15} END {for (name in ticks) print "ticks", name, ticks[name]}' /proc/[0-9]*/stat
}
sleep 120
state >$out/before
sleep 600
state >$out/after
sync
echo "test: it was at rest"
"#;

/// Prints what a cluster that does nothing takes of the device: memory, blocks that are written, processor time.
#[test]
#[ignore = "boots a guest for twenty minutes"]
fn a_cluster_at_rest_takes_little() {
    let device = ran(AT_REST, "test: it was at rest", SEALED);
    let (before, after) = ["before", "after"].map(|name| found(&device, name).unwrap()).into();
    println!("{before}{after}");
    let seconds = |text: &str| text.lines().next().and_then(|line| line.parse::<f64>().ok()).unwrap();
    let passed = seconds(&after) - seconds(&before);
    let begun = ticks(&before);
    for (name, ticks) in ticks(&after) {
        // 100 a second (sysconf(_SC_CLK_TCK)).
        let used = (ticks - begun.get(name).unwrap_or(&0.0)) / passed;
        if used >= 0.1 {
            println!("{name}: {used:.1} % of a processor");
        }
    }
}

/// Processor time of the processes of each name, in ticks.
fn ticks(state: &str) -> BTreeMap<&str, f64> {
    let lines = state.lines().filter_map(|line| line.strip_prefix("ticks ")?.rsplit_once(' '));
    lines.map(|(name, ticks)| (name, ticks.parse().unwrap())).collect()
}

/// A seed alone does not end a cluster by mistake; where it is meant, the device waits for a seed again.
#[test]
#[ignore = "boots a guest four times"]
fn a_cluster_ends_only_where_that_is_said() {
    let segment = segment();
    let mut device = creator(&segment, "[node]\ncni = \"bridge\"\n");
    run(&mut device);
    device.power_off(OFF).unwrap();
    device.disk().put_seed("version = 1\nreset = true\n").unwrap();
    device.power_on().unwrap();
    // It waits until its own API server answers.
    device.wait_console("write reset = \"destroy-cluster\" where that is meant", SEALED).unwrap();
    device.power_off(OFF).unwrap();
    device.disk().put_seed("version = 1\nreset = \"destroy-cluster\"\n").unwrap();
    device.power_on().unwrap();
    device.wait_console("waits for a seed", SEALED).unwrap();
}

/// A device that was off for twenty hours: half of the token's life is over.
#[test]
#[ignore = "boots a guest twice"]
fn the_seed_for_the_next_device_is_renewed() {
    let segment = segment();
    let mut device = creator(&segment, "");
    run(&mut device);
    device.power_off(OFF).unwrap();
    let read = |device: &Device| device.while_paused(|disk| disk.boot()?.read(JOIN_SEED)).unwrap().unwrap();
    let before = device.disk().boot().unwrap().read(JOIN_SEED).unwrap().unwrap();
    let later = SystemTime::now() + Duration::from_secs(20 * 3600);
    let later = later.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    device.set_clock(firstboot::text::timestamp(later).trim_end_matches('Z'));
    device.power_on().unwrap();
    let renewed = wait::every(Duration::from_secs(10), "another token in the seed for the next device", SEALED, || {
        device.check()?;
        Ok(Some(read(&device)).filter(|now| *now != before))
    });
    let renewed = firstboot::seed::parse(&renewed.unwrap()).unwrap();
    let ends = renewed.join().unwrap().token_expires.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(ends.as_secs() > later + 23 * 3600, "{} {later}", ends.as_secs());
}

/// Without a clock chip and without a time source, what the device makes begins when its image was built.
#[test]
#[ignore = "boots a guest"]
fn a_cluster_of_1970_has_the_time_of_the_image() {
    let segment = segment();
    let mut device = creator(&segment, "");
    device.set_clock("1970-01-01T00:00:00");
    run(&mut device);
    let joins = device.while_paused(|disk| disk.boot()?.read(JOIN_SEED)).unwrap().unwrap();
    let ends = firstboot::seed::parse(&joins).unwrap().join().unwrap().token_expires.unwrap();
    // No image of this release is older than 2026.
    assert!(ends > SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600), "{ends:?}");
}

/// The lines of docs/clusters.md, Backup and restore, in their three parts.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(imagebuild::repo::root().unwrap().join("docs/clusters.md")).unwrap();
    let section = text.split("\n## Backup and restore\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut parts = vec![String::new()];
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(command) => parts.last_mut().unwrap().extend([command, "\n"]),
            None if parts.last().is_some_and(|part| !part.is_empty()) => parts.push(String::new()),
            None => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// kubeadm upgrades the cluster to its own version; then what is restored is what was there at the time of the backup.
#[test]
#[ignore = "boots a guest"]
fn a_backup_is_restored_and_kubeadm_upgrades() {
    let parts = documented();
    let [backup, restore, upgrade] = &parts[..] else { panic!("{parts:#?}") };
    // kubeadm has a pod run before it upgrades, and gives it a minute: more than once where all is emulated.
    let upgrade: String =
        upgrade.replace("\\\n", "").lines().map(|line| format!("until {line}; do sleep 10; done\n")).collect();
    let script = format!(
        "exec >>$out/log 2>&1\nset -ex\n\
         trap 'code=$?; set +x; echo exit $code; sync; echo test: the backup was tried >/dev/console' EXIT\n\
         {upgrade}kubeadm token create --description before\n(\n{backup})\n\
         kubeadm token create --description after\nkubeadm token list >$out/whole\n(\n{restore})\n\
         until kubeadm token list >$out/restored; do sleep 5; done\n"
    );
    let device = ran(&script, "test: the backup was tried", 2 * SEALED);
    let log = found(&device, "log").unwrap();
    assert!(log.ends_with("exit 0\n"), "{log}");
    let [whole, restored] = ["whole", "restored"].map(|name| found(&device, name).unwrap());
    assert!(whole.contains(" before ") && whole.contains(" after "), "{whole}");
    assert!(restored.contains(" before ") && !restored.contains(" after "), "{restored}");
    assert!(log.contains("SUCCESS! A control plane node of your cluster was upgraded"), "{log}");
}
