// SPDX-License-Identifier: Apache-2.0
//! How long each program took the last time, kept in the cache: only the order depends on it.

use super::Kind;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What a program with a guest is taken to need while nothing is known, seconds.
const GUEST: f64 = 400.0;
/// The same for another program.
const OTHER: f64 = 30.0;

/// The last times, by name.
#[derive(Debug, Default)]
pub struct Times(Map<String, Value>);

impl Times {
    /// Reads them. What cannot be read is as good as unknown.
    pub fn read() -> Self {
        let text = path().and_then(|path| std::fs::read_to_string(path).ok());
        Times(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Seconds that `name` is expected to take.
    pub fn of(&self, name: &str, kind: Kind) -> f64 {
        let known = self.0.get(name).and_then(Value::as_f64).filter(|seconds| seconds.is_finite());
        known.unwrap_or(if kind == Kind::Guest { GUEST } else { OTHER })
    }

    /// Takes in how long `name` took, which is of kind `kind`. One that failed may have ended early: it counts where it took
    /// longer than expected.
    pub fn learn(&mut self, name: &str, kind: Kind, seconds: f64, succeeded: bool) {
        if succeeded || seconds > self.of(name, kind) {
            self.0.insert(name.to_owned(), seconds.round().into());
        }
    }

    /// Keeps them for the next run. Failing at that costs nothing but a good order.
    pub fn write(&self) {
        let _ = path().map(|path| std::fs::write(path, format!("{:#}\n", Value::Object(self.0.clone()))));
    }
}

fn path() -> Option<PathBuf> {
    Some(imagebuild::cache::dir().ok()?.join("test-times.json"))
}

/// In words; nothing for what is short.
pub fn expected(seconds: f64) -> String {
    if seconds < 20.0 { String::new() } else { format!(", about {seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_taken_to_be_long_with_a_guest() {
        let mut times = Times::default();
        assert!(times.of("a", Kind::Guest) > times.of("a", Kind::Native));
        times.learn("a", Kind::Native, 12.4, false);
        assert_eq!(times.of("a", Kind::Native), OTHER, "it failed early");
        times.learn("a", Kind::Native, 12.4, true);
        assert_eq!(times.of("a", Kind::Guest), 12.0);
        times.learn("a", Kind::Native, 40.0, false);
        assert_eq!(times.of("a", Kind::Guest), 40.0);
        times.0.insert("a".into(), "nonsense".into());
        assert_eq!(times.of("a", Kind::Native), OTHER);
    }
}
