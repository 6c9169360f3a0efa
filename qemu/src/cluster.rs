// SPDX-License-Identifier: Apache-2.0
//! `make demo CLUSTER=1`: a cluster from two cards. The first device creates it by the seed of `imagebuild cluster new`, the
//! second one joins by the seed that the first one leaves on its card; two pods on different nodes find each other by name.

use crate::control_plane::is_ready;
use crate::device::{Device, Options};
use crate::disk::DiskImage;
use crate::kubectl::Kubectl;
use crate::link::segment::Segment;
use crate::pods::{self, Answer};
use crate::progress::{Progress, rounded};
use crate::run_dir::RunDir;
use crate::scenario;
use crate::seed::secret_of;
use crate::status::{self, PhaseTime};
use crate::{search, wait};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use firstboot::boot_partition::JOIN_SEED;
use imagebuild::target::Target;
use serde::Serialize;
use serde_json::json;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

/// The address of the n-th device; QEMU's DHCP server gives out others.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, 100 + number)
}

/// `[network]` of the n-th device: an address of its own, as a control plane needs one.
pub fn network(number: u8) -> String {
    format!("\n[network]\naddresses = \"{}/24\"\ngateway = \"10.0.2.2\"\ndns = \"10.0.2.3\"\n", address(number))
}

/// Options of the n-th device on a segment.
///
/// # Errors
/// When the segment has no place for it.
pub fn options(target: &Target, segment: &Segment, number: u8) -> Result<Options> {
    Ok(Options {
        serial: Some(format!("card-{number}")),
        mac: format!("52:54:00:12:34:{:02x}", 0x60 + number),
        link: segment.socket(usize::from(number) - 1)?,
        ..Options::for_target(target)
    })
}

/// Deadlines: they only end what hangs.
/// Longest wait for a device on a segment until its seed is destroyed: a control plane alone takes minutes of emulation.
pub const SEALED: Duration = Duration::from_secs(1800);
const PODS: Duration = Duration::from_secs(600);
const OFF: Duration = Duration::from_secs(180);

/// `out/demo/cluster.json`.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    accelerator: &'static str,
    nodes: Vec<String>,
    by_service_name: Answer,
    secrets_on_boot_partitions: usize,
    join_token_bytes_on_second_disk: usize,
    stages: Vec<PhaseTime>,
    phases_of_creator: Vec<PhaseTime>,
    phases_of_second: Vec<PhaseTime>,
    seconds: f64,
    image_bytes: u64,
}

/// Runs it; returns the verdict.
///
/// # Errors
/// What failed, with what the device showed.
pub fn run(name: &str, report: &Path, progress: &mut Progress) -> Result<String> {
    let target = Target::load(name)?;
    progress.stage("image", &format!("image for target {name} with a control plane: building what has changed"));
    let image = DiskImage::open(&crate::image_of(&crate::for_control_plane(name)?)?)?;
    let dir = RunDir::new("cluster")?;
    let segment = Segment::new(2, &[(address(1), 6443)])?;
    progress.stage("seed", "imagebuild cluster new: a key on this machine, a seed with its request");
    let files = dir.path().join("shop");
    let api = segment.reach(address(1), 6443)?;
    imagebuild(&["new", "--out", &shown(&files), "--name", "shop", "--cert-san", "127.0.0.1"])?;
    let seed = std::fs::read_to_string(files.join("seed.toml")).context("read the seed of the new cluster")?;

    progress.stage("create the cluster", "first device: power on");
    let mut first = Device::new(&image, &options(&target, &segment, 1)?)?;
    first.disk().put_seed(&format!("{seed}{}", network(1)))?;
    let accelerator = first.accelerator().name();
    let creator = scenario::run_to_seal(&mut first, progress, SEALED)?;
    let (kubeconfig, next) = (files.join("kubeconfig"), dir.path().join("next.toml"));
    first.while_paused(|disk| {
        let (card, key) = (shown(disk.path()), shown(&files.join("admin.key")));
        imagebuild(&["kubeconfig", &card, "--key", &key, "--server", &api, "--out", &shown(&kubeconfig)])?;
        imagebuild(&["join-seed", &card, "--out", &shown(&next)])
    })?;
    let joins = std::fs::read_to_string(&next).context("read the seed for the next device")?;
    let kubectl = Kubectl::of_lock(&kubeconfig, dir.path())?;

    progress.stage("join", &format!("second device: {JOIN_SEED} of the first one as its seed, power on"));
    let mut second = Device::new(&image, &options(&target, &segment, 2)?)?;
    second.disk().put_seed(&format!("{joins}{}", network(2)))?;
    let joined = scenario::run_to_seal(&mut second, progress, SEALED)?;
    let nodes = vec![creator, joined];
    for name in &nodes {
        wait::every(Duration::from_secs(2), &format!("node {name} to be Ready"), PODS, || {
            first.check()?;
            second.check()?;
            Ok(kubectl.get(&["node", name]).is_ok_and(|node| is_ready(&node)).then_some(()))
        })?;
    }

    progress.stage(
        "pods",
        &format!("a server on {}, and a pod on {} that asks it by its Service's name", nodes[1], nodes[0]),
    );
    let answer = ask(&kubectl, dir.path(), &nodes, &[&first, &second])?;
    println!("\n{}", kubectl.run(&["get", "nodes", "-o", "wide"])?);

    progress.stage("switch off and search", "both devices: power off; searching their disks");
    for device in [&mut second, &mut first] {
        device.power_off(OFF)?;
    }
    let token = token_of(&joins)?;
    let on_second = search::find(second.disk().path(), secret_of(&token))?;
    let left = secrets_left(&first, &second)?;
    progress.end();
    let phases = |device: &Device| -> Result<Vec<PhaseTime>> { Ok(status::phases(&device.disk().status()?)) };
    let report_text = Report {
        target: name.to_owned(),
        accelerator,
        by_service_name: answer,
        secrets_on_boot_partitions: left.len(),
        join_token_bytes_on_second_disk: on_second.len() * secret_of(&token).len(),
        stages: progress.times().to_vec(),
        phases_of_creator: phases(&first)?,
        phases_of_second: phases(&second)?,
        seconds: rounded(progress.elapsed()),
        image_bytes: std::fs::metadata(image.path()).context("measure the image")?.len(),
        nodes: nodes.clone(),
    };
    crate::write_report(report, &(serde_json::to_string_pretty(&report_text).context("encode the report")? + "\n"))?;
    ensure!(left.is_empty(), "keep secrets off the boot partitions: {}", left.join("; "));
    ensure!(on_second.is_empty(), "destroy the token of the second device: {} copies on its disk", on_second.len());
    let time = |name: &str| report_text.stages.iter().find(|s| s.name == name).map_or(0.0, |s| s.seconds);
    Ok(format!(
        "{} created a cluster in {:.0} s, {} joined it in {:.0} s by the seed that the first one left, and their pods find \
         each other by name",
        nodes[0],
        time("create the cluster"),
        nodes[1],
        time("join")
    ))
}

