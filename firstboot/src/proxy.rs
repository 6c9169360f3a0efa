// SPDX-License-Identifier: Apache-2.0
//! An HTTP proxy and its exceptions, with the semantics of `HTTPS_PROXY` and `NO_PROXY` in Go programs
//! (golang.org/x/net/http/httpproxy): kubeadm, kubelet and containerd then agree with firstboot.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::names::{is_host_name, network};
use crate::secret::Secret;
use crate::unescape::resolved_bytes;

/// A proxy for HTTP and, by CONNECT, for HTTPS. `Display` and `Debug` omit the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Whether it is spoken to by TLS, the request for a connection and the credentials included.
    tls: bool,
    /// `host:port`, an IPv6 address in brackets.
    host: String,
    /// `user` or `user:password`, percent-encoded as in the URL.
    credentials: Option<Secret<String>>,
}

impl Proxy {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT]` (port 80) or the same with `https://` (port 443).
    ///
    /// What is accepted is a URL that Go reads as well, to the same parts (net/url, `parseAuthority`): where Go cannot
    /// read `HTTPS_PROXY`, its programs connect directly, and say nothing.
    ///
    /// # Errors
    /// A text with what was expected, never with what was found, which may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned();
        if text.starts_with("socks") {
            return Err("expected a proxy with http:// or https://".to_owned());
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or_else(expected)?;
        // A host has no @, so that the last one ends user and password.
        if let Some((who, _)) = rest.rsplit_once('@')
            && !is_user_info(who)
        {
            return Err(
                "percent-encode these in user and password: % is %25, # is %23, / is %2F, ? is %3F, \\ is %5C, \
                        a blank is %20"
                    .to_owned(),
            );
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(expected());
        }
        let url = Url::parse(text).map_err(|_| expected())?;
        let parts = (url.path(), url.query(), url.fragment());
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(expected()) };
        if parts != ("/", None, None) || port == 0 || !is_server(host) {
            return Err(expected());
        }
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, None) => Some(Secret::new(user.to_owned())),
            (user, Some(password)) => Some(Secret::new(format!("{user}:{password}"))),
        };
        Ok(Proxy { tls: url.scheme() == "https", host: format!("{host}:{port}"), credentials })
    }

    /// Value of the header `Proxy-Authorization` (RFC 7617), over the same bytes as in Go, which need not be UTF-8;
    /// none without credentials.
    pub fn authorization(&self) -> Option<Zeroizing<String>> {
        let credentials = self.credentials.as_ref()?.expose();
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        // RFC 3986, 2.1.
        let part = |text: &str| Zeroizing::new(resolved_bytes(text, b'%', 2, 16));
        let whole = Zeroizing::new([part(user).as_slice(), b":", part(password).as_slice()].concat());
        Some(Zeroizing::new(format!("Basic {}", *Zeroizing::new(STANDARD.encode(&*whole)))))
    }

    /// The whole URL, with credentials.
    pub fn url(&self) -> Zeroizing<String> {
        Zeroizing::new(match &self.credentials {
            Some(credentials) => format!("{}://{}@{}", self.scheme(), credentials.expose(), self.host),
            None => self.to_string(),
        })
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Whether it is spoken to by TLS. Such a proxy is for registries alone. client-go verifies it by what it trusts for the
    /// API server, which is the cluster's CA and nothing else (net/http, `persistConn.addTLS`, takes the transport's RootCAs),
    /// so kubelet could not be behind it; and firstboot, before it knows that CA, would have to give the password to anyone.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host, an IPv6 address without brackets, and port.
    pub fn address(&self) -> (&str, u16) {
        let (host, port) = self.host.rsplit_once(':').unwrap_or_default();
        (host.trim_matches(['[', ']']), port.parse().unwrap_or_default())
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
        write!(f, "{}://{}", self.scheme(), self.host)
    }
}

/// Whether user and password of a URL mean the same to Go and to WHATWG's rules, by which the URL is written: every %
/// begins an escape, and nothing ends the authority.
fn is_user_info(text: &str) -> bool {
    let bytes = text.as_bytes();
    let escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    bytes.iter().enumerate().all(|(at, b)| *b != b'%' || escape(at))
        && !text.chars().any(|c| "/?#\\".contains(c) || c.is_whitespace() || c.is_control())
}

