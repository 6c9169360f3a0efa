// SPDX-License-Identifier: Apache-2.0
//! `featureGates`: kubelet ends with a gate that it does not know, with another value of one that is locked, and with a
//! gate that is on while one that it needs is off.

use serde_json::{Map, Value as Json};

/// A gate a line: its name, its default in each of [`MINORS`] (`on`, `off`, with `!` where it cannot be changed, `-` where
/// it is unknown), and the gates that it needs. `tests/judge/gates` prints a minor's part of it.
const DATA: &str = include_str!("../feature_gates.txt");

/// The minors of Kubernetes that an image may have, in the order of the columns of [`DATA`].
const MINORS: [&str; 2] = ["1.35", "1.36"];

struct Gate {
    name: &'static str,
    /// For each minor whether it is on by default and whether it is locked; none where it is unknown.
    states: [Option<(bool, bool)>; 2],
    needs: Vec<&'static str>,
}

fn gates() -> impl Iterator<Item = Gate> {
    let state = |word: Option<&str>| match word? {
        "-" => None,
        word => Some((word.starts_with("on"), word.ends_with('!'))),
    };
    DATA.lines().map(move |line| {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        Gate { name, states: [state(words.next()), state(words.next())], needs: words.collect() }
    })
}

fn gate(name: &str) -> Option<Gate> {
    gates().find(|gate| gate.name == name)
}

/// The gates of a seed.
pub(super) struct Gates<'a>(pub(super) Option<&'a Map<String, Json>>);

impl Gates<'_> {
    /// What the seed says of a gate.
    pub(super) fn set(&self, name: &str) -> Option<bool> {
        self.0?.get(name)?.as_bool()
    }

    /// Whether a gate is on in every minor.
    pub(super) fn on(&self, name: &str) -> bool {
        self.set(name).unwrap_or_else(|| gate(name).is_some_and(|g| g.states.into_iter().flatten().all(|(on, _)| on)))
    }

    /// Why kubelet would end with the gates, in words that go after `featureGates in [kubelet.config]`.
    pub(super) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(set) = self.0 else { return wrong };
        for (name, value) in set {
            let shown = super::super::reader::quoted(name);
            match gate(name) {
                _ if name == "AllAlpha" || name == "AllBeta" => {
                    wrong.push(format!("must not have {name}: set the gates by their names"));
                }
                None => wrong.push(format!("has a feature gate {shown} that kubelet does not know")),
                Some(gate) => wrong.extend(gate.refuses(value.as_bool().unwrap_or_default())),
            }
        }
        if !wrong.is_empty() {
            return wrong;
        }
        for gate in gates() {
            for need in &gate.needs {
                let touched = self.set(gate.name).is_some() || self.set(need).is_some();
                if touched && (0..MINORS.len()).any(|minor| self.lacks(&gate, need, minor)) {
                    wrong.push(format!("must have {need} = true, or {} = false, which needs it", gate.name));
                }
            }
        }
        wrong
    }

    /// Whether a gate is on, and one that it needs is off.
    fn lacks(&self, of: &Gate, need: &str, minor: usize) -> bool {
        let on = |gate: &Gate| gate.states[minor].map(|(default, _)| self.set(gate.name).unwrap_or(default));
        on(of) == Some(true) && gate(need).and_then(|gate| on(&gate)) == Some(false)
    }
}

impl Gate {
    fn refuses(&self, value: bool) -> Option<String> {
        MINORS.iter().zip(self.states).find_map(|(minor, state)| match state {
            None => Some(format!("must not have {}: kubelet {minor} does not know it", self.name)),
            Some((on, true)) if on != value => {
                Some(format!("must have {} = {on} or leave it out: it is locked", self.name))
            }
            Some(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(json: &str) -> Vec<String> {
        let set: Map<String, Json> = serde_json::from_str(json).unwrap();
        Gates(Some(&set)).wrong()
    }

    #[test]
    fn every_gate_is_read_and_has_what_it_needs() {
        for gate in gates() {
            assert!(gate.states.iter().any(Option::is_some), "{}", gate.name);
            for need in &gate.needs {
                assert!(super::gate(need).is_some(), "{} needs {need}", gate.name);
            }
        }
        assert!(gates().count() > 200);
    }

    #[test]
    fn gates_that_kubelet_refuses() {
        assert_eq!(wrong(r#"{ "NodeLogQuery": true, "MemoryQoS": true, "LoggingAlphaOptions": true }"#), [""; 0]);
        assert_eq!(
            wrong(r#"{ "NoSuchGate": true }"#),
            ["has a feature gate \"NoSuchGate\" that kubelet does not know"]
        );
        assert_eq!(wrong(r#"{ "AllBeta": false }"#), ["must not have AllBeta: set the gates by their names"]);
        assert_eq!(wrong(r#"{ "NodeSwap": false }"#), ["must have NodeSwap = true or leave it out: it is locked"]);
        assert_eq!(
            wrong(r#"{ "GracefulNodeShutdown": false }"#),
            [
                "must have GracefulNodeShutdown = true, or GracefulNodeShutdownBasedOnPodPriority = false, which needs it",
                "must have GracefulNodeShutdown = true, or WindowsGracefulNodeShutdown = false, which needs it"
            ]
        );
        let shutdown = r#"{ "GracefulNodeShutdown": false, "GracefulNodeShutdownBasedOnPodPriority": false,
                           "WindowsGracefulNodeShutdown": false }"#;
        assert_eq!(wrong(shutdown), [""; 0]);
    }

    #[test]
    fn a_gate_is_on_where_the_seed_says_so_or_every_minor_has_it_on() {
        let set: Map<String, Json> =
            serde_json::from_str(r#"{ "LoggingBetaOptions": false, "MemoryQoS": true }"#).unwrap();
        let on = |name| Gates(Some(&set)).on(name);
        assert!(on("MemoryQoS") && on("KubeletCrashLoopBackOffMax"));
        assert!(!on("LoggingBetaOptions") && !on("CustomCPUCFSQuotaPeriod") && !on("NodeLogQuery"));
    }
}
