// SPDX-License-Identifier: Apache-2.0
//! What firstboot accepts in a seed, the programs of a device accept too, and read in the same way: random seeds, each
//! program with what firstboot writes for it. Boots no guest.

#![allow(clippy::unwrap_used)]

use e2e::consumers::{Accepted, Finding, Sample, judges, programs, sample};
use std::sync::OnceLock;

/// Where the random numbers begin in `make test`.
const START: u64 = 19;

fn of_this_run() -> &'static [Accepted] {
    static SAMPLE: OnceLock<Vec<Accepted>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let Sample { made, accepted, sample } = sample(START, 30_000, 1000).unwrap();
        println!("{made} seeds made, {accepted} accepted, {} given to each program", sample.len());
        assert_eq!(sample.len(), 1000, "too few seeds are accepted");
        sample
    })
}

/// Fails with each kind of finding once.
fn none(findings: Vec<Finding>) {
    let mut shown: Vec<String> = Vec::new();
    for Finding { program, why, seed } in &findings {
        let head = format!("{program}: {}", why.chars().take(60).collect::<String>());
        if !shown.iter().any(|text| text.starts_with(&head)) {
            shown.push(format!("{program}: {why}\n{seed}"));
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), shown.join("\n"));
}

#[test]
fn kubelet_and_go() {
    none(judges::kubelet(of_this_run()).unwrap());
}

#[test]
fn containerd() {
    none(judges::containerd(of_this_run()).unwrap());
}

#[test]
fn sshd() {
    if e2e::can_log_in() {
        none(programs::sshd(&imagebuild::setup::sshd().unwrap(), of_this_run()).unwrap());
    }
}

#[test]
fn wpa_supplicant() {
    none(programs::wpa_supplicant(&imagebuild::setup::wpa_supplicant().unwrap(), &of_this_run()[..300]).unwrap());
}

#[test]
fn systemd_networkd() {
    if e2e::can_run_networkd() {
        none(programs::networkd(of_this_run()).unwrap());
    }
}

#[test]
fn nft() {
    if e2e::can_network() {
        none(programs::nft(&of_this_run()[..300]).unwrap());
    }
}

/// Ten million seeds, and ten thousand of those that are accepted to each program.
#[test]
#[ignore = "takes an hour"]
fn ten_million_seeds() {
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let each = |n: u64| std::thread::spawn(move || sample(n, 10_000_000 / threads, 10_000 / threads as usize).unwrap());
    let all: Vec<_> = (0..threads).map(each).collect();
    let samples: Vec<Sample> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (made, accepted): (u64, u64) = samples.iter().fold((0, 0), |sum, s| (sum.0 + s.made, sum.1 + s.accepted));
    let sample: Vec<Accepted> = samples.into_iter().flat_map(|s| s.sample).collect();
    println!("{made} seeds made, {accepted} accepted, {} given to each program", sample.len());
    let sshd = imagebuild::setup::sshd().unwrap();
    let wpa = imagebuild::setup::wpa_supplicant().unwrap();
    none(
        [
            judges::kubelet(&sample).unwrap(),
            judges::containerd(&sample).unwrap(),
            programs::sshd(&sshd, &sample).unwrap(),
            programs::wpa_supplicant(&wpa, &sample).unwrap(),
            programs::networkd(&sample).unwrap(),
            programs::nft(&sample).unwrap(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    );
}
