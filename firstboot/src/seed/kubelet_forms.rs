// SPDX-License-Identifier: Apache-2.0
//! Forms of values in KubeletConfiguration, as Go and Kubernetes read them: durations, quantities, percentages, sets of
//! processors. Pure.

use serde_json::Value as Json;
use std::net::IpAddr;

/// A second, in nanoseconds.
pub(super) const SECOND: i64 = 1_000_000_000;
/// The largest number of most fields.
pub(super) const I32: i64 = i32::MAX as i64;

pub(super) fn all(value: &Json, good: impl Fn(&Json) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(good))
}

pub(super) fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

pub(super) fn is_network(text: &str) -> bool {
    text.is_empty() || text.split(',').all(|one| crate::names::network(one).is_some())
}

/// Go's strconv.ParseBool.
pub(super) fn is_bool(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"].contains(&text)
}

/// Absolute, without parts that path.Clean of Go would take out, and of ASCII characters.
pub(super) fn is_plain_path(text: &str) -> bool {
    let part = |part: &str| !["", ".", ".."].contains(&part);
    text.is_ascii() && text.strip_prefix('/').is_some_and(|rest| rest.is_empty() || rest.split('/').all(part))
}

/// Processors as k8s.io/utils/cpuset reads them.
pub(super) fn is_cpu_set(text: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    text.is_empty()
        || text.split(',').all(|range| match range.split_once('-') {
            Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
            None => number(range).is_some(),
        })
}

/// Kernel settings that have a namespace of their own in each pod (pkg/kubelet/sysctl/allowlist.go); `*` at the end.
pub(super) fn is_pod_sysctl(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    let within = ["kernel.shm", "kernel.msg", "fs.mqueue.", "net."].iter().any(|prefix| name.starts_with(prefix));
    (within || name == "kernel.sem") && name.bytes().all(plain) && !name.contains("..")
}

/// An image without tag and digest, or a prefix with `/*` (`ValidateAllowlistImagesPatterns`).
pub(super) fn is_image_pattern(text: &str) -> bool {
    let name = text.strip_suffix("/*").unwrap_or(text);
    let last = name.rsplit('/').next().unwrap_or_default();
    !name.is_empty() && !name.contains(['*', '@']) && (!last.contains(':') || name == last && text != name)
}

/// A target of gRPC that tracing takes: host with or without port.
pub(super) fn is_endpoint(text: &str) -> bool {
    let good =
        |url: reqwest::Url| url.has_host() && url.path() == "/" && url.username().is_empty() && url.query().is_none();
    text.is_empty() || text.starts_with("unix:/") || reqwest::Url::parse(&format!("http://{text}")).is_ok_and(good)
}

pub(super) fn is_flush_frequency(value: &Json) -> bool {
    value.as_str().and_then(duration).is_some_and(|d| d > 0) || value.as_i64().is_some_and(|n| n > 0)
}

pub(super) fn is_grace(value: &Json) -> bool {
    value.as_str().and_then(duration).is_some_and(|d| d == 0 || d >= SECOND)
}

pub(super) fn is_vmodule(value: &Json) -> bool {
    let one = |item: &Json| {
        let pattern =
            item.get("filePattern").and_then(Json::as_str).is_some_and(|p| !p.is_empty() && !p.contains(['=', ',']));
        pattern && item.get("verbosity").and_then(Json::as_u64).is_some_and(|v| v <= I32 as u64)
    };
    all(value, one)
}

pub(super) fn is_header(value: &Json) -> bool {
    value.as_object().is_some_and(|table| table.values().all(|list| all(list, Json::is_string)))
}

pub(super) fn is_priorities(value: &Json) -> bool {
    let whole =
        |item: &Json, key: &str, last: i64| item.get(key).and_then(Json::as_i64).is_some_and(|n| n.abs() <= last);
    all(value, |item| {
        item.as_object().is_some_and(|table| table.len() == 2)
            && whole(item, "priority", I32)
            && whole(item, "shutdownGracePeriodSeconds", i64::MAX)
    })
}

