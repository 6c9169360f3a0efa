// SPDX-License-Identifier: Apache-2.0
//! The headers `Date` and `Retry-After`: every IMF-fixdate (RFC 9110, 5.6.7) is read, and as another parser reads it; nothing that is read
//! is out of reach of what is done with it.

use std::time::{Duration, SystemTime};

use firstboot::kube::response;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};

fn read(text: &[u8]) -> Option<SystemTime> {
    let mut headers = HeaderMap::new();
    headers.insert(DATE, HeaderValue::from_bytes(text).ok()?);
    response::date(&headers)
}

/// Last second that four digits of a year can say.
const LAST: u64 = 253_402_300_799;

pub fn run(input: &[u8]) {
    if let Ok(eight) = <[u8; 8]>::try_from(input) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from_le_bytes(eight) % (LAST + 1));
        let text = httpdate::fmt_http_date(time);
        assert_eq!(read(text.as_bytes()), Some(time), "{text}");
    }
    let Some(time) = read(input) else { return };
    let text = std::str::from_utf8(input).expect("a header that was read");
    if let Ok(other) = httpdate::parse_http_date(text) {
        assert_eq!(time, other, "{text}");
    }
    let shown = firstboot::text::timestamp(firstboot::text::unix_seconds(time));
    assert!(shown.len() == 20 && shown.ends_with('Z'), "{shown}");
    let mut headers = HeaderMap::new();
    headers.insert(DATE, HeaderValue::from_static("Sun, 22 Nov 2026 16:31:48 GMT"));
    headers.insert(RETRY_AFTER, HeaderValue::from_bytes(input).expect("a header that was read"));
    let wait = time.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_365_108)).ok();
    assert_eq!(response::retry_after(&headers), wait);
}
