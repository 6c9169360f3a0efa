// SPDX-License-Identifier: Apache-2.0
//! Progress lines with the seconds since the start, and the time that each stage took.

use crate::status::PhaseTime;
use std::time::{Duration, Instant};

/// Prints the current stage and remembers how long each took.
pub struct Progress {
    start: Instant,
    stage: Option<(&'static str, Instant)>,
    times: Vec<PhaseTime>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { start: Instant::now(), stage: None, times: Vec::new() }
    }
}

impl Progress {
    /// Prints a line.
    pub fn say(&self, line: &str) {
        println!("[{:7.1} s] {line}", self.start.elapsed().as_secs_f64());
    }

    /// A stage begins; the one before it ends.
    pub fn stage(&mut self, name: &'static str, line: &str) {
        self.end();
        self.say(line);
        self.stage = Some((name, Instant::now()));
    }

    /// The last stage ends.
    pub fn end(&mut self) {
        if let Some((name, since)) = self.stage.take() {
            self.times.push(PhaseTime { name: name.to_owned(), seconds: rounded(since.elapsed()) });
        }
    }

    /// Stages that ended, in order.
    pub fn times(&self) -> &[PhaseTime] {
        &self.times
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Seconds with two digits.
pub fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 100.0).round() / 100.0
}
