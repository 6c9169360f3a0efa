// SPDX-License-Identifier: Apache-2.0
//! Shared formats of text: single lines, times, hexadecimal digits.

use std::time::SystemTime;

/// Whole seconds since 1970-01-01 UTC; 0 before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// RFC 3339 in UTC.
pub fn timestamp(seconds: u64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::from_unix_timestamp(seconds as i64)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_else(|| seconds.to_string())
}

/// Joins the non-empty lines of a text to one line.
pub fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ")
}

pub(crate) fn rfc3339(time: SystemTime) -> String {
    let format = time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from(time).format(&format).unwrap_or_default()
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Text of another program as one printable line of at most 400 characters.
pub(crate) fn printable_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text as it stands in an element of a page, or between double quotes in an attribute (HTML Living Standard, "Serializing
/// HTML fragments").
pub fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(timestamp(1_795_392_000), "2026-11-23T00:00:00Z");
    }

    #[test]
    fn no_markup_is_left() {
        assert_eq!(html("<a href=\"x\">R&D</a>"), "&lt;a href=&quot;x&quot;&gt;R&amp;D&lt;/a&gt;");
    }
}
