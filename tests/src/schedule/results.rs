// SPDX-License-Identifier: Apache-2.0
//! Results of test programs, read from what they print, and added up.

use crate::skip::SKIPPED;
use std::fmt::{Display, Formatter};
use std::ops::AddAssign;

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that could not run.
    pub skipped: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, more: Sum) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl Display for Sum {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One failure that no test reported.
pub const FAILED: Sum = Sum { passed: 0, failed: 1, skipped: 0 };

/// What a test program reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The numbers.
    pub sum: Sum,
    /// What was skipped, each with its reason.
    pub skipped: Vec<String>,
    /// Names of tests that failed.
    pub failed: Vec<String>,
    /// Why the numbers are not what the program reported, where they are not.
    pub why: Option<&'static str>,
}

/// Reads what a test program printed. Counts as failed what failed without a number (a program that crashed), and a
/// program that ran no test.
pub fn report(output: &str, succeeded: bool) -> Report {
    let mut report = Report::default();
    for line in output.lines() {
        if let Some(sum) = result(line) {
            report.sum += sum;
        } else if let Some(what) = skipped(line) {
            report.skipped.push(what);
        } else if let Some(name) = failed(line) {
            report.failed.push(name.to_owned());
        }
    }
    let (sum, skipped) = (&mut report.sum, report.skipped.len() as u64);
    // `make check` skips a step of its own, and counts it.
    let own = sum.skipped;
    // libtest counts a skipped test as passed.
    match sum.passed.checked_sub(skipped.saturating_sub(own)) {
        Some(passed) => (sum.passed, sum.skipped) = (passed, skipped.max(own)),
        None => report.why = Some("more tests were skipped than passed"),
    }
    if report.why.is_none() && !succeeded && sum.failed == 0 {
        report.why = Some("it failed without saying how many tests did");
    } else if report.why.is_none() && *sum == Sum::default() {
        report.why = Some("it ran no test");
    }
    sum.failed += u64::from(report.why.is_some());
    report
}

/// libtest's `test result: ok. 15 passed; 0 failed; …`, and `15 passed, 0 failed, 1 skipped` of our own programs.
fn result(line: &str) -> Option<Sum> {
    let (numbers, separator) = match line.strip_prefix("test result: ") {
        Some(rest) => (rest.split_once(". ")?.1, "; "),
        None => (line, ", "),
    };
    let number = |word: &str| numbers.split(separator).find_map(|p| p.strip_suffix(word)?.parse::<u64>().ok());
    let (passed, failed) = (number(" passed")?, number(" failed")?);
    Some(Sum { passed, failed, skipped: number(" skipped").unwrap_or(0) })
}

/// `NAME: REASON` of our own line of a skipped test, or of `check NAME ... skipped: REASON` of `imagebuild check`.
fn skipped(line: &str) -> Option<String> {
    if let Some(what) = line.strip_prefix(SKIPPED) {
        return Some(what.to_owned());
    }
    let (name, reason) = line.strip_prefix("check ")?.split_once(" ... skipped: ")?;
    Some(format!("{name}: {reason}"))
}

/// The name in libtest's `test NAME ... FAILED`, and in `check NAME ... FAILED: …` of `imagebuild check`.
fn failed(line: &str) -> Option<&str> {
    let (name, verdict) = line.split_once(" ... ")?;
    let name = name.strip_prefix("test ").or_else(|| name.strip_prefix("check "))?;
    verdict.starts_with("FAILED").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(passed: u64, failed: u64, skipped: u64) -> Sum {
        Sum { passed, failed, skipped }
    }

    #[test]
    fn results_are_read() {
        let line = "test result: FAILED. 15 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(result(line), Some(sum(15, 2, 0)));
        assert_eq!(result("6 passed, 0 failed, 1 skipped"), Some(sum(6, 0, 1)));
        // What is read is what is written.
        assert_eq!(result(&sum(7, 1, 2).to_string()), Some(sum(7, 1, 2)));
    }

    #[test]
    fn skipped_test_is_not_passed() {
        let output = "running 3 tests\n.\nSKIPPED: a: no tool\n..\ntest result: ok. 3 passed; 0 failed; 0 ignored\n";
        let found = report(output, true);
        assert_eq!((found.sum, found.skipped), (sum(2, 0, 1), vec!["a: no tool".to_owned()]));
        // A program of ours counts what it skips itself.
        assert_eq!(report("5 passed, 0 failed, 1 skipped\n", true).sum, sum(5, 0, 1));
        let found = report("check b ... skipped: no data\n5 passed, 0 failed, 1 skipped\n", true);
        assert_eq!((found.sum, found.skipped), (sum(5, 0, 1), vec!["b: no data".to_owned()]));
        let impossible = report("SKIPPED: a: no tool\n", true);
        assert_eq!(impossible.why, Some("more tests were skipped than passed"));
        assert_eq!(impossible.sum.failed, 1);
    }

    #[test]
    fn failed_tests_are_named() {
        let output = "test a::b ... FAILED\ntest c ... ok\ncheck lints ... FAILED: warning\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\n";
        let found = report(output, false);
        assert_eq!((found.failed, found.sum), (vec!["a::b".to_owned(), "lints".to_owned()], sum(1, 2, 0)));
    }

    #[test]
    fn other_lines_are_not_results() {
        assert_eq!(result("test boot ... ok"), None);
        assert_eq!(result("test result: nonsense"), None);
        assert_eq!(result("  test result: ok. 1 passed; 0 failed"), None);
        assert_eq!(result("== check: 6 passed, 0 failed, 1 skipped in 3 s"), None);
    }

    #[test]
    fn silence_is_no_success() {
        let none = "test result: ok. 0 passed; 0 failed; 3 ignored\n";
        assert_eq!((report(none, true).sum, report(none, true).why), (FAILED, Some("it ran no test")));
        assert_eq!(report("", false).sum, FAILED);
        let passed = "test result: ok. 3 passed; 0 failed; 0 ignored\n";
        assert_eq!(report(passed, false).sum, sum(3, 1, 0), "it crashed after its tests");
        assert_eq!(report(&passed.replace("0 failed", "2 failed"), false).sum, sum(3, 2, 0));
        assert_eq!(report(passed, true).sum, sum(3, 0, 0));
    }
}
