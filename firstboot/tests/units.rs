// SPDX-License-Identifier: Apache-2.0
//! Units as `systemd-analyze security` judges them, and docs/hardening.md, which says why they are not stricter.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod doc_tables;
#[path = "../../tests/skip.rs"]
mod skip;

use firstboot::harden::units::{UNITS, settings};
use std::path::Path;
use std::process::Command;

fn docs() -> String {
    let path = Path::new("../docs/hardening.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## Units\n").nth(1).unwrap();
    doc_tables::joined(section.split("\n## ").next().unwrap())
}

#[test]
fn every_setting_and_its_reason_are_in_the_docs() {
    let docs = docs();
    let mut missing = Vec::new();
    for (name, text, _) in UNITS {
        for setting in settings(text) {
            let row = format!("| `{}={}` | ", setting.key, setting.value);
            if !docs.lines().any(|line| line.starts_with(&row) && line.ends_with(&format!("| {} |", setting.why))) {
                missing.push(format!("{name}: {}={} ({})", setting.key, setting.value, setting.why));
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/hardening.md, Units:\n{}", missing.join("\n"));
}

/// What the tool finds open is named in the docs, and the sum is at most what they say.
#[test]
fn what_is_left_open_is_explained() {
    let docs = docs();
    for (name, ..) in UNITS {
        let unit = Path::new("units").join(name);
        let answer =
            Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit).output();
        let Some(answer) = answer.ok().filter(|a| a.status.success()) else {
            skip::skip_unless_ci("systemd-analyze is not installed, or older than version 250");
            return;
        };
        let said = String::from_utf8(answer.stdout).unwrap();
        let limit =
            docs.lines().find_map(|l| l.strip_prefix(&format!("| `{name}` | "))?.trim_end_matches(" |").parse().ok());
        let limit: f64 = limit.unwrap_or_else(|| panic!("{name} has no row in docs/hardening.md, Units"));
        let sum = said.lines().find_map(|l| l.split("Overall exposure level for ").nth(1)?.split([' ', ':']).nth(2));
        let sum: f64 = sum.unwrap().parse().unwrap();
        assert!(sum <= limit, "{name}: {sum}, at most {limit} by docs/hardening.md");
        let open = said.lines().filter_map(|l| l.strip_prefix("✗ ")?.split_whitespace().next());
        // containerd's rest is explained by kind.
        let unexplained: Vec<&str> = open
            .filter(|point| !docs.contains(&format!("`{point}`")))
            .filter(|point| *name != "containerd.service" || !point.contains("=~"))
            .collect();
        assert!(unexplained.is_empty(), "{name}, not explained in docs/hardening.md, Units: {unexplained:#?}");
    }
}
