// SPDX-License-Identifier: Apache-2.0
//! An HTTP proxy and its exceptions, with the semantics of `HTTPS_PROXY` and `NO_PROXY` in Go programs
//! (golang.org/x/net/http/httpproxy): kubeadm, kubelet and containerd then agree with firstboot.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::names::is_dns_subdomain;
use crate::secret::Secret;

/// A proxy for HTTP and, by CONNECT, for HTTPS. `Display` and `Debug` omit the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port`, an IPv6 address in brackets.
    host: String,
    /// `user` or `user:password`, percent-encoded as in the URL.
    credentials: Option<Secret<String>>,
}

impl Proxy {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT]` (port 80).
    ///
    /// # Errors
    /// A text with what was expected, never with what was found, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned();
        if text.starts_with("https://") || text.starts_with("socks") {
            return Err("expected a proxy with http://; the traffic through it is encrypted all the same".to_owned());
        }
        if !text.starts_with("http://") || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(expected());
        }
        let url = Url::parse(text).map_err(|_| expected())?;
        let rest = (url.path(), url.query(), url.fragment());
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(expected()) };
        if rest != ("/", None, None) || port == 0 {
            return Err(expected());
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, None) => Some(Secret::new(user.to_owned())),
            (user, Some(password)) => Some(Secret::new(format!("{user}:{password}"))),
        };
        Ok(Proxy { host: format!("{host}:{port}"), credentials })
    }

    /// The whole URL, with credentials.
    pub fn url(&self) -> Zeroizing<String> {
        Zeroizing::new(match &self.credentials {
            Some(credentials) => format!("http://{}@{}", credentials.expose(), self.host),
            None => format!("http://{}", self.host),
        })
    }

    /// `host:port`, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the URL contains a user name or a password.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.host)
    }
}

/// Destinations that are reached without the proxy: one entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct(String);

impl Direct {
    /// Parses a host, a domain (`.example.com`: only its subdomains), an address, a range of addresses, or `*`;
    /// all but ranges and `*` may have a port.
    ///
    /// # Errors
    /// A text with what was expected, never with what was found, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let good = match Rule::of(text) {
            Rule::All | Rule::Range(_) | Rule::Address(..) => true,
            Rule::Domain { suffix, port, .. } => {
                let port = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p != 0));
                let digits = suffix.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                port && !digits && is_dns_subdomain(&suffix[1..])
            }
        };
        match good {
            true => Ok(Direct(text.to_ascii_lowercase())),
            false => Err("expected a host, .DOMAIN, an address, ADDRESS/PREFIX, or *".to_owned()),
        }
    }

    /// The entry in the syntax of `NO_PROXY`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How hosts are reached: through a proxy, with exceptions. The default is no proxy. Serde omits the credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Via {
    /// The proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// Destinations that are reached without the proxy.
    pub direct: Vec<Direct>,
}

impl Via {
    /// The proxy for `host` (an IPv6 address with or without brackets); `None` when the host is reached directly.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !is_direct(host, port, self.direct.iter().map(Direct::as_str)))
    }
}

/// Meaning of an entry.
enum Rule {
    All,
    Range(IpNet),
    Address(IpAddr, Option<String>),
    /// `suffix` begins with a dot.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<String>,
    },
}

impl Rule {
    /// Parses one entry as `config.init` of httpproxy does.
    fn of(entry: &str) -> Rule {
        let entry = entry.trim().to_ascii_lowercase();
        if entry == "*" {
            return Rule::All;
        }
        if let Ok(range) = entry.parse() {
            return Rule::Range(range);
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.to_owned())),
            _ => (entry.as_str(), None),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = host.parse() {
            return Rule::Address(address, port);
        }
        let host = host.strip_prefix('*').filter(|h| h.starts_with('.')).unwrap_or(host);
        match host.starts_with('.') {
            true => Rule::Domain { suffix: host.to_owned(), itself: false, port },
            false => Rule::Domain { suffix: format!(".{host}"), itself: true, port },
        }
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let port_fits = |p: &Option<String>| p.as_ref().is_none_or(|p| *p == port.to_string());
        let address = host.parse::<IpAddr>().ok();
        match self {
            Rule::All => true,
            Rule::Range(range) => address.is_some_and(|a| range.contains(&a)),
            Rule::Address(own, p) => address == Some(*own) && port_fits(p),
            Rule::Domain { suffix, itself, port } => {
                (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..])) && port_fits(port)
            }
        }
    }
}

/// Whether a request to `host` (an IPv6 address with or without brackets) bypasses the proxy, given the entries of
/// `NO_PROXY` (`config.useProxy`, negated).
pub(crate) fn is_direct<'a>(host: &str, port: u16, mut entries: impl Iterator<Item = &'a str>) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|a| a.is_loopback())
        || entries.any(|e| !e.trim().is_empty() && Rule::of(e).matches(&host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_displayed_without_credentials() {
        let proxy = Proxy::parse("http://user:p%40ss'$@proxy.example:3128/").unwrap();
        assert_eq!(*proxy.url(), "http://user:p%40ss'$@proxy.example:3128");
        assert_eq!(format!("{proxy} {proxy:?}").matches("ss'").count(), 0);
        assert_eq!((proxy.to_string().as_str(), proxy.host()), ("http://proxy.example:3128", "proxy.example:3128"));
        assert_eq!(Proxy::parse("http://[fd00::1]:8080").unwrap().host(), "[fd00::1]:8080");
        assert_eq!(*Proxy::parse("http://proxy").unwrap().url(), "http://proxy:80");
        for bad in ["proxy:3128", "http://", "http://a/path", "http://a?b", "http://a b", "ftp://a", "http://a:0"] {
            let why = Proxy::parse(bad).unwrap_err();
            assert_eq!(why, "expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT", "{bad}");
        }
        assert!(Proxy::parse("https://a:1").unwrap_err().starts_with("expected a proxy with http://"));
    }

    fn bypasses(host: &str, port: u16, direct: &[Direct]) -> bool {
        is_direct(host, port, direct.iter().map(Direct::as_str))
    }

    /// The table of httpproxy's own tests (proxy_test.go, `UseProxyTests`) with its NO_PROXY.
    #[test]
    fn no_proxy_is_parsed_as_in_go() {
        let direct: Vec<Direct> =
            ["foobar.com", ".barbaz.net", "*.wildcard.io", "192.168.1.1", "192.168.1.2:81", "192.168.1.3:80"]
                .into_iter()
                .chain([
                    "10.0.0.0/30",
                    "2001:db8::52:0:1",
                    "[2001:db8::52:0:2]:443",
                    "[2001:db8::52:0:3]:80",
                    "2002:db8:a::45/64",
                ])
                .map(|e| Direct::parse(e).unwrap())
                .collect();
        for (host, proxied) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("[::1]", false),
            ("[::2]", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("192.168.1.3", false),
            ("192.168.1.4", true),
            ("10.0.0.2", false),
            ("10.0.0.4", true),
            ("[2001:db8::52:0:1]", false),
            ("[2001:db8::52:0:2]", true),
            ("[2001:db8::52:0:3]", false),
            ("[2002:db8:a::123]", false),
            ("[fe80::424b:c8be:1643:a1b6]", true),
            ("barbaz.net", true),
            ("www.barbaz.net", false),
            ("foobar.com", false),
            ("www.foobar.com", false),
            ("foofoobar.com", true),
            ("baz.com", true),
            ("localhost.net", true),
            ("local.localhost", true),
            ("barbarbaz.net", true),
            ("wildcard.io", true),
            ("nested.wildcard.io", false),
            ("awildcard.io", true),
            ("www.FOOBAR.com", false),
        ] {
            assert_eq!(bypasses(host, 80, &direct), !proxied, "{host}");
        }
        let all = [Direct::parse("*").unwrap()];
        assert!(bypasses("example.org", 443, &all) && bypasses("192.0.2.1", 443, &all));
        let below = [Direct::parse("*.foo.com:443").unwrap()];
        assert!(bypasses("a.foo.com", 443, &below) && !bypasses("foo.com", 443, &below));
        assert!(!bypasses("a.foo.com", 80, &below));
    }

    #[test]
    fn invalid_entries_are_rejected() {
        for bad in ["", " ", "a b", "a,b", "http://a", "10.0.0.0/33", "999.1.1.1", "a:x", "a:0", "*a", "-"] {
            assert!(Direct::parse(bad).is_err(), "{bad}");
        }
    }
}
