// SPDX-License-Identifier: Apache-2.0
//! Numbers as the page writes them.

/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// A size in binary units, as partitions are cut: `96 MiB`, `270.0 MiB`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) if bytes.is_multiple_of(unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
    }
}

/// A number with a thin gap between groups of three digits (ISO 80000-1, §7.3.1).
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A part of a whole in per cent: `12.3 %`.
pub fn share(part: u64, whole: u64) -> String {
    format!("{:.1}\u{202f}%", 100.0 * part as f64 / whole.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_largest_unit_that_fits() {
        let sizes = [0, 1023, 1024, 96 << 20, 283_115_521, 3 << 29, 16_000_000_000].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "96 MiB", "270.0 MiB", "1.5 GiB", "14.9 GiB"]);
    }

    #[test]
    fn digits_are_in_threes_and_shares_have_one_decimal() {
        assert_eq!([0, 999, 1000, 427_819_008].map(grouped), ["0", "999", "1\u{202f}000", "427\u{202f}819\u{202f}008"]);
        assert_eq!((share(1, 3), share(0, 0)), ("33.3\u{202f}%".to_owned(), "0.0\u{202f}%".to_owned()));
    }
}
