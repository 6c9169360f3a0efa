// SPDX-License-Identifier: Apache-2.0
//! Reading firstboot-status.txt, as a person with the card in a laptop would.

use serde::Serialize;

/// Seconds that a phase took on the device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseTime {
    /// Name of the phase.
    pub name: String,
    /// Seconds.
    pub seconds: f64,
}

/// The value of `key: value`.
pub fn value<'t>(status: &'t str, key: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim_end)
}

/// The phases done, in order.
pub fn phases(status: &str) -> Vec<PhaseTime> {
    let table = status.lines().skip_while(|line| !line.starts_with("phases, with seconds:")).skip(1);
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let time = PhaseTime { name: words.next()?.to_owned(), seconds: words.next()?.parse().ok()? };
        words.next().is_none().then_some(time)
    };
    table.map_while(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstboot::status::{State, Status, padded};

    #[test]
    fn what_the_device_writes_is_understood() {
        let status = Status {
            state: State::Joined,
            node: Some("edge-0001".into()),
            phases: vec![("identity".into(), 0.25), ("join".into(), 12.0)],
            ..Status::default()
        };
        let text = String::from_utf8(padded(&status.text())).unwrap();
        assert_eq!(value(&text, "state"), Some("joined"));
        assert_eq!(value(&text, "node"), Some("edge-0001"));
        assert_eq!(value(&text, "error"), None);
        let time = |name: &str, seconds| PhaseTime { name: name.to_owned(), seconds };
        assert_eq!(phases(&text), [time("identity", 0.25), time("join", 12.0)]);
    }
}