/// Whether the host of a URL, as WHATWG's parser gives it, is one that can be connected to, by its name or address.
pub(crate) fn is_server(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified() && !address.is_multicast() && address == address.to_canonical(),
        Err(_) => is_host_name(host),
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
        // Go compares ports as text.
        let is_port = |p: &String| p.parse::<u16>().is_ok_and(|n| n != 0 && n.to_string() == *p);
        // Go takes an IPv4 address in IPv6's notation for the IPv4 address.
        let own = |address: IpAddr| address == address.to_canonical();
        let (good, brackets) = match Rule::of(text) {
            Rule::All => (true, false),
            Rule::Range(range) => (own(range.addr()), false),
            Rule::Address(address, port) => (own(address) && port.iter().all(is_port), port.is_none()),
            Rule::Domain { suffix, port, .. } => {
                (port.iter().all(is_port) && is_host_name(&suffix[1..]) && !text.contains('['), false)
            }
        };
        let text = text.to_ascii_lowercase();
        // To Go, an address in brackets is a name unless a port follows.
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).filter(|_| brackets);
        match good {
            true => Ok(Direct(bare.unwrap_or(&text).to_owned())),
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
        if let Some(range) = network(&entry) {
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
        assert_eq!(Proxy::parse("socks5://a:1").unwrap_err(), "expected a proxy with http:// or https://");
    }

    #[test]
    fn s15_a_proxy_can_be_spoken_to_by_tls() {
        let proxy = Proxy::parse("https://user:p%40ss@proxy.example").unwrap();
        assert_eq!(*proxy.url(), "https://user:p%40ss@proxy.example:443");
        assert_eq!((proxy.to_string().as_str(), proxy.is_tls()), ("https://proxy.example:443", true));
        assert!(!Proxy::parse("http://proxy.example").unwrap().is_tls());
    }

    /// What Go cannot read, it does not use: it connects directly. tests/field/14-proxy-percent has more.
    #[test]
    fn every_accepted_proxy_is_one_to_go() {
        for who in ["u:p%", "u:p%4", "u:p%G4", "u%zz:p", "%", "u:a/b", "u:a?b", "u:a#b", "u:a\\b", "u:a b", "u:a\tb"] {
            let why = Proxy::parse(&format!("http://{who}@a:1")).unwrap_err();
            assert!(why.starts_with("percent-encode these in user and password: % is %25, # is %23,"), "{who}: {why}");
        }
        for (written, url) in [
            ("http://u:p%25@a:1", "http://u:p%25@a:1"),
            ("http://u:p@ss:w@a:1", "http://u:p%40ss%3Aw@a:1"),
            ("http://ü:{p}|^\"<>@a:1", "http://%C3%BC:%7Bp%7D%7C%5E%22%3C%3E@a:1"),
            ("http://pro%78y.example:1", "http://proxy.example:1"),
            ("http://my_proxy:1", "http://my_proxy:1"),
            ("http://Bücher.example:1", "http://xn--bcher-kva.example:1"),
            ("http://0x0a000001:1", "http://10.0.0.1:1"),
        ] {
            assert_eq!(*Proxy::parse(written).unwrap().url(), url, "{written}");
        }
        // Characters that WHATWG leaves in a host, and Go does not take, or a file of environment variables would not.
        for bad in ["http://{a}:1", "http://a\"b:1", "http://a`b:1", "http://a,b:1", "http://*:1", "http://-a:1"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
        for bad in ["http://0.0.0.0:1", "http://[::]:1", "http://224.0.0.1:1", "http://[::ffff:10.0.0.1]:1"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn authorization_is_over_the_bytes() {
        let header = |url: &str| Proxy::parse(url).unwrap().authorization().map(|h| h.to_string());
        assert_eq!(header("http://a:1"), None);
        // Those of `Aladdin:open sesame` are in RFC 7617, section 2.
        assert_eq!(header("http://Aladdin:open%20sesame@a:1").as_deref(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(header("http://u:%E4@a:1").as_deref(), Some("Basic dTrk"));
        assert_eq!(header("http://u@a:1").as_deref(), Some("Basic dTo="));
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
        // Go takes them, and they match nothing, or something else.
        for bad in [
            "10.0.0.1:x",
            "010.0.0.0/8",
            "[a]",
            "[a]:80",
            "[::1]:0",
            "a:080",
            "a:+80",
            "::ffff:10.0.0.1",
            "::ffff:10.0.0.0/104",
            "fe80::1%eth0",
        ] {
            assert!(Direct::parse(bad).is_err(), "{bad}");
        }
        for (written, entry) in [("[fd00::1]", "fd00::1"), ("[FD00::1]:80", "[fd00::1]:80"), ("my_host", "my_host")] {
            assert_eq!(Direct::parse(written).unwrap().as_str(), entry);
        }
    }
}
