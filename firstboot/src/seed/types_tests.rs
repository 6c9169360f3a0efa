// SPDX-License-Identifier: Apache-2.0
//! Good and bad lists for the seed's types.

use super::types::*;

#[test]
fn labels_that_a_kubelet_may_set() {
    for key in [
        "a",
        "superedge.io/node-edge",
        "superedge.io.hostname",
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/anything",
        "x.kubelet.kubernetes.io/anything",
        "notkubernetes.io/a",
    ] {
        assert!(NodeLabel::parse(key, "v").is_ok(), "{key}");
    }
    for key in [
        "kubernetes.io/x",
        "node-role.kubernetes.io/edge",
        "node-restriction.kubernetes.io/a",
        "topology.kubernetes.io/rack",
        "k8s.io/a",
        "a.k8s.io/a",
    ] {
        let why = NodeLabel::parse(key, "v").unwrap_err();
        assert!(why.ends_with(&format!("kubectl label node NAME {key}=VALUE")), "{why}");
    }
    for key in ["", "/a", "a/", "a/b/c", "-a", "A.b/c", "a b"] {
        assert!(NodeLabel::parse(key, "v").is_err(), "{key}");
    }
    assert!(NodeLabel::parse("a", &"v".repeat(63)).is_ok());
    assert!(NodeLabel::parse("a", &"v".repeat(64)).is_err());
}

