// SPDX-License-Identifier: Apache-2.0
//! A joined device from the position of a person at its USB port, with and without a say over its clock: whose seed is
//! obeyed. The numbers are those of the security review.

use super::table_tests::{DATA, DATE, Device, ROWS, applied_by, seed};
use super::*;
use crate::boot_partition::{BootPartition, Place, formatted_for_tests};
use crate::host::fake::{Fake, Recorded};
use crate::host::kept::VERIFIED_TIME;
use crate::kube::kubeconfig::kubelet_conf;
use crate::kube::pin;
use crate::kube::wire_tests::Ca;
use crate::paths::{CA_FILE, KUBELET_CONF};
use crate::reset::work_with;
use crate::run::facts::DeviceFacts;
use crate::run::guard::guard;
use crate::seed::ssh_signature::NAMESPACE;
use crate::seed::ssh_signature::tests::signed;
use crate::test_files::put_for_tests;
use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

/// 2040-01-01T00:00:00Z, by an NTP server that lies.
const IN_2040: u64 = 2_208_988_800;
const RESET: &str = "systemctl --no-block start firstboot-reset.service";

const RESTART: &str = "systemctl --no-block --job-mode=replace-irreversibly start reboot.target";
const OWNER: [u8; 32] = [7; 32];
const ALONE: &str = "version = 1\nreset = true\n";

/// A stick with this seed.
fn stick(device: &Device, text: &str) -> BootPartition {
    let path = device.disk.path().join("stick.img");
    let _ = std::fs::remove_file(&path);
    let stick = formatted_for_tests(&path, 0, 16 << 20).unwrap();
    stick.write("seed.toml", text.as_bytes()).unwrap();
    stick
}

/// The same with a signature by this key for this purpose.
fn signed_stick(device: &Device, text: &str, key: [u8; 32], namespace: &str) -> BootPartition {
    let stick = stick(device, text);
    stick.write("seed.toml.sig", signed(key, namespace, text.as_bytes()).1.as_bytes()).unwrap();
    stick
}

/// A device that has joined by a seed with this owner's key.
fn owned(until: i32) -> Device {
    let device = Device::sealed(until);
    device.on().0.note(Fact::OwnerKeys, &signed(OWNER, NAMESPACE, b"").0.to_string()).unwrap();
    device
}

/// A seed that trusts these CAs alone.
fn seed_for(cas: &[&Ca]) -> String {
    let pins: Vec<String> = cas.iter().map(|ca| format!("\"{}\"", pin_of(ca))).collect();
    let zeros = format!("\"sha256:{}\"", "0".repeat(64));
    seed("bbbbbb", "").replace(&zeros, &format!("[{}]", pins.join(", ")))
}

fn pin_of(ca: &Ca) -> String {
    pin::pin_of(&ca.trusted()[0]).unwrap().to_string()
}

/// One boot at this time, with this stick plugged in; some looks at a card without a seed end it.
fn boots(device: &Device, stick: Option<&BootPartition>, clock: u64) -> (Result<(), Fault>, Rc<Recorded>) {
    let (fake, seen) = Fake::new();
    seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(clock)));
    let fake = fake.answering(|argv| match argv {
        ["systemctl", "show", ..] => Some(Ok("ActiveState=active\nNRestarts=0\n".into())),
        _ => None,
    });
    let looks = Cell::new(0);
    let places = |_: &str| {
        looks.set(looks.get() + 1);
        anyhow::ensure!(looks.get() < 9, "no seed is added");
        let boot = Place { partition: device.boot.clone(), removable: false };
        let stick = stick.map(|stick| Place { partition: stick.clone(), removable: true });
        Ok(std::iter::once(boot).chain(stick).collect())
    };
    (run_with(&device.root(), Box::new(fake), None, &ROWS, &places, &|_, _| Ok(Vec::new())), seen)
}

/// The cluster gives no answer any more.
fn silence(device: &Device) {
    let (host, _) = device.on();
    host.write(KUBELET_CONF, kubelet_conf("https://127.0.0.1:1", &device.ca.pem).as_bytes(), 0o600).unwrap();
}

