// SPDX-License-Identifier: Apache-2.0
//! `firstboot audit`, area firewall, against what this machine's nft says of the loaded rules.

use super::fixture::{Fixture, seed};
use firstboot::audit::AREAS;
use firstboot::check::{Finding, Verdict};
use firstboot::firewall::peers::ClusterPeers;
use firstboot::harden::overrides::{AuditContext as Audited, SeedOverrides};
use firstboot::host::Host;
use firstboot::host::fake::Fake;
use std::rc::Rc;

/// Ids and what was found of everything that is not in this state.
fn but(findings: &[Finding], state: Verdict) -> Vec<String> {
    findings.iter().filter(|f| f.state != state).map(|f| format!("{}: {}", f.id, f.found)).collect()
}

#[test]
fn audit_reports_rules_that_hold_and_rules_that_changed() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Rc::new(Fixture::new(&[9100]));
    let device = fixture.clone();
    let fake = Fake::new().0.answering(move |argv| {
        let out = device.device.run(argv[0], &argv[1..]);
        Some(out.and_then(|o| Ok(String::from_utf8(o)?)))
    });
    let root = tempfile::tempdir().unwrap();
    let host = Host::open(root.path(), Box::new(fake)).unwrap();
    let area = AREAS.iter().find(|a| a.name == "firewall").unwrap();
    let look = |more: &str| {
        let seed = seed(more);
        ClusterPeers::from_seed(&seed, ClusterPeers::default()).store(&host).unwrap();
        (area.audit)(&Audited { host: &host, kept: SeedOverrides::of(&seed) })
    };
    // No table at all.
    assert!(look("").is_err());
    fixture.filter("");
    let findings = look("").unwrap();
    assert_eq!(but(&findings, Verdict::Ok), [""; 0]);
    assert!(findings.iter().any(|f| f.id == "firewall/apiservers" && f.found == "192.168.77.10, fd00:77::10"));
    let more = "[harden]\nopen = [\"udp/8472\", \"tcp/30000-30010\"]\nkubelet-from = [\"10.0.0.0/24\", \"10.0.1.0/24\"]\n\
                egress = \"192.0.2.0/24\"\nforward = true\n[access]\nssh-from = \"10.2.0.0/16\"\nssh-keys = \"ssh-ed25519 \
                AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n";
    fixture.filter(more);
    let findings = look(more).unwrap();
    assert!(findings.iter().all(|f| f.state != Verdict::Drift), "{findings:#?}");
    assert_eq!(
        but(&findings, Verdict::Ok),
        [
            "firewall/ports: tcp/30000-30010, udp/546, udp/68, udp/8472",
            "firewall/kubelet-from: 10.0.0.0/23",
            "firewall/forward: filter forward 0 drop, 1 rules accept, 4 ask the egress list",
            "firewall/ssh-from: 10.2.0.0/16",
        ]
    );
    // The seed says less than what is loaded.
    let less = look("").unwrap();
    assert!(less.iter().any(|f| f.id == "firewall/ports" && f.state == Verdict::Drift), "{less:#?}");
    for (change, drifted) in [
        ("add rule inet firstboot input tcp dport 4444 accept", &["firewall/ports", "firewall/input-rules"][..]),
        ("insert rule inet firstboot input accept", &["firewall/input-rules"]),
        ("add chain inet firstboot input { policy accept ; }", &["firewall/input"]),
        ("add element inet firstboot apiservers_v4 { 203.0.113.7 }", &["firewall/apiservers"]),
        (
            "add rule inet firstboot input tcp dport 10250 accept",
            &["firewall/ports", "firewall/kubelet", "firewall/input-rules"],
        ),
        ("flush chain inet firstboot nodeports", &["firewall/nodeports"]),
        ("flush chain inet firstboot ownports", &["firewall/own-ports"]),
        ("flush chain inet firstboot output", &["firewall/account"]),
        ("insert rule inet firstboot output accept", &["firewall/account"]),
        ("add chain inet firstboot forward { policy accept ; }", &["firewall/forward"]),
        ("add rule inet firstboot forward accept", &["firewall/forward"]),
    ] {
        fixture.filter("");
        fixture.nft(&change.split(' ').collect::<Vec<_>>());
        let findings = look("").unwrap();
        let found: Vec<&str> = findings.iter().filter(|f| f.state == Verdict::Drift).map(|f| f.id.as_str()).collect();
        assert_eq!(found, drifted, "{change}: {findings:#?}");
    }
}
