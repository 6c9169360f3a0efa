// SPDX-License-Identifier: Apache-2.0
//! `firstboot audit`: is this host still as it was hardened? Every setting is read back from the running machine.
//!
//! [`AREAS`] is the list. Nothing here changes the machine, and nothing here trusts what was written: files are read
//! again, the kernel, the packet filter, the service manager and kubelet are asked.

use crate::fault::{Fault, Owner};
use crate::finding::{Finding, Verdict};
use crate::harden::overrides::{AuditContext, SeedOverrides};
use crate::host::Host;
use crate::text::one_line;
use crate::{firewall, harden};
use anyhow::{Context, Result};
use serde::Serialize;

/// One kind of setting.
pub struct Area {
    /// Its name, the first part of the ids of what it finds.
    pub name: &'static str,
    /// Reads all its settings back; an error means that it cannot tell, which counts as drift.
    pub look: fn(&AuditContext<'_>) -> Result<Vec<Finding>>,
}

/// All that is looked at, in the order of the phases that made it.
pub const AREAS: &[Area] = &[
    Area { name: "sysctl", look: harden::sysctl::audit },
    Area { name: "modules", look: harden::modules::audit },
    Area { name: "boot", look: harden::boot::audit },
    Area { name: "apparmor", look: harden::boot::audit_apparmor },
    Area { name: "mounts", look: harden::mounts::audit },
    Area { name: "firewall", look: firewall::audit::audit },
    Area { name: "access", look: harden::access::audit },
    Area { name: "login", look: harden::login::audit },
    Area { name: "kubelet", look: harden::kubelet::audit::audit },
    Area { name: "containerd", look: harden::containerd::audit },
    Area { name: "units", look: harden::units::audit },
    Area { name: "files", look: harden::files::audit },
];

/// Looks at everything.
///
/// # Errors
/// When what the seed wanted otherwise cannot be read.
pub fn of_device(host: &Host) -> Result<Vec<Finding>> {
    let context = AuditContext { host, kept: SeedOverrides::read(host)? };
    let area = |area: &Area| match (area.look)(&context) {
        Ok(findings) => findings,
        Err(error) => vec![Finding {
            id: area.name.to_owned(),
            state: Verdict::Drift,
            wanted: "to be read".to_owned(),
            found: one_line(&format!("{error:#}")),
            why: "what cannot be read back is not known to hold".to_owned(),
        }],
    };
    Ok(AREAS.iter().flat_map(area).collect())
}

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    findings: &'a [Finding],
}

/// The findings as `--json` has them, or for people: what drifted and what is excepted, then the sum.
///
/// # Errors
/// Never in practice: every value has a text.
pub fn shown(findings: &[Finding], json: bool) -> Result<String> {
    if json {
        let text = serde_json::to_string_pretty(&Answer { version: 1, findings }).context("encode the findings")?;
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

/// A fault of the host when anything drifted.
///
/// # Errors
/// That fault.
pub fn judge(findings: &[Finding]) -> Result<(), Fault> {
    let drifted: Vec<&str> = findings.iter().filter(|f| f.state == Verdict::Drift).map(|f| f.id.as_str()).collect();
    match drifted.is_empty() {
        true => Ok(()),
        false => {
            let (number, ids) = (drifted.len(), drifted.join(", "));
            Err(Fault::new(Owner::Host, format!("audit this device: {number} of its settings drifted: {ids}")))
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
    fn drift_is_told_and_is_a_fault() {
        let text = "drift      sysctl/b: 1, wanted 2 (the reason)\n\
                    exception  sysctl/c: 1, by the seed (the reason)\n\
                    drift      sysctl/d: 2, wanted 1 (the reason)\n\
                    drift      sysctl/e: missing, wanted 2 (the reason)\n\
                    1 ok, 1 excepted by the seed, 0 unchecked, 3 drifted\n";
        assert_eq!(shown(&findings(), false).unwrap(), text);
        let fault = judge(&findings()).unwrap_err();
        assert_eq!(fault.owner, Owner::Host);
        assert_eq!(fault.to_string(), "audit this device: 3 of its settings drifted: sysctl/b, sysctl/d, sysctl/e");
        assert!(judge(&findings()[..1]).is_ok());
    }

    #[test]
    fn json_has_every_finding() {
        let json: serde_json::Value = serde_json::from_str(&shown(&findings(), true).unwrap()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["findings"].as_array().unwrap().len(), 5);
        assert_eq!(json["findings"][2]["state"], "exception");
    }
}
