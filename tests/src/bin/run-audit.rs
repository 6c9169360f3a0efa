// SPDX-License-Identifier: Apache-2.0
//! `make audit`: auditors' tools on one device before firstboot and after it; `out/audit/report.json`. Fails when a
//! check of CIS Kubernetes section 4 fails, when firstboot's own audit finds drift, when Lynis's index is below
//! [`LEAST`], or when it says something that docs/hardening.md does not explain.

use anyhow::{Context, Result};
use e2e::audit::{self, lynis::Said};
use imagebuild::repo;
use qemu::progress::Progress;
use serde_json::Value;
use std::process::ExitCode;

/// Lowest index of Lynis that a joined device may have.
const LEAST: u64 = 80;

fn main() -> ExitCode {
    match run() {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            eprintln!("audit: {}", faults.join("\naudit: "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("audit: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<Vec<String>> {
    let report = audit::run(&mut Progress::default())?;
    let root = repo::root()?;
    let path = root.join("out/audit/report.json");
    let text = serde_json::to_string_pretty(&report).context("write the report")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("{}", shown(&report));
    println!("report: {}", path.display());
    let docs = root.join("docs/hardening.md");
    let docs = std::fs::read_to_string(&docs).with_context(|| format!("read {}", docs.display()))?;
    Ok(faults(&report, &docs))
}

fn count(report: &Value, verdict: &str) -> usize {
    let all = report["cis-kubernetes-4"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|check| check["verdict"] == verdict).count()
}

fn shown(report: &Value) -> String {
    let side = |which: &str| {
        let said = &report["lynis"][which];
        let len = |key: &str| said[key].as_array().map_or(0, Vec::len);
        format!("{} ({} warnings, {} suggestions)", said["index"], len("warnings"), len("suggestions"))
    };
    format!(
        "Lynis {}: before {}, after {}\nCIS Kubernetes section 4: {} PASS, {} WARN, {} FAIL\nfirstboot audit: {} findings",
        report["lynis"]["version"].as_str().unwrap_or_default(),
        side("before"),
        side("after"),
        count(report, "PASS"),
        count(report, "WARN"),
        count(report, "FAIL"),
        report["firstboot-audit"]["findings"].as_array().map_or(0, Vec::len),
    )
}

/// What is not as it has to be.
fn faults(report: &Value, docs: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let after = &report["lynis"]["after"];
    if after["index"].as_u64().is_none_or(|index| index < LEAST) {
        faults.push(format!("Lynis's index is {}, at least {LEAST} is wanted", after["index"]));
    }
    let pairs = |key: &str| -> Vec<(String, String)> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = after[key].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|e| (word(&e["id"]), word(&e["text"]))).collect()
    };
    let said = Said {
        version: String::new(),
        index: 0,
        tests: 0,
        warnings: pairs("warnings"),
        suggestions: pairs("suggestions"),
    };
    faults.extend(said.unexplained(docs).into_iter().map(|what| format!("docs/hardening.md does not explain {what}")));
    if count(report, "FAIL") > 0 || count(report, "PASS") == 0 {
        faults.push("CIS Kubernetes section 4 has checks that fail".to_owned());
    }
    let findings = report["firstboot-audit"]["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    for finding in findings.iter().filter(|f| f["state"] == "drift") {
        faults.push(format!("firstboot's audit: {finding}"));
    }
    faults
}
