// SPDX-License-Identifier: Apache-2.0
//! Shows the state of the device with lights, where the image names any (docs/operations.md, "Lights").
//!
//! The kernel blinks by itself (triggers `timer` and `pattern`, Documentation/leds/leds-class.rst and ledtrig-pattern),
//! so no process of firstboot has to keep running. Only settings of the running kernel are written: nothing is on a
//! disk, and nothing has to be restored. A failing light never stops the work.

use crate::fault::Owner;
use crate::host::Host;
use crate::status::{State, Status};
use anyhow::Result;

/// Directory of the kernel's lights.
const LEDS_DIR: &str = "/sys/class/leds";
/// File of the image that names the kernel modules for blinking (modules-load.d(5)).
pub const MODULES_FILE: &str = "/usr/lib/modules-load.d/firstboot-leds.conf";
/// Content of [`MODULES_FILE`], which only an image with lights has.
pub const MODULES: &str = "# Written by firstboot: lights blink by themselves.\nledtrig-timer\nledtrig-pattern\n";

/// State that a light shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Light {
    Working,
    Done,
    Waiting,
    Fault(Owner),
}

impl Light {
    /// The state for this status. A fault stays visible during the retry.
    pub(crate) fn of(status: &Status) -> Self {
        match (status.state, status.owner) {
            (State::Joined, _) => Light::Done,
            (State::Waiting, _) => Light::Waiting,
            (_, Some(owner)) if status.error.is_some() => Light::Fault(owner),
            _ => Light::Working,
        }
    }

    /// The kernel's trigger, and its settings in the order in which they must be written.
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

/// Short blinks, then a pause. A step has two pairs of brightness and milliseconds, the second of length 0: otherwise
/// the kernel would fade from one step to the next.
fn pattern(blinks: usize, brightest: &str) -> String {
    let step = |brightness: &str, ms: u32| format!("{brightness} {ms} {brightness} 0");
    let blink = format!("{} {} ", step(brightest, 200), step("0", 300));
    blink.repeat(blinks) + &step("0", 1500)
}

/// Whether a target may use this name of a light: one name as in /sys/class/leds, with at most one `*` for any
/// characters.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', ' ', '\n']) && name.matches('*').count() <= 1
}

/// Makes every light of these names show the state. Missing lights, and kernels that cannot blink, are no fault.
pub(crate) fn update(host: &Host, names: &[String], light: Light) {
    for name in names {
        let found = matching(host, name);
        // A name with a `*` may match removable hardware; a name without one belongs to the board and should exist.
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
    let all = host.list(LEDS_DIR).unwrap_or_default();
    let matches_name = |led: &String| match name.split_once('*') {
        Some((head, tail)) => led.len() >= head.len() + tail.len() && led.starts_with(head) && led.ends_with(tail),
        None => led == name,
    };
    all.into_iter().filter(matches_name).collect()
}

fn brightest(host: &Host, led: &str) -> String {
    host.read_text(&format!("{LEDS_DIR}/{led}/max_brightness")).ok().flatten().unwrap_or_else(|| "1".to_owned())
}

/// Does nothing if the light already shows the state: the blinking would restart and stutter.
fn set(host: &Host, led: &str, light: Light) -> Result<()> {
    let (trigger, settings) = light.settings(&brightest(host, led));
    let path = |file: &str| format!("{LEDS_DIR}/{led}/{file}");
    let is = |file: &str, value: &str| Ok::<_, anyhow::Error>(host.read_text(&path(file))?.as_deref() == Some(value));
    let now = host.read_text(&path("trigger"))?.unwrap_or_default();
    let mut is_set = now.split(' ').any(|word| word == format!("[{trigger}]"));
    for (file, value) in &settings {
        is_set = is_set && is(file, value)?;
    }
    if is_set {
        return Ok(());
    }
    host.sys().set_kernel(&path("trigger"), trigger)?;
    settings.iter().try_for_each(|(file, value)| host.sys().set_kernel(&path(file), value))
}

/// Switches the light on or off, which every light supports.
fn plain(host: &Host, led: &str, light: Light) {
    let value = if light == Light::Done { brightest(host, led) } else { "0".to_owned() };
    // A kernel without triggers has none to remove. The caller has already reported the error.
    let _ = host.sys().set_kernel(&format!("{LEDS_DIR}/{led}/trigger"), "none");
    let _ = host.sys().set_kernel(&format!("{LEDS_DIR}/{led}/brightness"), &value);
}

#[cfg(test)]
#[path = "leds_tests.rs"]
mod tests;