/// Nothing was done by a seed: the device is what it was.
fn is_untouched(device: &Device, seen: &Recorded) {
    let commands = seen.commands.borrow().clone();
    assert!(!commands.iter().any(|c| c == RESET || c.starts_with("apply")), "{commands:#?}");
    assert_eq!(std::fs::read(device.root().join(DATA)).unwrap(), b"data");
    let (host, _) = device.on();
    assert!(host.journal().sealed(), "another seed was begun");
}

/// It waits, and says this.
fn waits(done: &Result<(), Fault>, seen: &Recorded, code: &str, text: &str) {
    assert_eq!(done.as_ref().unwrap_err().to_string(), "no seed is added");
    let line = format!("firstboot: waiting for a seed (seed, {code}): ");
    let lines = seen.lines.borrow().clone();
    assert!(lines.iter().any(|l| l.starts_with(&line) && l.contains(text)), "{code} {text}: {lines:#?}");
}

/// The status of a node that works says why a stick was not obeyed.
fn says(device: &Device, text: &str) {
    let status = device.status();
    let joined = status.starts_with("state: joined\n") && status.contains("\nowner: seed\ncode: FB115\n");
    assert!(joined && status.contains(text), "{status}");
}

/// Sticks that prove nothing, and what the status says of them.
fn unproven(device: &Device) -> Vec<(BootPartition, &'static str)> {
    let text = seed("bbbbbb", "reset = true\n");
    let make = |name: &str, stick: BootPartition| {
        let path = device.disk.path().join(name);
        std::fs::rename(stick.path(), &path).unwrap();
        BootPartition::open_whole(&path).unwrap()
    };
    let changed = signed_stick(device, &text, OWNER, NAMESPACE);
    changed.write("seed.toml", text.replace("bbbbbb", "cccccc").as_bytes()).unwrap();
    let changed = make("changed", changed);
    let huge = stick(device, &text);
    huge.write("seed.toml.sig", &vec![b'A'; 8 << 20]).unwrap();
    let huge = make("huge", huge);
    let cut = stick(device, &text);
    cut.write("seed.toml.sig", &signed(OWNER, NAMESPACE, text.as_bytes()).1.as_bytes()[..100]).unwrap();
    let cut = make("cut", cut);
    vec![
        (make("none", stick(device, &text)), "find seed.toml.sig on the stick"),
        (make("alone", stick(device, ALONE)), "find seed.toml.sig on the stick"),
        (make("key", signed_stick(device, &text, [8; 32], NAMESPACE)), "is not one of this device's owner"),
        (make("purpose", signed_stick(device, &text, OWNER, "file")), "another purpose than -n firstboot"),
        (changed, "changed after it was signed"),
        (huge, "find seed.toml.sig on the stick"),
        (cut, "no signature of ssh-keygen"),
    ]
}

#[test]
fn s03_a_stick_without_its_owners_word_does_not_reset_a_joined_device() {
    for text in [seed("bbbbbb", "reset = true\n"), ALONE.to_owned()] {
        let device = Device::sealed(2027);
        let (done, seen) = boots(&device, Some(&stick(&device, &text)), DATE);
        done.unwrap();
        is_untouched(&device, &seen);
        says(
            &device,
            "this device has joined and obeys no stick, because its seed has no keys in [owner]; put the seed on",
        );
        // Signed by someone whom no seed has named.
        let (done, seen) = boots(&device, Some(&signed_stick(&device, &text, OWNER, NAMESPACE)), DATE);
        done.unwrap();
        is_untouched(&device, &seen);
    }
    let device = owned(2027);
    for (stick, why) in unproven(&device) {
        let (done, seen) = boots(&device, Some(&stick), DATE);
        done.unwrap();
        is_untouched(&device, &seen);
        says(&device, why);
    }
    // The stick is gone: the next boot has nothing to say of it.
    boots(&device, None, DATE).0.unwrap();
    assert!(!device.status().contains("FB115"), "{}", device.status());
}