/// `validateReservedMemoryConfiguration`.
pub(super) fn is_reserved_memory(value: &Json) -> bool {
    let mut seen = Vec::new();
    all(value, |_| true)
        && value.as_array().into_iter().flatten().all(|item| {
            let node = item.get("numaNode").map_or(Some(0), Json::as_i64).filter(|n| (0..=I32).contains(n));
            let limits = item.get("limits").and_then(Json::as_object);
            let known = item
                .as_object()
                .is_some_and(|table| table.keys().all(|k| ["numaNode", "limits"].contains(&k.as_str())));
            let (Some(node), Some(limits), true) = (node, limits, known) else { return false };
            limits.iter().all(|(name, size)| {
                let new = !seen.contains(&(node, name.clone()));
                seen.push((node, name.clone()));
                let known = name == "memory" || name.strip_prefix("hugepages-").is_some_and(is_positive);
                new && known && size.as_str().is_some_and(is_positive)
            })
        })
}

/// `parseThresholdStatement`, pkg/kubelet/eviction/helpers.go.
pub(super) fn is_threshold(text: &str) -> bool {
    percentage(text).is_some() || is_positive(text)
}

pub(super) fn is_reclaim(text: &str) -> bool {
    match text.ends_with('%') {
        true => percentage(text).is_some_and(|p| p > 0.0),
        false => quantity(text).is_some_and(|q| q >= 0.0),
    }
}

pub(super) fn is_positive(text: &str) -> bool {
    quantity(text).is_some_and(|q| q > 0.0)
}

/// From 0% to 100%.
pub(super) fn percentage(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?;
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number.parse().ok().filter(|p| plain && (0.0..=100.0).contains(p))
}

/// A quantity of Kubernetes (k8s.io/apimachinery/pkg/api/resource/quantity.go): a number with a suffix; near its value.
pub(super) fn quantity(text: &str) -> Option<f64> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 10] =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let number: f64 = number.parse().ok().filter(|_| number.bytes().any(|b| b.is_ascii_digit()))?;
    let power = |power: i32| 10_f64.powi(power);
    let factor = if let Some(at) = BINARY.iter().position(|b| *b == suffix) {
        1024_f64.powi(at as i32 + 1)
    } else if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        power(*exponent)
    } else {
        power(suffix.strip_prefix(['e', 'E'])?.parse::<i16>().ok()?.into())
    };
    Some(if text.starts_with('-') { -number * factor } else { number * factor })
}

/// Nanoseconds, as `time.ParseDuration` of Go reads them: numbers, each with its unit, or a bare 0; none beyond 64 bits.
pub(super) fn duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok().filter(|_| number.bytes().any(|b| b.is_ascii_digit()))?;
        // The longest unit is the one that was meant: ms before m.
        let (unit, nanoseconds) =
            UNITS.iter().filter(|(u, _)| tail.starts_with(u)).max_by_key(|(u, _)| u.chars().count())?;
        total += number * nanoseconds;
        rest = &tail[unit.len()..];
    }
    let good = !text.is_empty() && !text.ends_with(['+', '-']) && total < i64::MAX as f64;
    good.then(|| if text.starts_with('-') { -(total as i64) } else { total as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5 * SECOND),
            ("1m30s", 90 * SECOND),
            ("1.5h", 5400 * SECOND),
            (".5s", SECOND / 2),
            ("100ms", SECOND / 10),
            ("-1s", -SECOND),
            ("10µs", 10_000),
            ("24h0m0s", 86_400 * SECOND),
        ] {
            assert_eq!(duration(text), Some(nanoseconds), "{text}");
        }
        for bad in ["", "5", "s", "1d", "5 s", "1.2.3s", "+", "1h5", ".", "9999999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn quantities_as_kubernetes_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("100Mi", 104_857_600.0),
            ("1.5Gi", 1.5 * 1_073_741_824.0),
            ("500m", 0.5),
            ("1e3", 1000.0),
            ("2E3", 2000.0),
            ("1E", 1e18),
            ("+1k", 1000.0),
            ("-1", -1.0),
            (".5", 0.5),
            ("5.", 5.0),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
        for bad in ["", "x", "1 Mi", "1mi", "1KB", "1.2.3", "Mi", "1e", "0x10", "--1", "1K"] {
            assert_eq!(quantity(bad), None, "{bad}");
        }
        assert_eq!((percentage("10%"), percentage("12.5%"), percentage("100%")), (Some(10.0), Some(12.5), Some(100.0)));
        assert_eq!(
            (percentage("101%"), percentage("-1%"), percentage("10"), percentage("%")),
            (None, None, None, None)
        );
    }

    #[test]
    fn processors_as_kubelet_reads_them() {
        assert!(["", "0", "0-1,3", "5,1"].into_iter().all(is_cpu_set));
        assert!(!["3-1", "0-x", " 1", "1,", "-1", "+1"].into_iter().any(is_cpu_set));
    }
}
