// SPDX-License-Identifier: Apache-2.0
//! What a light on the device tells somebody who stands before it, where the image names one (docs/operations.md, "Lights").
//!
//! The kernel blinks by itself (its triggers `timer` and `pattern`, Documentation/leds/leds-class.rst and ledtrig-pattern),
//! so nothing of ours has to keep running. Settings of a running kernel are all that is written: nothing of it is on a disk,
//! and nothing has to be taken back. A light must never stop the work.

use crate::fault::Owner;
use crate::host::Host;
use crate::status::{State, Status};
use anyhow::Result;

/// Where the kernel shows its lights.
const FOLDER: &str = "/sys/class/leds";
/// Where an image says that the kernel's modules for blinking are loaded (modules-load.d(5)).
pub const MODULES_FILE: &str = "/usr/lib/modules-load.d/firstboot-leds.conf";
/// What stands there. Only an image that names lights has it.
pub const MODULES: &str = "# Written by firstboot: lights blink by themselves.\nledtrig-timer\nledtrig-pattern\n";

/// What a light shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Light {
    Working,
    Done,
    Waiting,
    Fault(Owner),
}

impl Light {
    /// What belongs to this status. What failed stays on show while it is tried again.
    pub(crate) fn of(status: &Status) -> Self {
        match (status.state, status.owner) {
            (State::Joined, _) => Light::Done,
            (State::Waiting, _) => Light::Waiting,
            (_, Some(owner)) if status.error.is_some() => Light::Fault(owner),
            _ => Light::Working,
        }
    }

    /// The kernel's trigger, and its settings in the order in which they are made.
    fn settings(self, brightest: &str) -> (&'static str, Vec<(&'static str, String)>) {
        let even = |ms: u32| ("timer", vec![("delay_on", ms.to_string()), ("delay_off", ms.to_string())]);
        match self {
            Light::Done => ("none", vec![("brightness", brightest.to_owned())]),
            Light::Working => even(1000),
            Light::Waiting => even(125),
            Light::Fault(owner) => {
                let blinks = match owner {
                    Owner::Seed => 1,
                    Owner::Image => 2,
                    Owner::Host => 3,
                    Owner::Cluster => 4,
                };
                ("pattern", vec![("repeat", "-1".to_owned()), ("pattern", pattern(blinks, brightest))])
            }
        }
    }
}

/// So many short blinks, then a pause. A step takes two pairs of brightness and milliseconds, the second of no length: the
/// kernel would fade from one to the next otherwise.
fn pattern(blinks: usize, brightest: &str) -> String {
    let step = |brightness: &str, ms: u32| format!("{brightness} {ms} {brightness} 0");
    let blink = format!("{} {} ", step(brightest, 200), step("0", 300));
    blink.repeat(blinks) + &step("0", 1500)
}

/// Whether a target may name a light so: one name as in /sys/class/leds, with at most one `*` for any characters.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', ' ', '\n']) && name.matches('*').count() <= 1
}

/// Makes every light of these names show it. Lights that are not there, and kernels that cannot blink, are no fault.
pub(crate) fn show(host: &Host, names: &[String], light: Light) {
    for name in names {
        let found = matching(host, name);
        // With a `*` it is whatever may be plugged in; without one the board is said to have it.
        if found.is_empty() && !name.contains('*') && host.first_time(name) {
            host.sys().say(&format!("firstboot: light {name} is not there; it goes on without"));
        }
        for led in found {
            if let Err(error) = set(host, &led, light) {
                if host.first_time(&led) {
                    let text = "it is only on when the node has joined, and else off";
                    host.sys().say(&format!("firstboot: light {led} cannot blink: {error:#}; {text}"));
                }
                plain(host, &led, light);
            }
        }
    }
}

fn matching(host: &Host, name: &str) -> Vec<String> {
    let all = host.list(FOLDER).unwrap_or_default();
    let fits = |led: &String| match name.split_once('*') {
        Some((head, tail)) => led.len() >= head.len() + tail.len() && led.starts_with(head) && led.ends_with(tail),
        None => led == name,
    };
    all.into_iter().filter(fits).collect()
}

fn brightest(host: &Host, led: &str) -> String {
    host.read_text(&format!("{FOLDER}/{led}/max_brightness")).ok().flatten().unwrap_or_else(|| "1".to_owned())
}

/// Does nothing where the light shows it already: it would begin anew, and stutter.
fn set(host: &Host, led: &str, light: Light) -> Result<()> {
    let (trigger, settings) = light.settings(&brightest(host, led));
    let path = |file: &str| format!("{FOLDER}/{led}/{file}");
    let is = |file: &str, value: &str| Ok::<_, anyhow::Error>(host.read_text(&path(file))?.as_deref() == Some(value));
    let now = host.read_text(&path("trigger"))?.unwrap_or_default();
    let mut holds = now.split(' ').any(|word| word == format!("[{trigger}]"));
    for (file, value) in &settings {
        holds = holds && is(file, value)?;
    }
    if holds {
        return Ok(());
    }
    host.sys().set_kernel(&path("trigger"), trigger)?;
    settings.iter().try_for_each(|(file, value)| host.sys().set_kernel(&path(file), value))
}

/// On or off, as every light can be.
fn plain(host: &Host, led: &str, light: Light) {
    let value = if light == Light::Done { brightest(host, led) } else { "0".to_owned() };
    // A kernel without triggers has none to take off. What fails here was said above.
    let _ = host.sys().set_kernel(&format!("{FOLDER}/{led}/trigger"), "none");
    let _ = host.sys().set_kernel(&format!("{FOLDER}/{led}/brightness"), &value);
}

#[cfg(test)]
#[path = "leds_tests.rs"]
mod tests;