/// USB may be up after firstboot.service has looked, and before that service has anything to say.
#[test]
fn s03_what_the_status_says_of_a_stick_is_not_lost_at_a_boot() {
    let device = owned(2027);
    let late = stick(&device, &seed("bbbbbb", "reset = true\n"));
    let boot = Place { partition: device.boot.clone(), removable: false };
    let there = vec![boot.clone(), Place { partition: late, removable: true }];
    let (root, looked) = (device.root(), Rc::new(Cell::new(false)));
    let (fake, seen) = Fake::new();
    seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(DATE + 100)));
    let at_last = looked.clone();
    let fake = fake
        .answering(|argv| (argv[0] == "systemctl").then(|| Ok("ActiveState=active\nNRestarts=0\n".into())))
        .before(move |what| {
            // The cluster has said what time it is.
            if what == "clock" && !at_last.replace(true) {
                let other = Host::open(&root, Box::new(Fake::new().0)).unwrap();
                stick::plugged_in(&other, &|_| Ok(there.clone())).unwrap();
            }
            Ok(())
        });
    let places = |_: &str| Ok(vec![boot.clone()]);
    run_with(&device.root(), Box::new(fake), None, &ROWS, &places, &|_, _| Ok(Vec::new())).unwrap();
    assert!(looked.get());
    says(&device, "find seed.toml.sig on the stick");
}

#[test]
fn s03_a_stick_that_is_plugged_in_while_the_device_runs_needs_its_owners_word_too() {
    let device = owned(2027);
    let places = |stick: &BootPartition| {
        let all = [(&device.boot, false), (stick, true)];
        all.map(|(partition, removable)| Place { partition: partition.clone(), removable }).to_vec()
    };
    for (stick, why) in unproven(&device) {
        let (host, seen) = device.on();
        stick::plugged_in(&host, &|_| Ok(places(&stick))).unwrap();
        is_untouched(&device, &seen);
        says(&device, why);
    }
    let good = signed_stick(&device, &seed("bbbbbb", "reset = true\n"), OWNER, NAMESPACE);
    // A device that is no node looks by itself.
    let (host, seen) = Device::new().on();
    stick::plugged_in(&host, &|_| Ok(places(&good))).unwrap();
    assert_eq!(seen.commands.take(), [""; 0]);
    // What lies on the boot partition waits for the next boot.
    device.drop_seed(&seed("cccccc", "reset = true\n"));
    let (host, seen) = device.on();
    stick::plugged_in(&host, &|_| Ok(places(&stick(&device, "")))).unwrap();
    is_untouched(&device, &seen);
    device.boot.remove("seed.toml").unwrap();
    let good = signed_stick(&device, &seed("bbbbbb", "reset = true\n"), OWNER, NAMESPACE);
    let (host, seen) = device.on();
    stick::plugged_in(&host, &|_| Ok(places(&good))).unwrap();
    assert_eq!(seen.commands.take(), [RESET]);
    assert!(device.status().starts_with("state: resetting\n"), "{}", device.status());
}

#[test]
fn s03_a_stick_with_its_owners_word_resets_the_device_which_restarts_and_joins_by_it() {
    let device = owned(2027);
    let boot_id = "/proc/sys/kernel/random/boot_id";
    put_for_tests(&device.root(), &boot_id[1..], "first-boot\n");
    let text = seed("bbbbbb", "reset = true\n");
    let stick = signed_stick(&device, &text, OWNER, NAMESPACE);
    let (done, seen) = boots(&device, Some(&stick), DATE);
    done.unwrap();
    assert_eq!(seen.commands.take(), [RESET]);
    // The power goes in the middle of it, and the reset goes on.
    let reset = |fuse: Option<u32>| {
        let (fake, seen) = Fake::new();
        seen.fuse.set(fuse);
        let places = |_: &str| Ok(vec![Place { partition: device.boot.clone(), removable: false }]);
        (work_with(&device.root(), Box::new(fake), &DeviceFacts, &places), seen)
    };
    assert!(reset(Some(8)).0.is_err());
    let (done, seen) = reset(None);
    done.unwrap();
    let commands = seen.commands.take();
    assert_eq!(commands.last().unwrap(), RESTART, "{commands:#?}");
    assert!(!commands.iter().any(|c| c.contains("start firstboot.service")), "{commands:#?}");
    // Until it has restarted it takes no seed, of no place.
    device.drop_seed(&seed("cccccc", ""));
    let (done, seen) = boots(&device, Some(&stick), DATE);
    done.unwrap();
    assert_eq!(seen.commands.take(), [RESTART]);
    device.boot.remove("seed.toml").unwrap();
    // It has. The stick asks for a reset again, and is not obeyed twice.
    put_for_tests(&device.root(), &boot_id[1..], "second-boot\n");
    for _ in 0..2 {
        let (done, seen) = boots(&device, Some(&stick), DATE);
        let _ = done;
        assert!(!seen.commands.take().contains(&RESET.to_owned()));
    }
    let (host, _) = device.on();
    assert!(host.journal().sealed());
    // Its new seed named no owner.
    assert_eq!(host.journal().lines(Fact::OwnerKeys), [""; 0]);
}