#[test]
fn names() {
    let some = |key: &str| Some(if key == "mac" { "02AB".to_owned() } else { "S 1".to_owned() });
    assert_eq!(NodeName::parse("Shop.{mac}-x").unwrap().render(some).unwrap(), "shop.02ab-x");
    assert_eq!(
        NodeName::parse("{serial}").unwrap().render(some).unwrap_err(),
        "expected a node name: at most 63 characters a-z, 0-9, - and ."
    );
    assert_eq!(
        NodeName::parse("e-{serial}").unwrap().render(|_| None).unwrap_err(),
        "this device has no {serial}; use {mac} or {machine-id}"
    );
    for bad in ["", "-a", "a.", "a..b", "é", &"a".repeat(64)] {
        assert!(NodeName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn endpoints() {
    for (text, want) in [
        ("10.0.0.1", "10.0.0.1:6443"),
        ("API.example.org:443", "api.example.org:443"),
        ("[::1]", "[::1]:6443"),
        ("localhost:1", "localhost:1"),
        // As kubeadm takes them.
        ("k8s_master:6443", "k8s_master:6443"),
        ("_a.example", "_a.example:6443"),
        ("api.test.:6443", "api.test.:6443"),
        ("api.test.", "api.test.:6443"),
        ("xn--bcher-kva.example:1", "xn--bcher-kva.example:1"),
        ("Bücher.example:1", "xn--bcher-kva.example:1"),
        ("a:06443", "a:6443"),
    ] {
        assert_eq!(Endpoint::parse(text).unwrap().to_string(), want);
    }
    for bad in ["", ":6443", "a:b", "a:0", "a:+1", "[a]:1", "[::1", "1.2.3.4.5", "999.1.1.1", "a b", "a/b"] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
    const FORM: &str = "expected host:port, as in 10.0.0.1:6443";
    const FOUR: &str = "expected an IPv4 address of four numbers from 0 to 255, as in 10.0.0.1:6443";
    const PORT: &str = "expected a port from 1 to 65535";
    const BRACKETS: &str = "expected an IPv6 address in brackets, as in [fd00::1]:6443";
    const ZONE: &str = "expected an IPv6 address without a zone (%): it holds on one link only";
    const NUMBER: &str = "a host name does not end in a number: it is taken for an IPv4 address";
    for (bad, want) in [
        ("", FORM),
        ("10.0.1:6443", FOUR),
        ("010.0.0.1:6443", FOUR),
        ("10.0.0.256", FOUR),
        ("a:6443-6445", FORM),
        ("a:1,b:1", "expected one address; a list is [\"HOST:PORT\", \"HOST:PORT\"]"),
        ("kubeadm join a:1", "this is a join line; give it as join, before any table"),
        ("a..b:1", FORM),
        ("a..:1", FORM),
        ("-a:1", FORM),
        ("a-.b:1", FORM),
        (&format!("{}:1", "a".repeat(64)), FORM),
        ("a:", PORT),
        ("a:0", PORT),
        ("a:65536", PORT),
        ("a:https", FORM),
        ("2001:db8::19e:6443", BRACKETS),
        ("2001:db8:0:0:0:0:0:19e:6443", BRACKETS),
        ("fd00::1", BRACKETS),
        ("[10.0.0.1]:6443", BRACKETS),
        ("[fe80::1%eth0]:6443", ZONE),
        ("fe80::1%eth0", ZONE),
        ("[fe80::1%25eth0]:6443", ZONE),
        ("https://a:1", "expected host:port without https://, as in 10.0.0.1:6443"),
        ("a:6443/", "expected host:port without a path, as in 10.0.0.1:6443"),
        ("10.0.0.1:6443--token", "expected a space after the port"),
        ("a*b:1", "a host name has no *"),
        ("user@a:1", "a host name has no @"),
        ("a b:1", "a host name has no space"),
        ("api☃.example:1", "a host name has no character U+2603"),
        ("k8s–master:1", "the character U+2013 is an en dash; type - instead"),
        ("a：6443", "the character U+FF1A is a full-width character; type : instead"),
        ("k8s.1:6443", NUMBER),
        ("a.0x1f:1", NUMBER),
        ("a.1.:1", NUMBER),
    ] {
        assert_eq!(Endpoint::parse(bad).unwrap_err(), want, "{bad}");
    }
}

#[test]
fn hashes() {
    let (digits, colons) = ("0123456789abcdef".repeat(4), vec!["AB"; 32].join(":"));
    assert!(CaPin::parse(&format!("SHA256:{}", digits.to_uppercase())).is_ok());
    const OPENSSL: &str = "this is all of openssl's output; expected sha256: and its 64 digits alone";
    const AFTER: &str = "expected sha256: with the 64 digits right after it, and nothing else";
    const BASE64: &str = "this is a hash in base64; expected sha256: and 64 hexadecimal digits";
    const FINGERPRINT: &str = "this is the fingerprint of a certificate; the hash is one of its public key, as kubeadm token \
                               create --print-join-command prints it";
    for (bad, want) in [
        ("", "expected sha256: and 64 hexadecimal digits"),
        (&digits, "sha256: is missing before the 64 digits"),
        (&format!("(stdin)= {digits}"), OPENSSL),
        (&format!("SHA2-256(stdin)= {digits}"), OPENSSL),
        (&format!("sha256={digits}"), AFTER),
        (&format!("sha256: {digits}"), AFTER),
        (&format!("sha256-{digits}"), AFTER),
        (&format!("--discovery-token-ca-cert-hash sha256:{digits}"), AFTER),
        (&format!("sha256 Fingerprint={colons}"), FINGERPRINT),
        (&colons, FINGERPRINT),
        (&format!("sha256/{}=", "A".repeat(43)), BASE64),
        (&format!("{}=", "A".repeat(43)), BASE64),
        ("-----BEGIN CERTIFICATE-----", "this is a certificate; give it as ca-cert in [cluster]"),
        (&format!("sha256:{digits},sha256:{digits}"), "expected one hash; a list is [\"sha256:…\", \"sha256:…\"]"),
        ("abcdef.0123456789abcdef", "this is a token, and not a hash"),
        (&format!("sha256:{}а", &digits[1..]), "the character U+0430 is not ASCII"),
    ] {
        assert_eq!(CaPin::parse(bad).unwrap_err(), want, "{bad}");
    }
}

#[test]
fn tokens() {
    const FORM: &str = "expected 6 and 16 characters a-z0-9, as in abcdef.0123456789abcdef";
    for (bad, want) in [
        ("", FORM),
        ("abcdef", FORM),
        ("abcdef.0123456789abcde", FORM),
        ("Abcdef.0123456789abcdef", "expected a token in lower case, as in abcdef.0123456789abcdef"),
        ("abcdef.0123456789аbcdef", "the character U+0430 is not ASCII"),
        ("--token abcdef.0123456789abcdef", "expected the token alone"),
        ("Bearer abcdef.0123456789abcdef", "expected the token alone"),
        ("K10ab::server:cd", "this is a token of k3s or RKE2, and firstboot joins clusters of kubeadm"),
    ] {
        assert_eq!(JoinToken::parse(bad).unwrap_err(), want, "{bad}");
    }
}

/// What a seed takes as a server has to work in all that read it later: TLS, and the URLs of requests.
#[test]
fn names_of_servers_work_in_tls_and_urls() {
    for text in ["k8s_master:6443", "_a.b_c.example:1", "api.test.:6443", "a.1b", "xn--bcher-kva.example"] {
        let endpoint = Endpoint::parse(text).unwrap();
        assert!(rustls::pki_types::ServerName::try_from(endpoint.host.as_str()).is_ok(), "{text}");
        let url = reqwest::Url::parse(&format!("https://{endpoint}")).unwrap();
        assert_eq!((url.host_str(), url.port()), (Some(endpoint.host.as_str()), Some(endpoint.port)), "{text}");
    }
}

#[test]
fn what_may_be_shown() {
    assert!(may_show("ca-cert-hashes") && may_show("node-role.kubernetes.io/edge"));
    assert!(!may_show("q7w2e9r4t1y6u8i3") && !may_show("abcdef.q7w2e9r4t1y6u8i3") && !may_show("a b"));
}
