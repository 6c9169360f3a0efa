// SPDX-License-Identifier: Apache-2.0
//! Clusters that devices create themselves, on emulated hardware. Each takes many minutes: `make test-long`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use firstboot::boot_partition::JOIN_SEED;
use imagebuild::target::Target;
use qemu::cluster::{SEALED, address, network, options};
use qemu::device::Device;
use qemu::disk::DiskImage;
use qemu::link::segment::Segment;
use qemu::progress::Progress;
use qemu::{scenario, wait};
use std::time::{Duration, SystemTime};

const TARGET: &str = "generic-amd64";
const OFF: Duration = Duration::from_secs(180);
/// Until the phase `create` begins.
const BEGUN: Duration = Duration::from_secs(300);

/// A device that creates its cluster by this seed, switched off.
fn creator(segment: &Segment, more: &str) -> Device {
    let name = qemu::for_control_plane(TARGET).unwrap();
    let image = DiskImage::open(&qemu::image_of(&name).unwrap()).unwrap();
    let device = Device::new(&image, &options(&Target::load(&name).unwrap(), segment, 1).unwrap()).unwrap();
    let seed = format!("version = 1\n[cluster]\ncreate = true\n{more}{}", network(1));
    device.disk().put_seed(&seed).unwrap();
    device
}

fn segment() -> Segment {
    Segment::new(2, &[(address(1), 6443)]).unwrap()
}

/// The scenario of `make demo CLUSTER=1`.
#[test]
#[ignore = "boots two guests"]
fn two_cards_become_a_cluster() {
    let report = tempfile::tempdir().unwrap();
    let verdict = qemu::cluster::run(TARGET, &report.path().join("cluster.json"), &mut Progress::default()).unwrap();
    println!("{verdict}");
}

/// Whenever the power goes, the device ends with one cluster. `FIRSTBOOT_CUTS` is how many moments are tried.
#[test]
#[ignore = "boots a guest twice for each cut"]
fn power_cuts_while_a_cluster_is_created() {
    let cuts: u64 = std::env::var("FIRSTBOOT_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    println!("moments by seed {seed}");
    for cut in 0..cuts {
        let segment = segment();
        let mut device = creator(&segment, "");
        device.power_on().unwrap();
        device.wait_console("phase 11/17 images done", BEGUN).unwrap();
        // Pseudo-random, and different for each cut (Knuth, multiplicative hashing).
        let after = Duration::from_secs(((seed + cut).wrapping_mul(2_654_435_761) >> 7) % 240);
        let until = std::time::Instant::now() + after;
        wait::until("the moment of the cut", after + OFF, || {
            device.check()?;
            Ok((std::time::Instant::now() >= until).then_some(()))
        })
        .unwrap();
        device.power_cut().unwrap();
        println!("cut {cut}: {} s into the phase create", after.as_secs());
        let node = scenario::run_to_seal(&mut device, &Progress::default(), SEALED).unwrap();
        assert_eq!(node, "edge-card-1");
        let joins = device.while_paused(|disk| disk.boot()?.read(JOIN_SEED)).unwrap().unwrap();
        assert!(firstboot::seed::parse(&joins).unwrap().token().is_some());
    }
}

/// A seed alone does not end a cluster by mistake; where it is meant, the device waits for a seed again.
#[test]
#[ignore = "boots a guest four times"]
fn a_cluster_ends_only_where_that_is_said() {
    let segment = segment();
    let mut device = creator(&segment, "[node]\ncni = \"bridge\"\n");
    scenario::run_to_seal(&mut device, &Progress::default(), SEALED).unwrap();
    device.power_off(OFF).unwrap();
    device.disk().put_seed("version = 1\nreset = true\n").unwrap();
    device.power_on().unwrap();
    device.wait_console("write reset = \"destroy-cluster\" where that is meant", BEGUN).unwrap();
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
    scenario::run_to_seal(&mut device, &Progress::default(), SEALED).unwrap();
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
