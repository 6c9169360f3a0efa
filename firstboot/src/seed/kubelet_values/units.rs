// SPDX-License-Identifier: Apache-2.0
//! Durations of Go and quantities of Kubernetes, as kubelet reads them.

/// Nanoseconds of each unit of Go's `time.ParseDuration`; a longer unit before one that it begins with.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
];

/// `time.ParseDuration` of Go: numbers, each with its unit, or a bare 0. In nanoseconds; none where Go refuses it, also
/// because it does not fit.
pub(in crate::seed) fn go_duration(text: &str) -> Option<i64> {
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (name, unit) = UNITS.into_iter().find(|(name, _)| tail.starts_with(name))?;
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // More than 18 digits are below a nanosecond of an hour.
        let digits = &fraction[..fraction.len().min(18)];
        let part =
            if digits.is_empty() { 0 } else { digits.parse::<u128>().ok()? * unit / 10u128.pow(digits.len() as u32) };
        total = whole.checked_mul(unit)?.checked_add(part)?.checked_add(total)?;
        rest = &tail[name.len()..];
    }
    match i64::try_from(total) {
        Ok(total) if negative => Some(-total),
        Ok(total) => Some(total),
        // -2⁶³ ns alone has no positive counterpart.
        Err(_) => (negative && total == 1 << 63).then_some(i64::MIN),
    }
}

/// A quantity (k8s.io/apimachinery, pkg/api/resource/quantity.go): a number with an optional unit, as in `100Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantity {
    /// In billionths, rounded away from zero; what is too large for that is as large as it can be.
    pub(super) nano: i128,
    /// What Go's `AsInt64` gives: a whole number that was written in a short form, which 1.5Gi is not.
    pub(super) int64: Option<i64>,
}

/// Decimal and binary units with their exponents.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Reads a quantity; none where kubelet refuses it. Exponents beyond 18 are refused too.
pub(super) fn quantity(text: &str) -> Option<Quantity> {
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let digits = format!("{whole}{fraction}");
    let signed = |value: i128| if negative { -value } else { value };
    let value: Option<i128> = if digits.is_empty() { Some(0) } else { digits.parse().ok() };
    // Go counts the 0 that it puts in for a number without digits before the point.
    let count = whole.len().max(1) as i32 + fraction.len() as i32;
    let places = fraction.len() as i32;
    if let Some((_, exponent)) = BINARY.into_iter().find(|(unit, _)| *unit == suffix) {
        let exact = value.and_then(|v| v.checked_mul(1 << exponent)?.checked_mul(1_000_000_000));
        let short = places == 0 && 15 - count - (exponent * 3 / 10) as i32 > 0;
        let int64 = value.filter(|_| short).and_then(|v| i64::try_from(signed(v.checked_mul(1 << exponent)?)).ok());
        let nano = exact.map_or(i128::MAX, |v| tenths(v, -places).unwrap_or(i128::MAX));
        // A binary quantity is at most 2⁶³-1.
        return Some(Quantity { nano: signed(nano.min(i128::from(i64::MAX) * 1_000_000_000)), int64 });
    }
    let exponent = match DECIMAL.into_iter().find(|(unit, _)| *unit == suffix) {
        Some((_, exponent)) => exponent,
        None => suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok().filter(|e| (-18..=18).contains(e))?,
    };
    let nano = value.and_then(|v| tenths(v, exponent - places + 9)).unwrap_or(i128::MAX);
    let scale = exponent - places;
    let int64 = value.filter(|v| *v == 0 || (count <= 18 && scale >= 0));
    let int64 = int64.and_then(|v| i64::try_from(signed(tenths(v, scale.max(0))?)).ok());
    // A zero with a negative scale is not what AsInt64 takes, unless it is the bare 0.
    let int64 = int64.filter(|_| scale >= 0 || text == "0");
    Some(Quantity { nano: signed(nano), int64 })
}

/// `value · 10^exponent`, rounded up; none where it does not fit.
fn tenths(value: i128, exponent: i32) -> Option<i128> {
    match u32::try_from(exponent) {
        Ok(exponent) => {
            10i128.checked_pow(exponent).and_then(|power| value.checked_mul(power)).or((value == 0).then_some(0))
        }
        Err(_) => match 10i128.checked_pow(exponent.unsigned_abs()) {
            Some(power) => Some(value / power + i128::from(value % power != 0)),
            None => Some(i128::from(value != 0)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        let second = 1_000_000_000;
        for (text, ns) in [
            ("0", 0),
            ("+0", 0),
            ("5s", 5 * second),
            ("1m30s", 90 * second),
            ("1.5h", 5400 * second),
            (".5s", second / 2),
            ("1.s", second),
            ("100ms", second / 10),
            ("-1s", -second),
            ("10µs", 10_000),
            ("10μs", 10_000),
            ("24h0m0s", 86400 * second),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.1000000000000000000000009s", second / 10),
        ] {
            assert_eq!(go_duration(text), Some(ns), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "1d",
            "5 s",
            "1.2.3s",
            "+",
            "-",
            "1h5",
            ".",
            ".s",
            "9223372036854775808ns",
            "2562048h",
            "--1s",
        ] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn quantities_as_kubernetes_reads_them() {
        let one = 1_000_000_000;
        for (text, nano, int64) in [
            ("0", 0, Some(0)),
            ("1", one, Some(1)),
            ("+1", one, Some(1)),
            ("-1", -one, Some(-1)),
            ("007", 7 * one, Some(7)),
            ("100m", one / 10, None),
            ("0.1", one / 10, None),
            (".5", one / 2, None),
            ("1.", one, Some(1)),
            ("1n", 1, None),
            ("0.1n", 1, None),
            ("5k", 5000 * one, Some(5000)),
            ("1e3", 1000 * one, Some(1000)),
            ("1E3", 1000 * one, Some(1000)),
            ("1E", one * one * one, Some(one as i64 * one as i64)),
            ("1e-3", one / 1000, None),
            ("1Ki", 1024 * one, Some(1024)),
            ("10Mi", (10 << 20) * one, Some(10 << 20)),
            ("1.5Gi", (3 << 29) * one, None),
            ("123456Gi", (123_456 << 30) * one, None),
            ("9Ei", i128::from(i64::MAX) * one, None),
        ] {
            assert_eq!(quantity(text), Some(Quantity { nano, int64 }), "{text}");
        }
        for bad in
            ["", " 1", "5 MB", "x", "1K", "1ki", "Mi", "-", ".", "1.2.3", "1e", "1e99", "1Kii", "1%", "0x1", "1_0"]
        {
            assert_eq!(quantity(bad), None, "{bad}");
        }
    }
}
