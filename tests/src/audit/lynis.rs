// SPDX-License-Identifier: Apache-2.0
//! Lynis's report (`--report-file`): lines `key=value` and `key[]=value`, parts of a value joined by `|`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What it said of one device.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Of Lynis.
    pub version: String,
    /// Hardening index, 0 to 100.
    pub index: u32,
    /// Tests that it ran.
    pub tests: usize,
    /// Id and text.
    pub warnings: Vec<(String, String)>,
    /// Id, text and, where it names one, the setting.
    pub suggestions: Vec<(String, String)>,
}

impl Said {
    /// Reads a report.
    ///
    /// # Errors
    /// It has no index: Lynis did not come to its end.
    pub fn read(report: &str) -> Result<Self> {
        let value = |key: &str| report.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        let index = value("hardening_index").and_then(|i| i.trim().parse().ok());
        let list = |key: &str| {
            let prefix = format!("{key}[]=");
            let lines = report.lines().filter_map(|l| l.strip_prefix(&prefix).map(str::to_owned));
            lines.map(|line| entry(&line)).collect::<Vec<_>>()
        };
        Ok(Said {
            version: value("lynis_version").unwrap_or_default().trim().to_owned(),
            index: index.context("find the hardening index")?,
            tests: value("tests_executed").unwrap_or_default().split('|').filter(|t| !t.is_empty()).count(),
            warnings: list("warning"),
            suggestions: list("suggestion"),
        })
    }

    /// For the report.
    pub fn shown(&self) -> Value {
        let list = |all: &[(String, String)]| -> Vec<Value> {
            all.iter().map(|(id, text)| json!({ "id": id, "text": text })).collect()
        };
        json!({
            "index": self.index, "tests": self.tests, "warnings": list(&self.warnings),
            "suggestions": list(&self.suggestions),
        })
    }

    /// Those of its warnings and suggestions for which the section "Lynis" of docs/hardening.md has no row.
    pub fn unexplained(&self, docs: &str) -> Vec<String> {
        let section = docs.split("\n## Lynis\n").nth(1).unwrap_or_default();
        let section = section.split("\n## ").next().unwrap_or_default();
        let all = self.warnings.iter().chain(&self.suggestions);
        let known = |id: &str| section.lines().any(|l| l.starts_with(&format!("| {id} | ")));
        all.filter(|(id, _)| !known(id)).map(|(id, text)| format!("{id}: {text}")).collect()
    }
}

/// `ID|text|details|solution|`.
fn entry(line: &str) -> (String, String) {
    let mut parts = line.split('|');
    let id = parts.next().unwrap_or_default().to_owned();
    let rest: Vec<&str> = parts.filter(|p| !p.is_empty() && *p != "-").collect();
    (id, rest.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REPORT: &str = "# Lynis Report\nlynis_version=3.1.4\nwarning[]=BOOT-1|No|-|-|\nsuggestion[]=KRNL-6000|One or more|net.x|change|\n\
                          tests_executed=A-1|B-2|\nhardening_index=66\n";

    #[test]
    fn a_report_is_read() {
        let said = Said::read(REPORT).unwrap();
        assert_eq!((said.index, said.tests, said.version.as_str()), (66, 2, "3.1.4"));
        assert_eq!(said.warnings, [("BOOT-1".to_owned(), "No".to_owned())]);
        assert_eq!(said.suggestions, [("KRNL-6000".to_owned(), "One or more; net.x; change".to_owned())]);
        assert!(Said::read("hardening_index=\n").is_err());
    }

    #[test]
    fn what_has_no_reason_is_named() {
        let said = Said::read(REPORT).unwrap();
        let docs = "# A\n\n## Lynis\n\n| BOOT-1 | x |\n\n## B\n| KRNL-6000 | elsewhere |\n";
        assert_eq!(said.unexplained(docs), ["KRNL-6000: One or more; net.x; change"]);
        assert_eq!(said.unexplained("").len(), 2);
    }
}
