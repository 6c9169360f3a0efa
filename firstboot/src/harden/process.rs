// SPDX-License-Identifier: Apache-2.0
//! The main process of a unit, and since when it runs: what changed after that, it has not read.

use crate::host::Host;
use anyhow::{Context, Result};

/// Process id of a unit's main process; none when it does not run.
pub(super) fn main_pid(host: &Host, unit: &str) -> Result<Option<u32>> {
    let said = host.run(&["systemctl", "show", "--property", "MainPID", "--value", unit])?;
    let pid: u32 = said.trim().parse().with_context(|| format!("read the process id of {unit}"))?;
    Ok((pid > 0).then_some(pid))
}

/// When a process began, seconds since 1970 (proc_pid_stat(5), field 22; proc_stat(5), btime).
pub(super) fn started(host: &Host, pid: u32) -> Result<i64> {
    // The kernel counts in 1/100 s for programs, on every architecture that images exist for.
    const TICKS: i64 = 100;
    let path = format!("/proc/{pid}/stat");
    let text = host.read_text(&path)?.with_context(|| format!("find {path}"))?;
    // The name of the program, which may hold blanks, stands in brackets before field 3.
    let after = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = after.split_whitespace().nth(19).and_then(|t| t.parse::<i64>().ok());
    let ticks = ticks.with_context(|| format!("read {path}"))?;
    let stat = host.read_text("/proc/stat")?.unwrap_or_default();
    let boot = stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    Ok(boot.context("read /proc/stat")? + ticks / TICKS)
}

/// Which of these files a process that began then has not read as they are.
pub(super) fn changed_since(host: &Host, started: i64, paths: &[String]) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for path in paths {
        // Whole seconds on both sides.
        if host.modified(path)?.is_some_and(|at| at > started + 1) {
            changed.push(path.clone());
        }
    }
    Ok(changed)
}
