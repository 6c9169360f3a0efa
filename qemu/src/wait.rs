// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition under a deadline: the one loop that every wait of this crate goes through.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Calls `probe` every 100 ms until it yields a value, fails, or `limit` has passed.
/// `what` completes the sentence "wait … for".
pub fn until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    every(Duration::from_millis(100), what, limit, probe)
}

/// Like [`until`], for probes that cost something: `pause` between two calls.
pub fn every<T>(
    pause: Duration,
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            let waited = start.elapsed().as_secs_f64();
            if waited >= 1.0 {
                // A test's own output: says where the time of a slow one goes.
                eprintln!("waited {waited:.1} s for {what}");
            }
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("wait {} s for {what}", limit.as_secs());
        }
        std::thread::sleep(pause.min(limit.saturating_sub(start.elapsed())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yields_the_value_as_soon_as_it_is_there() {
        let mut calls = 0;
        let got = until("the third call", Duration::from_secs(5), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn names_what_it_waited_for() {
        let got = until("a thing that never comes", Duration::ZERO, || Ok(None::<()>));
        assert_eq!(got.unwrap_err().to_string(), "wait 0 s for a thing that never comes");
    }

    #[test]
    fn stops_at_the_first_error() {
        let got = until("anything", Duration::from_secs(5), || -> Result<Option<()>> { bail!("read it") });
        assert_eq!(got.unwrap_err().to_string(), "read it");
    }
}
