// SPDX-License-Identifier: Apache-2.0
//! What libFuzzer says while it runs, read: numbers, and what it found.

use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Lines of libFuzzer that are shown with a finding.
const TAIL: usize = 40;

/// What was read so far of one run.
#[derive(Debug, Default)]
pub struct Stats {
    /// Inputs that were run.
    runs: u64,
    /// Edges of the program that were reached.
    edges: u64,
    /// Inputs in the corpus, as libFuzzer sees it.
    corpus: u64,
    /// File that holds the input of a finding.
    reproducer: Option<String>,
    /// The last lines.
    tail: Vec<String>,
}

impl Stats {
    /// Head of the table that [`Outcome`] prints rows of.
    pub const HEAD: &str = "target                 runs   seconds     runs/s  edges  corpus  verdict";

    /// Takes in one line.
    pub fn see(&mut self, line: &str) {
        // `#8192  pulse  cov: 513 ft: 2009 corp: 300/12Kb …`
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |word: &str| words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1));
        if let Some(runs) = words.first().and_then(|w| w.strip_prefix('#')).and_then(|n| n.parse().ok()) {
            self.runs = self.runs.max(runs);
            if let Some(edges) = after("cov:").and_then(|n| n.parse().ok()) {
                self.edges = edges;
            }
            if let Some(corpus) = after("corp:").and_then(|n| n.split('/').next()?.parse().ok()) {
                self.corpus = corpus;
            }
            return;
        }
        if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:").and_then(|n| n.trim().parse().ok()) {
            self.runs = runs;
        }
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.reproducer = Some(path.trim().to_owned());
        }
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line.to_owned());
    }

    /// What came of it. `replay` is the command that runs one input again, but for the input.
    pub fn judge(self, target: &str, took: Duration, ended_well: bool, replay: &str) -> Outcome {
        let finding = (!ended_well || self.reproducer.is_some()).then(|| match &self.reproducer {
            Some(path) => format!("{path}; again: {replay} {path}"),
            None => "libFuzzer ended badly".to_owned(),
        });
        let (runs, edges, corpus) = (self.runs, self.edges, self.corpus);
        Outcome { target: target.to_owned(), runs, edges, corpus, took, finding, tail: self.tail }
    }
}

/// What came of one target. `Display` is a row of a table, and with a finding what libFuzzer said last.
#[derive(Debug)]
pub struct Outcome {
    target: String,
    runs: u64,
    edges: u64,
    corpus: u64,
    took: Duration,
    /// Path of the failing input, and the command that runs it again.
    pub finding: Option<String>,
    tail: Vec<String>,
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.runs as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// For the report.
    pub fn json(&self) -> Value {
        json!({
            "target": self.target,
            "runs": self.runs,
            "seconds": (self.took.as_secs_f64() * 10.0).round() / 10.0,
            "runs_per_second": self.per_second().round(),
            "edges": self.edges,
            "corpus": self.corpus,
            "finding": self.finding,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.finding.as_deref().map_or("nothing found".to_owned(), |what| format!("FOUND {what}"));
        let (seconds, rate) = (self.took.as_secs_f64(), self.per_second());
        let Outcome { target, runs, edges, corpus, .. } = self;
        if self.finding.is_some() {
            writeln!(f, "{}", self.tail.join("\n"))?;
        }
        write!(f, "{target:<15} {runs:>11} {seconds:>9.0} {rate:>10.0} {edges:>6} {corpus:>7}  {verdict}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn judged(lines: &[&str], ended_well: bool) -> Outcome {
        let mut stats = Stats::default();
        lines.iter().for_each(|l| stats.see(l));
        stats.judge("seed", Duration::from_secs(10), ended_well, "FUZZ_TARGET=seed fuzz")
    }

    #[test]
    fn numbers_are_read() {
        let outcome = judged(
            &[
                "INFO: Seed: 1",
                "#2\tINITED cov: 134 ft: 134 corp: 1/1b exec/s: 0 rss: 30Mb",
                "#8192\tpulse  cov: 513 ft: 2009 corp: 300/12Kb lim: 4096 exec/s: 4096 rss: 40Mb",
                "Done 10000 runs in 10 second(s)",
                "stat::number_of_executed_units: 10000",
            ],
            true,
        );
        assert_eq!(
            outcome.to_string(),
            "seed                  10000        10       1000    513     300  nothing found"
        );
        assert_eq!(Stats::HEAD.find("verdict"), outcome.to_string().find("nothing"));
    }

    #[test]
    fn a_finding_is_reported_with_its_input() {
        let lines = ["panicked at seed.rs:1:2", "Test unit written to /tmp/crash-1"];
        let outcome = judged(&lines, false);
        assert_eq!(outcome.finding.as_deref(), Some("/tmp/crash-1; again: FUZZ_TARGET=seed fuzz /tmp/crash-1"));
        assert!(outcome.to_string().starts_with("panicked at seed.rs:1:2\n"));
        // Too slow: libFuzzer stops, whatever its exit code.
        assert!(judged(&lines[1..], true).finding.is_some());
        assert_eq!(judged(&[], false).finding.as_deref(), Some("libFuzzer ended badly"));
        assert_eq!(judged(&[], true).finding, None);
    }
}
