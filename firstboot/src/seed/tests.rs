// SPDX-License-Identifier: Apache-2.0
//! Seeds that are read and seeds that are refused, each by its exact message.

use super::*;
use std::time::SystemTime;

const SECRET: &str = "0123456789abcdef";
const PIN: &str = "sha256:A0B1C2D3E4F5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1";

/// A seed that is read; `more` follows `[cluster]`'s keys.
fn seed(more: &str) -> String {
    format!(
        "version = 1\n[cluster]\napiserver = \"10.0.2.2:6443\"\ntoken = \"abcdef.{SECRET}\"\nca-cert-hashes = \
         [\"{PIN}\"]\n{more}"
    )
}

fn message(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn smallest_seed_gets_every_default() {
    let seed = parse(seed("").as_bytes()).unwrap();
    assert_eq!(seed.join().unwrap().apiserver, [Endpoint { host: "10.0.2.2".into(), port: 6443 }]);
    assert_eq!((seed.join().unwrap().token.id(), seed.join().unwrap().token.secret()), ("abcdef", SECRET));
    assert_eq!(*seed.join().unwrap().token.bearer(), format!("abcdef.{SECRET}"));
    let Trust::Pins(pins) = &seed.join().unwrap().trust else { panic!("no pins") };
    assert_eq!(pins[0].to_string(), PIN.to_lowercase());
    assert_eq!(seed.join().unwrap().token_expires, None);
    let node = Node {
        name: None,
        role: Role::Edge,
        cni: Cni::Auto,
        labels: vec![],
        taints: vec![],
        offline: false,
        offline_secrets: true,
    };
    assert_eq!(seed.node, node);
    assert_eq!(seed.digest().len(), 16);
}

#[test]
fn offline() {
    let parsed = |more: &str| parse(seed(more).as_bytes());
    let node = parsed("[node]\noffline = true\noffline-secrets = false\n").unwrap().node;
    assert_eq!((node.offline, node.offline_secrets), (true, false));
    let said = |more: &str| parsed(more).unwrap_err().to_string();
    let alone = said("[node]\noffline-secrets = false\n");
    assert!(alone.ends_with("offline-secrets in [node] needs offline = true: without it nothing is kept"), "{alone}");
    assert!(said("[node]\noffline = \"yes\"\n").ends_with("offline in [node] must be true or false, without quotes"));
    let proxy = "[node]\noffline = true\n[network]\nproxy = \"http://p:3128\"\n";
    let refused = said(proxy);
    let want =
        "offline in [node] and proxy in [network] do not go together for API server 10.0.2.2: add it to no-proxy";
    assert!(refused.ends_with(want), "{refused}");
    parsed(&format!("{proxy}no-proxy = \"10.0.0.0/8\"\n")).unwrap();
}

#[test]
fn every_key() {
    let text = format!(
        "version = 1\n[node]\nname = \"Edge-{{serial}}\"\nrole = \"worker\"\ncni = \"none\"\nlabels = {{ \
         \"topology.kubernetes.io/zone\" = \"shop-12\", \"example.com/x\" = \"\" }}\ntaints = \
         [\"edge=true:NoSchedule\", \"a:NoExecute\"]\n[cluster]\napiserver = [\"api.example.org\", \
         \"[fd00::1]:443\"]\ntoken = 'abcdef.{SECRET}'\nca-cert = \"\"\"\n{}\"\"\"\ntoken-expires = \
         2026-11-23T12:00:00+01:00\n",
        test_ca()
    );
    let seed = parse(text.as_bytes()).unwrap();
    let servers: Vec<String> = seed.join().unwrap().apiserver.iter().map(Endpoint::to_string).collect();
    assert_eq!(servers, ["api.example.org:6443", "[fd00::1]:443"]);
    assert_eq!(seed.join().unwrap().trust, Trust::Ca(test_ca()));
    let expires = seed.join().unwrap().token_expires.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(expires.as_secs(), 1_795_431_600);
    let node = seed.node;
    assert_eq!(node.name.unwrap().render(|_| Some("C0FFEE".into())).unwrap(), "edge-c0ffee");
    assert_eq!((node.role, node.cni), (Role::Worker, Cni::None));
    let labels: Vec<String> = node.labels.iter().map(|l| format!("{}={}", l.key, l.value)).collect();
    assert_eq!(labels, ["example.com/x=", "topology.kubernetes.io/zone=shop-12"]);
    let taints: Vec<String> = node.taints.iter().map(Taint::to_string).collect();
    assert_eq!(taints, ["edge=true:NoSchedule", "a:NoExecute"]);
}

/// A self-signed CA certificate, PEM; the same one all through a run.
fn test_ca() -> String {
    static PEM: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let make = || {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().replace("\r\n", "\n")
    };
    PEM.get_or_init(make).clone()
}

#[test]
fn editors_and_their_encodings() {
    let plain = seed("[node]\nname = \"edge-1\"\n");
    let crlf = plain.replace('\n', "\r\n");
    let want = parse(plain.as_bytes()).unwrap();
    let units = || std::iter::once(0xfeff).chain(crlf.encode_utf16());
    let le: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
    let be: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
    for bytes in [crlf.as_bytes(), &[b"\xef\xbb\xbf", plain.as_bytes()].concat(), &le, &be] {
        let got = parse(bytes).unwrap();
        assert_eq!((&got.membership, &got.node), (&want.membership, &want.node));
    }
    let other = parse(plain.replace("edge-1", "edge-2").as_bytes()).unwrap();
    assert_ne!(other.digest(), want.digest());
    let spent = parse(plain.replace(want.join().unwrap().token.secret(), JoinToken::ERASED).as_bytes()).unwrap();
    assert!(spent.join().unwrap().token.is_erased() && !want.join().unwrap().token.is_erased());
    assert_eq!(spent.digest(), want.digest());
    assert_eq!(
        parse(&le[..le.len() - 1]).unwrap_err().to_string(),
        "seed.toml: not valid UTF-16 text: odd number of bytes"
    );
    let latin1 = [plain.as_bytes(), b"# caf\xe9"].concat();
    assert_eq!(parse(&latin1).unwrap_err().to_string(), "seed.toml:8: not valid UTF-8 text; save the file as UTF-8");
}

#[test]
fn sizes_at_the_edge() {
    let mut text = seed("");
    text.push_str(&"#".repeat(MAX_SIZE - text.len()));
    assert!(parse(text.as_bytes()).is_ok());
    text.push('#');
    assert_eq!(message(&text), "seed.toml: the file is larger than 64 KiB");
    for empty in ["", " \r\n", "\0\0\0\0"] {
        assert_eq!(message(empty), "seed.toml: the file is empty");
    }
}

#[test]
fn digest_tells_seeds_apart() {
    let a = parse(seed("").as_bytes()).unwrap();
    assert_eq!(a.digest(), parse(seed("").as_bytes()).unwrap().digest());
    assert_ne!(a.digest(), parse(seed("#").as_bytes()).unwrap().digest());
}

/// (seed, message): lines 1 to 5 are those of [`seed`].
fn bad() -> Vec<(String, &'static str)> {
    let with = |from: &str, to: &str| seed("").replace(from, to);
    let node = |line: &str| seed(&format!("[node]\n{line}\n"));
    let token_line = format!("\"abcdef.{SECRET}\"");
    let pin = format!("[\"{PIN}\"]");
    const TOKEN: &str = "seed.toml:4: malformed token in [cluster]: expected 6 and 16 characters a-z0-9, as in \
                         abcdef.0123456789abcdef";
    const LOWER: &str =
        "seed.toml:4: malformed token in [cluster]: expected a token in lower case, as in abcdef.0123456789abcdef";
    const SPACE: &str = "seed.toml:4: malformed token in [cluster]: there is space before or after it; delete it";
    const ENDPOINT: &str = "seed.toml:3: malformed apiserver in [cluster]: expected host:port, as in 10.0.0.1:6443";
    const HASHES: &str =
        "seed.toml:5: malformed ca-cert-hashes in [cluster]: expected sha256: and 64 hexadecimal digits";
    vec![
        (seed("tokn = 1\n"), "seed.toml:6: unknown key \"tokn\" in [cluster]; did you mean token?"),
        (with("token =", "tokn ="), "seed.toml:4: unknown key \"tokn\" in [cluster]; did you mean token?"),
        (seed("[nod]\n"), "seed.toml:6: unknown table [nod]; did you mean [node]?"),
        (format!("a = 1\n{}", seed("")), "seed.toml:1: unknown key \"a\" before any table"),
        (
            format!("\"abcdef.{SECRET}\" = 1\n{}", seed("")),
            "seed.toml:1: unknown key of 23 characters before any table",
        ),
        (format!("[{SECRET}]\n"), "seed.toml: the first line must be: version = 1"),
        (seed(&format!("{SECRET} = 1\n")), "seed.toml:6: unknown key of 16 characters in [cluster]"),
        (seed(&format!("abcdef.{SECRET} = 1\n")), "seed.toml:6: unknown key \"abcdef\" in [cluster]"),
        (with("version = 1", ""), "seed.toml: the first line must be: version = 1"),
        (with("version = 1", "version = 2\nnew = 1"), "seed.toml:1: this firstboot reads seeds of version = 1 only"),
        (with("version = 1", "version = \"1\""), "seed.toml:1: version is a number: write version = 1, without quotes"),
        (
            with("version = 1", "version = 1\nreset = \"true\""),
            "seed.toml:2: reset must be true or false, without quotes",
        ),
        (
            seed(&format!("join = \"kubeadm join --token abcdef.{SECRET}\"\n")),
            "seed.toml:6: unknown key \"join\" in [cluster]; it belongs at the top, before any table",
        ),
        (
            seed("reset = true\n"),
            "seed.toml:6: unknown key \"reset\" in [cluster]; it belongs at the top, before any table",
        ),
        // Alone it is valid, but it joins nothing.
        ("version = 1\nreset = true\n".into(), "seed.toml: table [cluster] is missing"),
        ("version = 1\n".into(), "seed.toml: table [cluster] is missing"),
        ("version = 1\ncluster = 3\n".into(), "seed.toml:2: cluster must be a table: [cluster]"),
        (with("apiserver = \"10.0.2.2:6443\"", ""), "seed.toml:2: apiserver is missing in [cluster]"),
        (with(&format!("token = {token_line}"), ""), "seed.toml:2: token is missing in [cluster]"),
        (
            with(&format!("ca-cert-hashes = {pin}"), ""),
            "seed.toml:2: ca-cert-hashes is missing in [cluster]: without it the cluster cannot be distinguished from an \
             impostor (ca-cert does as well)",
        ),
        (with(&token_line, "\"\""), TOKEN),
        (with(&token_line, &format!("\"abcdef{SECRET}\"")), TOKEN),
        (with(&token_line, &format!("\"ABCDEF.{SECRET}\"")), LOWER),
        (with(&token_line, &format!("\"abcdef.{SECRET}0\"")), TOKEN),
        (with(&token_line, &format!("\" abcdef.{SECRET}\"")), SPACE),
        (
            with(&token_line, &format!("[\"abcdef.{SECRET}\"]")),
            "seed.toml:4: token in [cluster] must be a string in quotes",
        ),
        (
            with(&token_line, &format!("abcdef.{SECRET}")),
            "seed.toml:4: not valid TOML: put the value in quotation marks, \"…\"",
        ),
        (
            with(&token_line, &format!("\"abcdef.{SECRET}")),
            "seed.toml:4: not valid TOML: a value has no quotation mark at its end; one of several lines stands between \
             \"\"\"",
        ),
        (seed(&format!("token = \"abcdef.{SECRET}\"\n")), "seed.toml:6: not valid TOML: duplicate key"),
        (with("10.0.2.2:6443", ""), ENDPOINT),
        (
            with("10.0.2.2:6443", "10.0.2:6443"),
            "seed.toml:3: malformed apiserver in [cluster]: expected an IPv4 address of four numbers from 0 to 255, as in \
             10.0.0.1:6443",
        ),
        (
            with("10.0.2.2:6443", "host:"),
            "seed.toml:3: malformed apiserver in [cluster]: expected a port from 1 to 65535",
        ),
        (
            with("10.0.2.2:6443", "host:65536"),
            "seed.toml:3: malformed apiserver in [cluster]: expected a port from 1 to 65535",
        ),
        (with("10.0.2.2:6443", "ho*st:1"), "seed.toml:3: malformed apiserver in [cluster]: a host name has no *"),
        (with("10.0.2.2:6443", "[fd00::1]6443"), ENDPOINT),
        (
            with("10.0.2.2:6443", "fd00::1"),
            "seed.toml:3: malformed apiserver in [cluster]: expected an IPv6 address in brackets, as in [fd00::1]:6443",
        ),
        (
            with("10.0.2.2:6443", "https://10.0.2.2:6443"),
            "seed.toml:3: malformed apiserver in [cluster]: expected host:port without https://, as in 10.0.0.1:6443",
        ),
        (with("\"10.0.2.2:6443\"", "[]"), "seed.toml:3: apiserver in [cluster] is empty"),
        (with(&pin, "[]"), "seed.toml:5: ca-cert-hashes in [cluster] is empty"),
        (with("sha256:", "sha512:"), HASHES),
        (with(PIN, "sha256:00"), HASHES),
        (with(PIN, SECRET), HASHES),
        (
            with(&format!("ca-cert-hashes = {pin}"), &format!("ca-cert = \"{SECRET}\"")),
            "seed.toml:5: malformed ca-cert in [cluster]: expected a CA certificate in PEM, from \
             -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----",
        ),
        (
            seed(&format!("ca-cert = \"\"\"{}\"\"\"\n", test_ca())),
            "seed.toml:6: ca-cert and ca-cert-hashes are both set in [cluster]: give one of them",
        ),
        (
            seed("token-expires = 2026-11-23T12:00:00\n"),
            "seed.toml:6: malformed token-expires in [cluster]: expected a time with zone, as in 2026-11-23T12:00:00Z",
        ),
        (
            node("name = \"edge_1\""),
            "seed.toml:7: malformed name in [node]: expected a node name: at most 63 characters a-z, 0-9, - and .",
        ),
        (
            node("name = \"{uuid}\""),
            "seed.toml:7: malformed name in [node]: expected only {serial}, {mac}, {machine-id} in braces",
        ),
        (node("name = \"{serial\""), "seed.toml:7: malformed name in [node]: expected } after { in the name"),
        (
            node("role = \"master\""),
            "seed.toml:7: malformed role in [node]: expected \"edge\", \"worker\" or \"control-plane\"",
        ),
        (node("cni = \"flannel\""), "seed.toml:7: malformed cni in [node]: expected \"auto\", \"bridge\" or \"none\""),
        (node("labels = [\"a=b\"]"), "seed.toml:7: labels in [node] must be a table: labels = { \"KEY\" = \"VALUE\" }"),
        (node("labels = { a = true }"), "seed.toml:7: value of label \"a\" in [node] must be a string in quotes"),
        (
            node("labels = { example.com = \"a\" }"),
            "seed.toml:7: value of label \"example\" in [node] must be a string in quotes; a key with dots needs quotes too",
        ),
        (
            node("labels = { \"a b\" = \"c\" }"),
            "seed.toml:7: malformed label of 3 characters in [node]: expected a label key: NAME or PREFIX/NAME, the name at \
             most 63 characters",
        ),
        (
            node("labels = { a = \"b c\" }"),
            "seed.toml:7: malformed label \"a\" in [node]: expected a label value: at most 63 characters A-Z, a-z, 0-9, -, _ and .",
        ),
        (
            node("labels = { \"node-role.kubernetes.io/edge\" = \"\" }"),
            "seed.toml:7: malformed label \"node-role.kubernetes.io/edge\" in [node]: a node may not give itself this label; \
             an administrator does, once it has joined: kubectl label node NAME node-role.kubernetes.io/edge=VALUE",
        ),
        (
            node("taints = [\"edge=true\"]"),
            "seed.toml:7: malformed taints in [node]: expected KEY=VALUE:EFFECT with effect NoSchedule, PreferNoSchedule or \
             NoExecute, as in edge=true:NoSchedule",
        ),
        (node("[network]\n[cluster]"), "seed.toml:8: not valid TOML: duplicate key"),
    ]
}

#[test]
fn refused_by_exact_message() {
    for (text, want) in bad() {
        assert_eq!(message(&text), want, "{text}");
    }
}

#[test]
fn nothing_printable_holds_the_secret() {
    // The sample token of the messages is the one of kubeadm's documentation, so another secret is used here.
    let other = "q7w2e9r4t1y6u8i3";
    for (text, _) in bad() {
        let text = text.replace(SECRET, other);
        let error = parse(text.as_bytes()).unwrap_err();
        for shown in [format!("{error}"), format!("{error:?}"), format!("{:#}", anyhow::Error::from(error.clone()))] {
            assert!(!shown.contains(other), "{shown}");
        }
    }
    let network = "[network]\nproxy = \"http://user:hunter22@proxy:3128\"\n";
    let seed = parse(seed(network).replace(SECRET, other).as_bytes()).unwrap();
    let shown = format!("{seed:?} {seed:#?}");
    assert!(!shown.contains(other) && !shown.contains("hunter22") && shown.contains("«secret»"), "{shown}");
    let json = serde_json::to_string(&(&seed.join().unwrap(), &seed.network.via)).unwrap();
    assert!(!json.contains(other) && !json.contains("hunter22"), "{json}");
    assert!(json.contains(JoinToken::ERASED) && json.contains("http://proxy:3128"), "{json}");
}

#[test]
fn every_cut_of_a_seed_is_read_or_refused_without_the_secret() {
    let other = "q7w2e9r4t1y6u8i3";
    let whole = seed("[node]\nlabels = { \"a\" = \"b\" }\n").replace(SECRET, other);
    for end in 0..whole.len() {
        for text in [whole[..end].to_owned(), whole[end..].to_owned(), whole.replacen(&whole[end..end + 1], "?", 1)] {
            if let Err(error) = parse(text.as_bytes()) {
                assert!(!error.to_string().contains(other), "{error}");
            }
        }
    }
}

#[test]
fn a_reset_alone_is_told_from_a_seed_that_joins() {
    let read = |text: &str| parse_request(text.as_bytes());
    for alone in ["version = 1\nreset = true\n", "\u{feff}version = 1\r\n# away with it\r\nreset = true\r\n"] {
        assert!(
            matches!(read(alone), Ok(SeedRequest::Reset { digest, destroys_cluster: false }) if digest.len() == 16),
            "{alone}"
        );
    }
    let destroys = read("version = 1\nreset = \"destroy-cluster\"\n").unwrap();
    assert!(destroys.destroys_cluster() && matches!(destroys, SeedRequest::Reset { .. }));
    for none in ["version = 1\nreset = false\n", "version = 1\nreset = true\n[network]\ndhcp = true\n"] {
        assert_eq!(read(none).unwrap_err().to_string(), "seed.toml: table [cluster] is missing");
    }
    assert!(read("version = 2\nreset = true\n").is_err() && read("reset = true\n").is_err());
    let of = |text: &str| match read(text) {
        Ok(SeedRequest::Join(seed)) => seed.reset,
        other => panic!("{other:?}"),
    };
    let with = |line: &str| seed("").replacen("version = 1", &format!("version = 1\n{line}"), 1);
    assert!(!of(&seed("")) && of(&with("reset = true")) && !of(&with("reset = false")));
}
