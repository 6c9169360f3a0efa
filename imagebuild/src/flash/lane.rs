// SPDX-License-Identifier: Apache-2.0
//! The progress of one card: a bar on a terminal, lines elsewhere, JSON for programs.

use super::{note, tell};
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Debug, Clone)]
pub enum Show {
    /// Bars with speed and time left, on standard error.
    Bars(MultiProgress),
    /// A line every ten seconds, on standard error.
    Lines,
    /// An object on a line each second, on standard output.
    Json,
}

/// The progress of one card.
pub struct Lane {
    show: Show,
    device: String,
    bar: ProgressBar,
    done: AtomicU64,
    state: Mutex<State>,
}

struct State {
    phase: &'static str,
    total: Option<u64>,
    began: Instant,
    shown: Instant,
}

impl Lane {
    /// The lane of a device, with `total` bytes to write where that is known.
    pub fn new(show: &Show, device: &str, total: Option<u64>) -> Lane {
        let bar = match show {
            Show::Bars(bars) => bars.add(ProgressBar::new(0)),
            _ => ProgressBar::hidden(),
        };
        let now = Instant::now();
        let state = Mutex::new(State { phase: "write", total, began: now, shown: now });
        let lane = Lane { show: show.clone(), device: device.to_owned(), bar, done: AtomicU64::new(0), state };
        lane.begin("write", total);
        lane
    }

    /// Begins a phase: `write` or `verify`.
    pub fn begin(&self, phase: &'static str, total: Option<u64>) {
        let now = Instant::now();
        self.done.store(0, Ordering::Relaxed);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State { phase, total, began: now, shown: now };
        let rest =
            if total.is_some() { "{wide_bar} {bytes} of {total_bytes}, {eta} left" } else { "{spinner} {bytes}" };
        let template = format!("{{prefix}} {phase:6} {{binary_bytes_per_sec}} {rest}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            self.bar.set_style(style);
        }
        self.bar.set_prefix(self.device.clone());
        self.bar.reset();
        self.bar.set_length(total.unwrap_or(0));
        if matches!(self.show, Show::Json) {
            tell(json!({ "event": phase, "device": self.device, "total": total }));
        }
    }

    /// Counts bytes of this phase.
    pub fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bar.set_position(done);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if matches!(self.show, Show::Json) { Duration::from_secs(1) } else { Duration::from_secs(10) };
        // The first line of a phase at once, so that programs and people see that something happens.
        let due = done == bytes || state.shown.elapsed() >= pause;
        if !due || matches!(self.show, Show::Bars(_)) {
            return;
        }
        state.shown = Instant::now();
        let speed = (done as f64 / state.began.elapsed().as_secs_f64().max(0.001)) as u64;
        let left = state.total.map(|total| total.saturating_sub(done) / speed.max(1));
        match self.show {
            Show::Json => tell(json!({
                "event": "progress", "device": self.device, "phase": state.phase, "bytes": done, "total": state.total,
                "bytes_per_second": speed, "seconds_left": left,
            })),
            _ => {
                let of = state.total.map(|total| format!(" of {}", HumanBytes(total))).unwrap_or_default();
                let left = left.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
                let (device, phase, done) = (&self.device, state.phase, HumanBytes(done));
                note(format_args!("{device}: {phase}: {done}{of}, {}/s{left}", HumanBytes(speed)));
            }
        }
    }

    /// Bytes of this phase so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the lane. What became of the card is said elsewhere.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
