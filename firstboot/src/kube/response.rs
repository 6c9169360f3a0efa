// SPDX-License-Identifier: Apache-2.0
//! What came back from where the API server should be, and who gave it: the API server itself, or something in its
//! place (captive portal, proxy, load balancer without a server behind it).

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::error::{self, Error, Kind};
use crate::fault::Code;

/// Last second of the year 9999, Unix seconds: what four digits of a year can say.
const LAST_SECOND: i64 = 253_402_300_799;

/// A request, as messages name it.
pub(super) struct RequestLine<'a> {
    /// `host:port`.
    pub host: String,
    /// Method.
    pub method: &'a Method,
    /// Path and query; the query is not shown.
    pub path: &'a str,
}

impl RequestLine<'_> {
    /// Why an answer other than 2xx came.
    pub fn refusal(&self, status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> Error {
        let host = &self.host;
        if status.is_redirection() {
            let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| Url::parse(to).ok());
            let to = to.as_ref().and_then(Url::host_str).map_or("another page".to_owned(), error::remote);
            return Error::answer(
                Code::NotKubernetes,
                format!(
                    "API server {host} redirects to {to}, which the Kubernetes API never does: is a captive portal or a \
                 proxy in between?"
                ),
            );
        }
        if matches!(status, StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::NETWORK_AUTHENTICATION_REQUIRED) {
            let text = format!("a proxy or captive portal answers in place of API server {host}: {}", shown(status));
            return Error::answer(Code::NotKubernetes, text);
        }
        // Whatever its status, a web page is no word of the API server.
        if is_html(headers) {
            return web_page(host);
        }
        let body: Option<Value> = serde_json::from_slice(bytes).ok().filter(|b: &Value| b["kind"] == "Status");
        self.status(status, body.as_ref(), retry_after(headers))
    }

    /// An answer that is, or may be, the API server's. What lacks its object `Status` is not taken for its word.
    pub fn status(&self, status: StatusCode, body: Option<&Value>, retry_after: Option<Duration>) -> Error {
        let path = self.path.split('?').next().unwrap_or(self.path);
        let mut text = format!("{} {path}: API server {} answers {}", self.method, self.host, shown(status));
        match body.map(|b| b["message"].as_str()) {
            Some(Some(message)) => text.push_str(&format!(": {}", error::remote(message))),
            Some(None) => {}
            // A busy kube-apiserver says so in plain text.
            None if status == StatusCode::TOO_MANY_REQUESTS => {}
            None => text.push_str(", not in the words of the Kubernetes API: is a proxy in between?"),
        }
        if let Some(wait) = retry_after {
            text.push_str(&format!("; it asks to wait {} s", wait.as_secs()));
        }
        let kind = if body.is_some() { Kind::Status(status.as_u16()) } else { Kind::Answer };
        let code = match kind {
            Kind::Status(401 | 403) => Code::NotPermitted,
            _ => Code::ApiError,
        };
        Error { retry_after, ..Error::new(kind, code, text) }
    }
}

/// The object in an answer.
pub(super) fn json(host: &str, headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|_| match is_html(headers) {
        true => web_page(host),
        false => {
            let text = format!("API server {host} answers with something that is not the Kubernetes API");
            Error::answer(Code::NotKubernetes, text)
        }
    })
}

fn web_page(host: &str) -> Error {
    Error::answer(
        Code::NotKubernetes,
        format!(
            "API server {host} answers with a web page, not the Kubernetes API: is a captive portal or a proxy in between?"
        ),
    )
}

fn shown(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("{} {reason}", status.as_u16()).trim_end().to_owned()
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/html"))
}

/// How long to wait, from `Retry-After`: seconds, or a date, which is measured against the server's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    time(text)?.duration_since(date(headers)?).ok()
}

/// The server's clock, from the `Date` header.
pub fn date(headers: &HeaderMap) -> Option<SystemTime> {
    time(headers.get(DATE)?.to_str().ok()?)
}

/// A time as HTTP has it (RFC 9110, 5.6.7); none outside the years 1970 to 9999, which are no server's.
fn time(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    // A zone may lead out of the years that the text can say.
    (0..=LAST_SECOND).contains(&time.unix_timestamp()).then(|| time.into())
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.clone(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn date_header() {
        assert_eq!(date(&headers(&[])), None);
        let unix = date(&headers(&[(DATE, "Sun, 22 Nov 2026 16:31:48 GMT")])).unwrap();
        assert_eq!(unix.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 1_795_365_108);
        // The last two found by fuzzing: the zone leads beyond the year 9999, and before 1970.
        for bad in ["yesterday", "Fri, 31 Dec 9999 23:59:45 -2359", "Thu, 01 Jan 1970 00:00:00 +0100"] {
            assert_eq!(date(&headers(&[(DATE, bad)])), None, "{bad}");
        }
    }

    #[test]
    fn waits_that_a_server_asks_for() {
        let after = |pairs: &[(HeaderName, &'static str)]| retry_after(&headers(pairs));
        assert_eq!(after(&[(RETRY_AFTER, "7")]), Some(Duration::from_secs(7)));
        let until = (RETRY_AFTER, "Sun, 22 Nov 2026 16:33:48 GMT");
        assert_eq!(after(&[until.clone(), (DATE, "Sun, 22 Nov 2026 16:31:48 GMT")]), Some(Duration::from_secs(120)));
        assert_eq!(after(&[until.clone(), (DATE, "Sun, 22 Nov 2026 16:35:48 GMT")]), None);
        assert_eq!(after(&[until]), None);
        assert_eq!(after(&[(RETRY_AFTER, "soon")]), None);
        assert_eq!(after(&[]), None);
    }
}
