// SPDX-License-Identifier: Apache-2.0
//! One join, measured from "runtime answers" on. All times are taken on the build machine, by the same clock and in
//! the same way for both programs: when a line appears on the console, when the API server reports the node as
//! Ready.

use super::Program;
use crate::control_plane::{ControlPlane, audit};
use crate::device::{Device, Options};
use crate::disk::DiskImage;
use crate::seed::{Seed, secret_of};
use crate::{search, wait};
use anyhow::{Context, Result, bail};
use imagebuild::arch::Arch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const BOOT: Duration = Duration::from_secs(900);
const JOIN: Duration = Duration::from_secs(600);
const OFF: Duration = Duration::from_secs(120);
/// How exact times are.
const POLL: Duration = Duration::from_millis(50);
const SCRIPT: &str = include_str!("guest.pl");
const UNIT: &str = "\
[Unit]
Description=Measure a join
After=firstboot-guard.service dbus.service

[Service]
Type=exec
ExecStart=/usr/bin/perl /etc/bench.pl
ImportCredential=bench.*
StandardOutput=journal+console
StandardError=journal+console
";
/// The same for both programs, and installed before either starts, so that installing it is not measured.
const POD_NETWORK: &str = r#"{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"bridge","bridge":"cni0",
"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables","ipam":{"type":"host-local",
"ranges":[[{"subnet":"10.244.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}"#;

/// What was measured of one join.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Which program joined.
    pub program: Program,
    /// Seconds until the program said that it had a certificate.
    pub certificate: f64,
    /// Seconds until it found kubelet healthy.
    pub kubelet_healthy: f64,
    /// Seconds until the API server knew the node as Ready.
    pub ready: f64,
    /// CPU seconds of the program and what it ran.
    pub cpu: f64,
    /// Peak resident memory of the program, MiB.
    pub peak_mib: f64,
    /// Requests without a certificate: distinct audit ids of anonymous and bootstrap identities.
    pub requests: usize,
    /// SeedLocator on the raw disk that hold the token's secret after the device was switched off.
    pub token_places: usize,
    /// Seconds of the phases `bundle` and `runtime`, which the device does before either program.
    pub install: f64,
}

/// Boots a fresh device and lets `program` join.
pub fn take(plane: &ControlPlane, image: &DiskImage, arch: Arch, program: Program) -> Result<Sample> {
    let token = plane.create_token("1h")?;
    // kubeadm's token reaches the device in memory only; the seed, which `--until runtime` needs, has another.
    let seed_token = if program == Program::Firstboot { token.clone() } else { plane.create_token("1h")? };
    let mut seed = Seed::for_guest(plane, &seed_token)?;
    seed.more = "\n[node]\ncni = \"none\"\n".to_owned();
    let name = "edge-bench";
    let join = match program {
        Program::Firstboot => "/usr/bin/firstboot --until ready".to_owned(),
        Program::Kubeadm => format!(
            "/usr/bin/kubeadm join {} --token {token} --discovery-token-ca-cert-hash {} --node-name {name} \
             --cri-socket unix:///run/containerd/containerd.sock",
            plane.endpoint_for_guest(),
            plane.ca_pin()?
        ),
    };
    let options = Options {
        serial: Some("bench".to_owned()),
        credentials: vec![("bench.join".to_owned(), join)],
        ..Options::new(arch)
    };
    let mut device = Device::new(image, &options)?;
    prepare(device.disk(), &seed.text())?;
    let before = requests(plane)?;
    device.power_on()?;
    let times = times(plane, &device, name, program)?;
    let requests = requests(plane)? - before;
    let (install, end) = said(&device)?;
    device.power_off(OFF)?;
    let token_places = search::find(device.disk().path(), secret_of(&token))?.len();
    plane.forget_nodes()?;
    let [certificate, kubelet_healthy, ready] = times;
    let (cpu, peak_mib) = end;
    Ok(Sample { program, certificate, kubelet_healthy, ready, cpu, peak_mib, requests, token_places, install })
}

/// Replaces firstboot's unit by the measuring unit.
fn prepare(disk: &DiskImage, seed: &str) -> Result<()> {
    disk.put_seed(seed)?;
    disk.prepare_data()?;
    disk.write_file("/etc/bench.pl", SCRIPT.as_bytes(), 0o755)?;
    disk.write_file("/etc/systemd/system/bench.service", UNIT.as_bytes(), 0o644)?;
    disk.link_file("/etc/systemd/system/multi-user.target.wants/bench.service", "../bench.service")?;
    disk.link_file("/etc/systemd/system/firstboot.service", "/dev/null")?;
    disk.write_file("/etc/cni/net.d/10-bench.conflist", POD_NETWORK.as_bytes(), 0o644)
}

fn requests(plane: &ControlPlane) -> Result<usize> {
    Ok(audit::requests(&plane.audit()?, audit::is_joining).len())
}

/// Seconds from the start of the program to its certificate, to a healthy kubelet, to Ready.
fn times(plane: &ControlPlane, device: &Device, name: &str, program: Program) -> Result<[f64; 3]> {
    let see = |part: &str, limit| {
        wait::every(POLL, &format!("`{part}` on the console"), limit, || {
            device.check()?;
            if let Some(line) = device.console().find("bench: failed")? {
                bail!("measure: {line}");
            }
            Ok(device.console().find(part)?.map(|_| Instant::now()))
        })
        .map_err(|e| e.context(device.report()))
    };
    let start = see("bench: start", BOOT)?;
    let (certificate, healthy) = match program {
        Program::Firstboot => (" join done ", " kubelet done "),
        Program::Kubeadm => ("This node has joined the cluster", "The kubelet is healthy after"),
    };
    let seen: Mutex<BTreeMap<usize, Instant>> = Mutex::new(BTreeMap::new());
    let note = |index: usize, at: Instant| {
        if let Ok(mut seen) = seen.lock() {
            seen.insert(index, at);
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let ready = scope.spawn(|| -> Result<()> {
            plane.wait_ready(name, JOIN)?;
            note(2, Instant::now());
            Ok(())
        });
        let console = scope.spawn(|| see(certificate, JOIN).map(|at| note(0, at)));
        note(1, see(healthy, JOIN)?);
        see("bench: end", JOIN)?;
        console.join().unwrap_or_else(|_| bail!("watch the console"))?;
        ready.join().unwrap_or_else(|_| bail!("watch the node")).map_err(|e| e.context(device.report()))
    })?;
    let seen = seen.into_inner().ok().context("read times")?;
    let mut times = [0.0; 3];
    for (index, time) in times.iter_mut().enumerate() {
        *time = seen.get(&index).context("read a time")?.duration_since(start).as_secs_f64();
    }
    Ok(times)
}

/// Seconds of what comes before; CPU seconds and peak memory of the program.
fn said(device: &Device) -> Result<(f64, (f64, f64))> {
    let phase = |name: &str| -> Result<f64> {
        let line = device.console().find(&format!(" {name} done "))?.with_context(|| format!("find phase {name}"))?;
        let seconds = line.split(" done ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        seconds.parse().with_context(|| format!("read the seconds of phase {name}"))
    };
    let line = device.console().find("bench: end")?.context("find the end of the join")?;
    let value = |key: &str| -> Result<f64> {
        let found = line.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        found.with_context(|| format!("find {key}"))?.parse().with_context(|| format!("read {key}"))
    };
    if value("code")? != 0.0 {
        bail!("join: {}\n{}", line.trim(), device.report());
    }
    Ok((phase("bundle")? + phase("runtime")?, (value("cpu")?, value("peak")? / 1024.0)))
}
