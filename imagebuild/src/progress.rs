// SPDX-License-Identifier: Apache-2.0
//! Progress lines, each step with the seconds it took, and warnings.

use anyhow::Result;
use std::time::Instant;

/// Runs a step; prints `WHAT: done in N.N s` on standard error when it ends.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(_) => eprintln!("imagebuild: {what}: done in {seconds:.1} s"),
        Err(_) => eprintln!("imagebuild: {what}: failed after {seconds:.1} s"),
    }
    result
}

/// Prints a warning on standard error.
pub fn warn(text: &str) {
    eprintln!("imagebuild: warning: {text}");
}
