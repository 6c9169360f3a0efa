// SPDX-License-Identifier: Apache-2.0
//! Values of `[kubelet.config]` that are refused, with their messages. Which values kubelet itself takes is tested with
//! kubelet's code: tests/tests/consumers.rs.

use super::between::HARDENED;
use super::rules::RULES;
use crate::seed::kubelet_fields::FIELDS;
use serde_json::{Map, Value as Json};

/// What is wrong with the lines of a table.
fn wrong(lines: &str) -> Vec<String> {
    let table: toml::Table = toml::from_str(lines).unwrap();
    let json: Map<String, Json> = serde_json::from_value(serde_json::to_value(table).unwrap()).unwrap();
    super::wrong(&json).into_iter().map(|(field, text)| format!("{field}: {text}")).collect()
}

#[test]
fn every_rule_is_of_a_field_and_of_another_one() {
    for (number, (name, _)) in RULES.iter().enumerate() {
        assert!(FIELDS.iter().any(|(field, _)| field == name), "{name}");
        assert!(RULES[..number].iter().all(|(other, _)| other != name), "{name}");
    }
}

#[test]
fn values_of_the_hardened_host_are_what_the_rules_take_them_for() {
    for (path, value) in HARDENED {
        let field = crate::harden::kubelet::fields::FIELDS.iter().find(|field| field.path == path).unwrap();
        assert_eq!(field.value, value, "{path}");
    }
}

#[test]
fn the_hardened_host_itself_is_not_refused() {
    let mut all: Map<String, Json> = serde_json::from_str(&crate::harden::kubelet::fields::drop_in().unwrap()).unwrap();
    all.retain(|name, _| FIELDS.iter().any(|(field, _)| field == name));
    assert!(all.len() > 15, "{}", all.len());
    assert_eq!(super::wrong(&all), []);
}

/// The cases that are also given to kubelet.
#[test]
fn every_field_has_a_value_that_is_accepted() {
    let cases = include_str!("../../../../tests/src/consumers/kubelet_values.txt");
    let accepted: Vec<&str> =
        cases.lines().filter(|l| !l.starts_with('#')).filter(|line| reads(&line.replace("; ", "\n"))).collect();
    for (field, _) in FIELDS {
        assert!(accepted.iter().any(|line| line.split("; ").any(|l| l.starts_with(&format!("{field} = ")))), "{field}");
    }
}

fn reads(lines: &str) -> bool {
    let head = "version = 1\n[cluster]\ntoken = \"abcdef.0123456789abcdef\"\napiserver = \"10.0.0.1:6443\"\n";
    let hash = "0a".repeat(32);
    let text = format!("{head}ca-cert-hashes = \"sha256:{hash}\"\n[kubelet.config]\n{lines}\n");
    crate::seed::parse(text.as_bytes()).is_ok()
}

#[test]
fn messages() {
    let of = |field: &str, text: &str| vec![format!("{field}: {text}")];
    for (lines, field, text) in [
        ("maxPods = -1", "maxPods", "maxPods in [kubelet.config] must be a whole number from 0 to 65535"),
        ("podsPerCore = -1", "podsPerCore", "podsPerCore in [kubelet.config] must be a whole number, 0 or more"),
        (
            "evictionMaxPodGracePeriod = 2147483648",
            "evictionMaxPodGracePeriod",
            "evictionMaxPodGracePeriod in [kubelet.config] must be a whole number from -2147483648 to 2147483647",
        ),
        (
            "cpuManagerPolicy = \"best\"",
            "cpuManagerPolicy",
            "cpuManagerPolicy in [kubelet.config] must be \"none\" or \"static\"",
        ),
        (
            "evictionHard = { \"memory.available\" = \"x\" }",
            "evictionHard",
            "evictionHard.\"memory.available\" in [kubelet.config] must be a percentage from 0% to 100% or a quantity above \
             0 in quotes, as in \"10%\" or \"100Mi\"",
        ),
        (
            "systemReserved = { disk = \"1\" }",
            "systemReserved",
            "systemReserved in [kubelet.config] must be a table with the keys cpu, memory, ephemeral-storage or pid",
        ),
        (
            "reservedMemory = [{ numaNode = -1, limits = { memory = \"1Gi\" } }]",
            "reservedMemory",
            "reservedMemory[0].numaNode in [kubelet.config] must be a whole number, 0 or more",
        ),
        (
            "memorySwap = { swapBehaviour = \"NoSwap\" }",
            "memorySwap",
            "memorySwap in [kubelet.config] must be a table of swapBehavior",
        ),
        (
            "tlsCurvePreferences = [29, 29]",
            "tlsCurvePreferences",
            "tlsCurvePreferences[1] in [kubelet.config] must be another value than those before it",
        ),
        (
            "imageGCHighThresholdPercent = 60",
            "imageGCHighThresholdPercent",
            "imageGCHighThresholdPercent in [kubelet.config] must be more than imageGCLowThresholdPercent; the hardened \
             host has 70 there",
        ),
        (
            "maxParallelImagePulls = 3",
            "maxParallelImagePulls",
            "maxParallelImagePulls in [kubelet.config] needs serializeImagePulls = false beside it",
        ),
        (
            "evictionSoft = { \"memory.available\" = \"200Mi\" }",
            "evictionSoft",
            "evictionSoft in [kubelet.config] needs \"memory.available\" in evictionSoftGracePeriod beside it",
        ),
        (
            "featureGates = { NodeSwap = false }",
            "featureGates",
            "featureGates in [kubelet.config] must have NodeSwap = true or leave it out: it is locked",
        ),
    ] {
        assert_eq!(wrong(lines), of(field, text), "{lines}");
    }
}

#[test]
fn no_message_repeats_a_value() {
    let secret = "q7w2e9r4t1y6u8i3";
    for lines in [
        format!("hairpinMode = \"{secret}\""),
        format!("systemReserved = {{ {secret} = \"1\" }}"),
        format!("featureGates = {{ {secret} = true }}"),
        format!("staticPodURLHeader = {{ {secret} = 1 }}"),
        format!("logging = {{ {secret} = 1 }}"),
    ] {
        let wrong = wrong(&lines);
        assert!(wrong.len() == 1 && !wrong[0].contains(secret), "{wrong:?}");
    }
}
