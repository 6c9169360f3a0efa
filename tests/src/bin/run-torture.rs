// SPDX-License-Identifier: Apache-2.0
//! `make torture`: power cuts while a device joins, and while it is reset; `out/torture/report.json`. Fails when a device did not recover.
//!
//! Usage: run-torture [--seed N] [--moments N] [--boots N] [--kills N] [--resets N].

use anyhow::{Context, Result, bail, ensure};
use e2e::torture::{self, Figures};
use imagebuild::repo;
use qemu::progress::Progress;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

fn main() -> ExitCode {
    let figures = match arguments(std::env::args().skip(1)) {
        Ok(figures) => figures,
        Err(error) => {
            eprintln!("torture: {error:#}");
            return ExitCode::from(2);
        }
    };
    match run(figures) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {}", qemu::explain(&error));
            ExitCode::from(2)
        }
    }
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Figures> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let mut figures = Figures::whole(now);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("read {word}: a number is missing"))?;
        let number: u64 = value.parse().with_context(|| format!("read {word} {value}"))?;
        let count = usize::try_from(number).with_context(|| format!("read {word} {value}"))?;
        match word.as_str() {
            "--seed" => figures.seed = number,
            "--moments" => figures.moments = count,
            "--boots" => figures.boots = count,
            "--kills" => figures.kills = count,
            "--resets" => figures.resets = count,
            other => bail!("read {other}: there are --seed, --moments, --boots, --kills and --resets"),
        }
    }
    let nothing = [figures.moments, figures.kills, figures.resets].iter().all(|count| *count == 0);
    ensure!(!nothing, "read --moments 0 --kills 0 --resets 0: nothing is left to do");
    Ok(figures)
}

fn run(figures: Figures) -> Result<bool> {
    let start = Instant::now();
    let outcome = torture::run(figures, &mut Progress::default())?;
    let path = repo::root()?.join("out/torture/report.json");
    let text = serde_json::to_string_pretty(&outcome.report).context("encode the report")? + "\n";
    qemu::write_report(&path, &text)?;
    let [recorded, reset, killed] = ["recorded", "reset", "killed"].map(|part| &outcome.report[part]);
    println!(
        "power cuts: {} moments of a recorded boot tried, {} of them booted, {} converged; {} boots killed, {} joined",
        recorded["moments tried"],
        recorded["moments booted"],
        recorded["moments converged"],
        killed["kills"],
        killed["joined"]
    );
    if !reset.is_null() {
        println!("resets: {} moments booted, {} converged", reset["moments booted"], reset["moments converged"]);
    }
    println!("{:.0} min; report: {}", start.elapsed().as_secs_f64() / 60.0, path.display());
    for failure in &outcome.failures {
        eprintln!("torture: {failure}");
    }
    Ok(outcome.failures.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<Figures> {
        arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn nothing_to_do_is_an_error() {
        assert_eq!(read("--moments 0 --kills 3").unwrap().kills, 3);
        assert_eq!(read("--moments 0 --kills 0").unwrap().resets, 20);
        let error = |line| format!("{:#}", read(line).unwrap_err());
        let nothing = "read --moments 0 --kills 0 --resets 0: nothing is left to do";
        assert_eq!(error("--kills 0 --moments 0 --resets 0"), nothing);
        assert_eq!(error("--killz 1"), "read --killz: there are --seed, --moments, --boots, --kills and --resets");
    }
}