#[test]
fn s03_the_keys_of_the_owner_come_with_the_seed_and_go_with_the_next() {
    let device = Device::new();
    let key = signed(OWNER, NAMESPACE, b"").0.to_string();
    device.drop_seed(&format!("{}[owner]\nkeys = [\"{key}\"]\n", seed("aaaaaa", "")));
    device.boots(None).0.unwrap();
    assert_eq!(device.on().0.journal().lines(Fact::OwnerKeys), [key]);
}

#[test]
fn s05_another_clusters_seed_does_not_get_the_data_of_a_device_whose_certificate_expired() {
    let device = Device::sealed(2026);
    let (ours, other) = (&device.ca, Ca::new());
    let refused = "it trusts another CA than that of the cluster whose data is on this device";
    // A seed that names both would be believed of either.
    for text in [seed("bbbbbb", ""), seed_for(&[&other]), seed_for(&[ours, &other])] {
        device.drop_seed(&text);
        let (done, seen) = boots(&device, None, DATE);
        waits(&done, &seen, "FB116", refused);
        is_untouched(&device, &seen);
        assert!(device.status().contains("add reset = true"), "{}", device.status());
        assert_eq!(device.boot.read("seed.toml").unwrap().unwrap(), text.as_bytes());
    }
    let quoted = |pem: &str| format!("ca-cert = \"\"\"\n{pem}\"\"\"");
    let with_ca = |pem: &str| {
        let zeros = format!("ca-cert-hashes = \"sha256:{}\"", "0".repeat(64));
        seed("bbbbbb", "").replace(&zeros, &quoted(pem))
    };
    for text in [with_ca(&other.pem), with_ca(&format!("{}{}", ours.pem, other.pem))] {
        device.drop_seed(&text);
        let (done, seen) = boots(&device, None, DATE);
        waits(&done, &seen, "FB116", refused);
        is_untouched(&device, &seen);
    }
    // With reset, the data goes first.
    device.drop_seed(&seed("bbbbbb", "reset = true\n"));
    let (done, seen) = boots(&device, None, DATE);
    done.unwrap();
    assert_eq!(seen.commands.take(), [RESET]);
}

#[test]
fn s05_its_own_clusters_seed_joins_again_and_keeps_the_data() {
    for lost in ["nothing", "the CA file", "the CA file and its copy"] {
        let device = Device::sealed(2026);
        let (host, _) = device.on();
        if lost != "nothing" {
            host.remove(CA_FILE).unwrap();
        }
        if lost.ends_with("copy") {
            for path in ["/var/lib/firstboot/node-files.json", "/var/lib/firstboot/node-files.json.copy"] {
                host.remove(path).unwrap();
            }
        }
        drop(host);
        device.drop_seed(&seed_for(&[&device.ca]));
        let (done, seen) = boots(&device, None, DATE);
        if lost.ends_with("copy") {
            waits(&done, &seen, "FB116", "no CA certificate by which to recognize its cluster");
            is_untouched(&device, &seen);
            continue;
        }
        done.unwrap();
        assert_eq!(applied_by(&seen), ["first", "second", "third"], "{lost}");
        assert_eq!(std::fs::read(device.root().join(DATA)).unwrap(), b"data");
    }
}

