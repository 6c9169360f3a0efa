// SPDX-License-Identifier: Apache-2.0
//! The main process of a unit and its start time: the process has not read files that changed after that.

use crate::host::Host;
use anyhow::{Context, Result};

/// Process id of a unit's main process; `None` when the unit does not run.
pub(super) fn main_pid(host: &Host, unit: &str) -> Result<Option<u32>> {
    let output = host.run(&["systemctl", "show", "--property", "MainPID", "--value", unit])?;
    let pid: u32 = output.trim().parse().with_context(|| format!("read the process id of {unit}"))?;
    Ok((pid > 0).then_some(pid))
}

/// Start time of a process, seconds since 1970 (proc_pid_stat(5), field 22; proc_stat(5), btime).
pub(super) fn started(host: &Host, pid: u32) -> Result<i64> {
    // The kernel reports ticks of 1/100 s to user space on every architecture that images exist for.
    const TICKS: i64 = 100;
    let path = format!("/proc/{pid}/stat");
    let text = host.read_text(&path)?.with_context(|| format!("find {path}"))?;
    // The program's name is in brackets before field 3 and may contain blanks.
    let after = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks = after.split_whitespace().nth(19).and_then(|t| t.parse::<i64>().ok());
    let ticks = ticks.with_context(|| format!("read {path}"))?;
    let stat = host.read_text("/proc/stat")?.unwrap_or_default();
    let boot = stat.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    Ok(boot.context("read /proc/stat")? + ticks / TICKS)
}

/// Those of `paths` that changed after `started` (seconds since 1970), so that the process has not read their content.
pub(super) fn changed_since(host: &Host, started: i64, paths: &[String]) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    for path in paths {
        // Both times are whole seconds, so one second of difference proves nothing.
        if host.modified(path)?.is_some_and(|at| at > started + 1) {
            changed.push(path.clone());
        }
    }
    Ok(changed)
}