/// Runs `imagebuild cluster` with these words.
///
/// # Errors
/// Its own.
pub fn imagebuild(words: &[&str]) -> Result<()> {
    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        args: imagebuild::control_plane::Args,
    }
    let words = Words::try_parse_from(["imagebuild cluster"].iter().chain(words)).context("read the words")?;
    imagebuild::control_plane::main(&words.args)
}

/// A path as a word of a command.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A server on the second node, and a pod on the first one that asks it by its Service's name.
fn ask(kubectl: &Kubectl, dir: &Path, nodes: &[String], devices: &[&Device]) -> Result<Answer> {
    let mut objects = pods::manifests();
    let items = objects["items"].as_array_mut().context("read the pods' manifests")?;
    for (item, node) in items.iter_mut().skip(1).zip([&nodes[1], &nodes[0]]) {
        item["spec"]["nodeName"] = json!(node);
    }
    wait::every(Duration::from_secs(1), "the default service account", PODS, || {
        Ok(kubectl.run(&["get", "serviceaccount", "default", "-n", "default"]).ok())
    })?;
    wait::every(Duration::from_secs(5), "the pods to be created", PODS, || Ok(kubectl.apply(&objects, dir).ok()))?;
    let ended = wait::every(Duration::from_secs(1), "a pod to reach another one by name", PODS, || {
        devices.iter().try_for_each(|device| device.check())?;
        let pod = kubectl.get(&["pod", pods::CLIENT, "-n", "default"])?;
        let state = pod["status"]["containerStatuses"][0]["state"]["terminated"].clone();
        Ok((!state.is_null()).then_some(state))
    });
    let ended = ended.map_err(|error| {
        let show = |args: &[&str]| kubectl.run(args).unwrap_or_else(|e| format!("({e:#})"));
        let pods = show(&["get", "pods", "-A", "-o", "wide"]);
        let events = show(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        error.context(format!("--- pods\n{pods}--- events\n{events}---"))
    })?;
    let message = ended["message"].as_str().unwrap_or_default();
    if ended["exitCode"] != 0 {
        bail!("reach {} by its Service name: {message}", pods::SERVER);
    }
    let answer: Answer = serde_json::from_str(message).context("parse what the Service answered")?;
    ensure!(answer.node == nodes[1], "get an answer from {}: it came from {}", nodes[1], answer.node);
    Ok(answer)
}

/// The token in a seed.
fn token_of(seed: &str) -> Result<String> {
    let seed = firstboot::seed::parse(seed.as_bytes()).context("read the seed for the next device")?;
    Ok(seed.token().context("find the token in the seed for the next device")?.bearer().to_string())
}

/// Secrets of the cluster on the boot partitions: private keys, in PEM or in a kubeconfig, and tokens other than that of the
/// seed for the next device.
fn secrets_left(first: &Device, second: &Device) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (which, device) in [("first", first), ("second", second)] {
        let boot = device.disk().boot()?;
        for name in boot.list()? {
            let text = boot.read(&name)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            // The example on each card has the words without a value.
            let seed = firstboot::seed::parse(text.as_bytes()).ok();
            let token =
                name != JOIN_SEED && seed.is_some_and(|seed| seed.token().is_some_and(|token| !token.is_erased()));
            if text.contains("PRIVATE KEY") || text.contains("client-key-data") || token {
                left.push(format!("{name} of the {which} device holds one"));
            }
        }
        for word in ["PRIVATE KEY-----", "client-key-data"] {
            if !boot.scan(word)?.is_empty() {
                left.push(format!("the {which} device's boot partition holds \"{word}\""));
            }
        }
    }
    Ok(left)
}
