// SPDX-License-Identifier: Apache-2.0
//! `firstboot audit`: compares every setting of the hardened host with the running machine.
//!
//! [`AREAS`] is the list. Nothing here changes the machine, and nothing here relies on what firstboot wrote: the audit
//! reads the files again, and queries the kernel, the packet filter, the service manager and kubelet.

use crate::fault::{Code, Fault};
use crate::finding::{Finding, Verdict};
use crate::harden::overrides::{AuditContext, SeedOverrides};
use crate::host::Host;
use crate::text::one_line;
use crate::{firewall, harden};
use anyhow::{Context, Result};
use serde::Serialize;

/// One kind of setting.
pub struct Area {
    /// Name of the area, the first part of the ids of its findings.
    pub name: &'static str,
    /// Reads all settings of the area back; an error means that they cannot be read, which counts as drift.
    pub audit: fn(&AuditContext<'_>) -> Result<Vec<Finding>>,
}

/// All areas, in the order of the phases that set them.
pub const AREAS: &[Area] = &[
    Area { name: "sysctl", audit: harden::sysctl::audit },
    Area { name: "modules", audit: harden::modules::audit },
    Area { name: "boot", audit: harden::boot::audit },
    Area { name: "apparmor", audit: harden::boot::audit_apparmor },
    Area { name: "mounts", audit: harden::mounts::audit },
    Area { name: "firewall", audit: firewall::audit::audit },
    Area { name: "access", audit: harden::access::audit },
    Area { name: "login", audit: harden::login::audit },
    Area { name: "kubelet", audit: harden::kubelet::audit::audit },
    Area { name: "containerd", audit: harden::containerd::audit },
    Area { name: "units", audit: harden::units::audit },
    Area { name: "files", audit: harden::files::audit },
];

/// Audits all areas.
///
/// # Errors
/// When the kept overrides of the seed cannot be read.
pub fn of_device(host: &Host) -> Result<Vec<Finding>> {
    let context = AuditContext { host, kept: SeedOverrides::read(host)? };
    let area = |area: &Area| match (area.audit)(&context) {
        Ok(findings) => findings,
        Err(error) => vec![Finding {
            id: area.name.to_owned(),
            state: Verdict::Drift,
            wanted: "to be read".to_owned(),
            found: one_line(&format!("{error:#}")),
            why: "a setting that cannot be read back is not verified".to_owned(),
        }],
    };
    Ok(AREAS.iter().flat_map(area).collect())
}

#[derive(Serialize)]
struct JsonReport<'a> {
    version: u32,
    findings: &'a [Finding],
}

/// The findings as JSON (`--json`), or as text: every finding that is not `Ok`, then the counts.
///
/// # Errors
/// Never in practice: every value can be encoded.
pub fn render(findings: &[Finding], json: bool) -> Result<String> {
    if json {
        let text = serde_json::to_string_pretty(&JsonReport { version: 1, findings }).context("encode the findings")?;
        return Ok(text + "\n");
    }
    let mut text = String::new();
    for finding in findings.iter().filter(|f| f.state != Verdict::Ok) {
        let Finding { id, wanted, found, why, .. } = finding;
        text += &match finding.state {
            Verdict::Drift => format!("drift      {id}: {found}, wanted {wanted} ({why})\n"),
            Verdict::Unchecked => format!("unchecked  {id}: {found} ({why})\n"),
            _ => format!("exception  {id}: {found}, by the seed ({why})\n"),
        };
    }
    let count = |state: Verdict| findings.iter().filter(|f| f.state == state).count();
    let (ok, exceptions, drift) = (count(Verdict::Ok), count(Verdict::Exception), count(Verdict::Drift));
    let unchecked = count(Verdict::Unchecked);
    Ok(format!("{text}{ok} ok, {exceptions} excepted by the seed, {unchecked} unchecked, {drift} drifted\n"))
}

/// Fails when a setting drifted.
///
/// # Errors
/// A host fault that names the settings.
pub fn judge(findings: &[Finding]) -> Result<(), Fault> {
    let drifted: Vec<&str> = findings.iter().filter(|f| f.state == Verdict::Drift).map(|f| f.id.as_str()).collect();
    match drifted.is_empty() {
        true => Ok(()),
        false => {
            let (number, ids) = (drifted.len(), drifted.join(", "));
            Err(Fault::new(Code::AuditDrift, format!("audit this device: {number} of its settings drifted: {ids}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let one = |id: &str, exception, found: Option<&str>| {
            Finding::compare(id.to_owned(), "2", exception, found.map(str::to_owned), "the reason")
        };
        vec![
            one("sysctl/a", None, Some("2")),
            one("sysctl/b", None, Some("1")),
            one("sysctl/c", Some("1"), Some("1")),
            one("sysctl/d", Some("1"), Some("2")),
            one("sysctl/e", None, None),
        ]
    }

    #[test]
    fn drift_is_printed_and_is_a_fault() {
        let text = "drift      sysctl/b: 1, wanted 2 (the reason)\n\
                    exception  sysctl/c: 1, by the seed (the reason)\n\
                    drift      sysctl/d: 2, wanted 1 (the reason)\n\
                    drift      sysctl/e: missing, wanted 2 (the reason)\n\
                    1 ok, 1 excepted by the seed, 0 unchecked, 3 drifted\n";
        assert_eq!(render(&findings(), false).unwrap(), text);
        let fault = judge(&findings()).unwrap_err();
        assert_eq!(fault.code, Code::AuditDrift);
        assert_eq!(fault.to_string(), "audit this device: 3 of its settings drifted: sysctl/b, sysctl/d, sysctl/e");
        assert!(judge(&findings()[..1]).is_ok());
    }

    #[test]
    fn json_has_every_finding() {
        let json: serde_json::Value = serde_json::from_str(&render(&findings(), true).unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["findings"].as_array().unwrap().len(), 5);
        assert_eq!(json["findings"][2]["state"], "exception");
    }
}
