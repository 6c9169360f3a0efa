// SPDX-License-Identifier: Apache-2.0
//! Lights in a fake tree, whose files behave like the kernel's when written.

use super::*;
use crate::fault::{Code, Fault};
use crate::host::fake::{Fake, Recorded};
use crate::image::{IMAGE_INFO, ImageInfo};
use crate::report::{Reporter, show_again};
use crate::run::facts::DeviceFacts;
use crate::status::STATUS_FOR_ALL;
use crate::test_files::put_for_tests;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const LOCK: &str = "input3::scrolllock";

/// A device with these lights and a kernel with these triggers besides `none`.
fn device(
    root: &Path,
    names: &[&str],
    there: &[(&str, &str)],
    triggers: &'static [&'static str],
) -> (Host, Rc<Recorded>) {
    let put = |path: &str, text: &str| put_for_tests(root, path.trim_start_matches('/'), text);
    let image = ImageInfo {
        arch: "arm64".into(),
        leds: names.iter().map(|n| (*n).to_owned()).collect(),
        ..ImageInfo::for_tests()
    };
    put(IMAGE_INFO, &serde_json::to_string(&image).unwrap());
    for (led, max) in there {
        put(&format!("{LEDS_DIR}/{led}/trigger"), "none [kbd-scrolllock] timer\n");
        put(&format!("{LEDS_DIR}/{led}/max_brightness"), &format!("{max}\n"));
    }
    let tree = root.to_owned();
    let (fake, seen) = Fake::new();
    let fake = fake.answering(move |argv| {
        let ["set", path, value] = argv else { return None };
        let file = tree.join(path.trim_start_matches('/'));
        let is_trigger = path.ends_with("/trigger");
        if is_trigger && *value != "none" && !triggers.contains(value) {
            return Some(Err(anyhow::anyhow!("set {path} to {value}: Invalid argument")));
        }
        let shown = if is_trigger { format!("disk-activity [{value}]\n") } else { format!("{value} \n") };
        std::fs::write(file, shown).unwrap();
        None
    });
    (Host::open(root, Box::new(fake)).unwrap(), seen)
}

fn status(state: State, owner: Option<Owner>) -> Status {
    Status { state, error: owner.map(|owner| owner.to_string()), owner, ..Status::default() }
}

#[test]
fn each_state_has_its_light() {
    fn light(state: State, owner: Option<Owner>) -> Light {
        Light::of(&status(state, owner))
    }
    assert_eq!(light(State::Working, None), Light::Working);
    assert_eq!(light(State::Resetting, None), Light::Working);
    assert_eq!(light(State::Joined, Some(Owner::Seed)), Light::Done);
    assert_eq!(light(State::Waiting, Some(Owner::Seed)), Light::Waiting);
    // During the retry after a fault the fault stays visible.
    assert_eq!(light(State::Working, Some(Owner::Cluster)), Light::Fault(Owner::Cluster));
    for owner in [Owner::Seed, Owner::Image, Owner::Host] {
        assert_eq!(light(State::Stopped, Some(owner)), Light::Fault(owner));
    }
}

#[test]
fn fault_patterns_blink_at_full_brightness() {
    assert_eq!(pattern(1, "255"), "255 200 255 0 0 300 0 0 0 1500 0 0");
    let (trigger, settings) = Light::Fault(Owner::Host).settings("1");
    assert_eq!((trigger, &settings[0]), ("pattern", &("repeat", "-1".to_owned())));
    assert_eq!(settings[1].1.matches("1 200 1 0").count(), 3);
}

#[test]
fn reporter_sets_lights_once_per_change() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) =
        device(dir.path(), &["input*::scrolllock"], &[(LOCK, "1"), ("ACT", "255")], &["timer", "pattern"]);
    let mut reporter = Reporter::new(&host, &DeviceFacts, None, String::new());
    let took = || seen.kernel.take().into_iter().map(|s| s.replace("/sys/class/leds/", "")).collect::<Vec<_>>();
    let timer = |ms: u32| ["trigger=timer".to_owned(), format!("delay_on={ms}"), format!("delay_off={ms}")];
    let of = |settings: &[String]| settings.iter().map(|s| format!("{LOCK}/{s}")).collect::<Vec<_>>();
    reporter.begins(1, 15, "preflight");
    assert_eq!(took(), of(&timer(1000)));
    reporter.write();
    reporter.begins(2, 15, "identity");
    assert_eq!(took(), [""; 0]);
    let fault = Fault::new(Code::Image, "x");
    reporter.failed(Some((2, 15, "identity")), &fault, None);
    let two = "1 200 1 0 0 300 0 0 1 200 1 0 0 300 0 0 0 1500 0 0";
    assert_eq!(took(), of(&["trigger=pattern".into(), "repeat=-1".into(), format!("pattern={two}")]));
    // Another process that retries does not restart the blinking.
    let status = reporter.status;
    let mut reporter = Reporter::new(&host, &DeviceFacts, None, String::new());
    reporter.status = status;
    reporter.begins(2, 15, "identity");
    reporter.write();
    assert_eq!(took(), [""; 0]);
    reporter.clear_fault();
    reporter.status.state = State::Waiting;
    reporter.write();
    assert_eq!(took(), of(&timer(125)));
    reporter.status.state = State::Joined;
    reporter.write();
    assert_eq!(took(), of(&["trigger=none".into(), "brightness=1".into()]));
    // The next boot: the light has the kernel's own trigger again, and /run is empty.
    std::fs::write(dir.path().join(format!("sys/class/leds/{LOCK}/trigger")), "none [kbd-scrolllock]\n").unwrap();
    host.remove(STATUS_FOR_ALL).unwrap();
    show_again(&host).unwrap();
    assert_eq!(took(), of(&["trigger=none".into(), "brightness=1".into()]));
    assert_eq!(seen.lines.take(), ["firstboot: phase 2/15 identity failed (image, FB200): x; stopped"]);
}

#[test]
fn light_that_cannot_blink_is_on_or_off_and_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = device(dir.path(), &["PWR", "ACT", "x*"], &[("ACT", "255")], &["timer"]);
    let mut reporter = Reporter::new(&host, &DeviceFacts, None, String::new());
    let fault = Fault::new(Code::Cluster, "x");
    for _ in 0..2 {
        reporter.failed(None, &fault, Some(Duration::from_secs(1)));
    }
    let off = ["trigger=none", "brightness=0"].map(|s| format!("/sys/class/leds/ACT/{s}"));
    assert_eq!(seen.kernel.take(), [&off[..], &off[..]].concat());
    let lines: Vec<String> = seen.lines.take().into_iter().filter(|l| l.contains("light")).collect();
    assert_eq!(
        lines,
        [
            "firstboot: light PWR is not there; it goes on without",
            "firstboot: light ACT cannot blink: set /sys/class/leds/ACT/trigger to pattern: Invalid argument; it is only \
             on when the node has joined, and else off",
        ]
    );
    reporter.clear_fault();
    reporter.status.state = State::Joined;
    reporter.write();
    let on = ["trigger=none", "brightness=255"].map(|s| format!("/sys/class/leds/ACT/{s}"));
    assert_eq!(seen.kernel.take(), on);
}

#[test]
fn names_have_no_slash_and_at_most_one_star() {
    assert!(["ACT", "input*::scrolllock", "*", "board:green:status"].iter().all(|n| is_name(n)));
    assert!(["", "..", "a/b", "*a*", "a b"].iter().all(|n| !is_name(n)));
}