#[test]
fn s05_a_clock_that_ntp_moved_and_a_silent_cluster_do_not_open_a_device_to_a_stick() {
    for more in ["", "reset = true\n"] {
        let device = Device::sealed(2027);
        silence(&device);
        let (done, seen) = boots(&device, Some(&stick(&device, &seed("bbbbbb", more))), IN_2040);
        waits(&done, &seen, "FB115", "obeys no stick");
        is_untouched(&device, &seen);
    }
    // Nor does its own cluster's name help a stick without the owner's word; nor the owner's word another cluster.
    let device = owned(2027);
    silence(&device);
    let (done, seen) = boots(&device, Some(&stick(&device, &seed_for(&[&device.ca]))), IN_2040);
    waits(&done, &seen, "FB115", "find seed.toml.sig");
    is_untouched(&device, &seen);
    let foreign = signed_stick(&device, &seed_for(&[&Ca::new()]), OWNER, NAMESPACE);
    let (done, seen) = boots(&device, Some(&foreign), IN_2040);
    waits(&done, &seen, "FB116", "it trusts another CA");
    is_untouched(&device, &seen);
    let good = signed_stick(&device, &seed_for(&[&device.ca]), OWNER, NAMESPACE);
    let (done, seen) = boots(&device, Some(&good), IN_2040);
    done.unwrap();
    assert_eq!(applied_by(&seen), ["first", "second", "third"]);
}

/// After a failed try with another seed the device is not sealed, and holds the same data.
#[test]
fn s05_a_device_that_is_joining_again_is_as_closed_as_a_joined_one() {
    let device = owned(2026);
    device.drop_seed(&seed_for(&[&device.ca]));
    assert!(device.boots(Some("second")).0.is_err());
    assert!(!device.on().0.journal().sealed());
    device.boot.remove("seed.toml").unwrap();
    // That seed brought no key.
    let other = seed_for(&[&Ca::new()]);
    for (stick, code) in [
        (stick(&device, &other), "FB115"),
        (stick(&device, ALONE), "FB115"),
        (signed_stick(&device, &other, OWNER, NAMESPACE), "FB115"),
    ] {
        let (done, seen) = boots(&device, Some(&stick), DATE);
        waits(&done, &seen, code, "obeys no stick");
        assert!(!seen.commands.borrow().iter().any(|c| c == RESET || c.starts_with("apply")));
    }
    device.drop_seed(&other);
    let (done, seen) = boots(&device, None, DATE);
    waits(&done, &seen, "FB116", "it trusts another CA");
    assert_eq!(std::fs::read(device.root().join(DATA)).unwrap(), b"data");
}

#[test]
fn s05_expired_is_known_by_a_verified_time_alone() {
    let unconfirmed = "by this device's clock, which its cluster has not confirmed: it goes on asking";
    let device = Device::sealed(2027);
    silence(&device);
    let (done, seen) = boots(&device, None, IN_2040);
    waits(&done, &seen, "FB112", unconfirmed);
    assert!(seen.waited() >= Duration::from_secs(300), "{:?}", seen.waited());
    is_untouched(&device, &seen);
    // The cluster has said before that it is later than that, and is gone now.
    let (host, _) = device.on();
    host.keep(VERIFIED_TIME, b"1830297600\n").unwrap();
    guard(&host).unwrap();
    let (done, seen) = boots(&device, None, IN_2040);
    waits(&done, &seen, "FB112", "; this node needs a new seed to join again");
    assert!(!device.status().contains(unconfirmed), "{}", device.status());
    // A device from a drawer, whose cluster answers.
    let device = Device::sealed(2026);
    let (done, seen) = boots(&device, None, DATE - 600 * 86_400);
    waits(&done, &seen, "FB112", "; this node needs a new seed to join again");
    // And with a clock that NTP moved, whose cluster answers: the certificate is good.
    let device = Device::sealed(2027);
    let (done, seen) = boots(&device, Some(&stick(&device, &seed("bbbbbb", ""))), IN_2040);
    done.unwrap();
    is_untouched(&device, &seen);
}
