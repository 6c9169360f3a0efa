// SPDX-License-Identifier: Apache-2.0
//! A relay between two real sockets.

use super::*;
use std::path::Path;

/// Both ends, played by this test, and the relay between them.
struct Bench {
    relay: Relay,
    device: (UnixDatagram, PathBuf),
    network: (UnixDatagram, PathBuf),
}

fn bench(dir: &Path, conditions: Conditions) -> Bench {
    let ends = |name: &str| Ends { relay: dir.join(format!("{name}-relay")), peer: dir.join(name) };
    let (device, network) = (ends("device"), ends("network"));
    let open = |ends: &Ends| {
        let socket = UnixDatagram::bind(&ends.peer).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    };
    let (near, far) = (open(&device), open(&network));
    let relay = Relay::start(&device, &network, conditions).unwrap();
    Bench { relay, device: (near, device.relay), network: (far, network.relay) }
}

fn frame(number: u8) -> Vec<u8> {
    [&[9; 14][..], &[number; 50]].concat()
}

fn get(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; frame::LARGEST];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn settled(relay: &Relay, frames: u64) -> Counts {
    crate::wait::until("every frame to be counted", Duration::from_secs(10), || {
        let c = relay.counts();
        Ok((c.carried + c.lost + c.foreign + c.undelivered == frames).then_some(c))
    })
    .unwrap()
}

#[test]
fn frames_go_both_ways_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path(), Conditions::default());
    for number in 0..100 {
        bench.device.0.send_to(&frame(number), &bench.device.1).unwrap();
        assert_eq!(get(&bench.network.0), frame(number));
    }
    let large = vec![1; 65_000];
    bench.network.0.send_to(&large, &bench.network.1).unwrap();
    assert_eq!(get(&bench.device.0), large);
    assert_eq!(settled(&bench.relay, 101), Counts { carried: 101, lost: 0, foreign: 0, undelivered: 0 });
}

#[test]
fn loss_shows_in_the_counts_and_at_the_other_end() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path(), Conditions { loss: 30, ..Conditions::default() });
    let (socket, relay) = (bench.device.0.try_clone().unwrap(), bench.device.1.clone());
    let sender = std::thread::spawn(move || {
        for number in 0..=255 {
            socket.send_to(&frame(number), &relay).unwrap();
        }
    });
    let mut lane = Lane::new(Conditions { loss: 30, ..Conditions::default() }, Direction::Out);
    for number in 0..=255 {
        if let Fate::Carried(bytes) = lane.fate(&frame(number)) {
            assert_eq!(get(&bench.network.0), bytes);
        }
    }
    sender.join().unwrap();
    let counts = settled(&bench.relay, 256);
    assert!((50..=105).contains(&counts.lost), "{counts:?}");
    assert_eq!(counts.carried, 256 - counts.lost);
}

#[test]
fn latency_delays_and_keeps_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let latency = Duration::from_millis(300);
    let bench = bench(dir.path(), Conditions { latency, ..Conditions::default() });
    let start = Instant::now();
    for number in 0..5 {
        bench.network.0.send_to(&frame(number), &bench.network.1).unwrap();
    }
    for number in 0..5 {
        assert_eq!(get(&bench.device.0), frame(number));
        assert!(start.elapsed() >= latency);
    }
}

#[test]
fn a_vlan_is_tagged_towards_the_device_only() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path(), Conditions { vlan: Some(42), ..Conditions::default() });
    bench.device.0.send_to(&frame(1), &bench.device.1).unwrap();
    bench.network.0.send_to(&frame(2), &bench.network.1).unwrap();
    let inside = get(&bench.device.0);
    assert_eq!(inside, frame::tagged(&frame(2), 42).unwrap());
    bench.device.0.send_to(&inside, &bench.device.1).unwrap();
    assert_eq!(get(&bench.network.0), frame(2));
    assert_eq!(settled(&bench.relay, 3), Counts { carried: 2, lost: 0, foreign: 1, undelivered: 0 });
}

#[test]
fn an_end_that_is_not_there_gets_nothing_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(dir.path(), Conditions::default());
    std::fs::remove_file(dir.path().join("network")).unwrap();
    bench.device.0.send_to(&frame(1), &bench.device.1).unwrap();
    assert_eq!(settled(&bench.relay, 1), Counts { carried: 0, lost: 0, foreign: 0, undelivered: 1 });
    let back = UnixDatagram::bind(dir.path().join("network")).unwrap();
    back.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    bench.device.0.send_to(&frame(2), &bench.device.1).unwrap();
    assert_eq!(get(&back), frame(2));
    // Dropping it does not hang.
    drop(bench.relay);
}
