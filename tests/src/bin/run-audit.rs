// SPDX-License-Identifier: Apache-2.0
//! `make audit`: auditors' tools on one device before firstboot and after it; `out/audit/report.json`. Fails when a
//! check of CIS Kubernetes section 4 fails, when firstboot's own audit finds drift, when Lynis's index is below
//! [`LEAST`], or when it reports something that docs/hardening.md does not explain.

use anyhow::{Context, Result};
use e2e::audit::{self, Audited};
use imagebuild::repo;
use qemu::progress::Progress;
use serde_json::Value;
use std::process::ExitCode;

/// Lowest index of Lynis that a joined device may have.
const LEAST: u32 = 80;

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
    let audited = audit::run(&mut Progress::default())?;
    let root = repo::root()?;
    let path = root.join("out/audit/report.json");
    let text = serde_json::to_string_pretty(&audited.report).context("write the report")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    println!("{}", shown(&audited.report));
    println!("report: {}", path.display());
    let docs = root.join("docs/hardening.md");
    let docs = std::fs::read_to_string(&docs).with_context(|| format!("read {}", docs.display()))?;
    Ok(faults(&audited, &docs))
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

/// The violations.
fn faults(audited: &Audited, docs: &str) -> Vec<String> {
    let Audited { lynis, ports, report } = audited;
    let mut faults = Vec::new();
    if !ports.is_empty() {
        faults.push(format!("strangers find ports open: {}", ports.join(", ")));
    }
    if lynis.index < LEAST {
        faults.push(format!("Lynis's index is {}, at least {LEAST} is wanted", lynis.index));
    }
    faults.extend(lynis.unexplained(docs).into_iter().map(|what| format!("docs/hardening.md does not explain {what}")));
    if count(report, "FAIL") > 0 || count(report, "PASS") == 0 {
        faults.push("CIS Kubernetes section 4 has checks that fail".to_owned());
    }
    let findings = report["firstboot-audit"]["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    for finding in findings.iter().filter(|f| f["state"] == "drift") {
        faults.push(format!("firstboot's audit: {finding}"));
    }
    faults
}
