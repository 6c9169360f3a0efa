// SPDX-License-Identifier: Apache-2.0
//! Plants secrets in every source of the archive and searches the uncompressed archive for them, in UTF-8 and UTF-16.

use super::*;
use crate::boot_partition::{encodings, find_all};
use crate::host::fake::Fake;
use crate::journal::facts::Fact;
use crate::paths::{KUBELET_CONF, PKI};
use std::io::Read;

const TOKEN: &str = "0123456789abcdef";
const WIFI: &str = "it's my #1 \"network";
const PROXY: &str = "p%40ss;word";
const REGISTRY: &str = "r\"gistry;pw";
/// Base64 of `edge:` and [`REGISTRY`].
const BASIC: &str = "ZWRnZTpyImdpc3RyeTtwdw==";
const BEARER: &str = "opaque-bearer-4711";
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2RlIn0.c2lnbmF0dXJl";
/// Base64 of "-----BEGIN EC PRIVATE KEY-----…", as in kubeconfigs.
const KEY_DATA: &str = "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCk1IY0NBUUVFSUk=";
const KEY: [&str; 2] = ["MHcCAQEEIIplantedplantedplantedplantedplantedplantedplanted12345", "AwEHoUQDQgAEshortlast=="];

/// Base64 of `user:docker-pass`, as in `config.json`.
const DOCKER: &str = "dXNlcjpkb2NrZXItcGFzcw==";
const COOKIE: &str = "sid=cookie-4712";
const SIGNED: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0f";
const CODE: &str = "value-after-a-word-4713";
/// Tokens that are known by their form alone.
const FORMS: [&str; 9] = [
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "glpat-ABCDEFabcdef12345678",
    "dckr_pat_ABCDEFabcdef1234567890_-x",
    "xoxb-123456789012-ABCDEFabcdef",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "hvs.CAESIJ1234567890abcdefghij",
];

fn pem() -> String {
    format!("-----BEGIN EC PRIVATE KEY-----\n{}\n{}\n-----END EC PRIVATE KEY-----\n", KEY[0], KEY[1])
}

/// The planted secrets, in pieces short enough to detect a remaining part.
fn planted_secrets() -> Vec<&'static str> {
    vec![
        TOKEN,
        WIFI,
        "#1 \"net",
        "#1 \\\"net",
        PROXY,
        "p@ss;word",
        REGISTRY,
        "r\\\"gistry",
        BASIC,
        BEARER,
        JWT,
        "c2lnbmF0dXJl",
        KEY_DATA,
        KEY[0],
        KEY[1],
        DOCKER,
        COOKIE,
        "4712",
        SIGNED,
        CODE,
    ]
    .into_iter()
    .chain(FORMS)
    .collect()
}

const TOKEN_HALF: &str = "01234567";
const OTHER_HALF: &str = "89abcdef";

/// The token's secret with a colour in its middle, as terminals get it and as programs quote that.
fn coloured(escape: &str) -> String {
    format!("{TOKEN_HALF}{escape}[32;1m{OTHER_HALF}")
}

/// Log lines with every secret in the notation of various programs, some without a keyword before it.
fn planted() -> String {
    let logged: String = pem().lines().map(|l| format!("2026-11-23T00:00:00Z kubelet[7]: {l}\n")).collect();
    format!(
        "harmless before\n\
         kubeadm join 10.0.0.1:6443 --token abcdef.{TOKEN} --discovery-token-ca-cert-hash sha256:00\n\
         the secret alone: {TOKEN}.\n\
         wpa_supplicant: psk=\"{WIFI}\" refused\n\
         set {WIFI} for wlan0\n\
         {{\"msg\":\"psk it's my #1 \\\"network was refused\"}}\n\
         proxyconnect http://edge:{PROXY}@proxy.example:3128/x: refused\n\
         decoded: edge p@ss;word\n\
         containerd: {BASIC} is refused, which is {REGISTRY}\n\
         {{\"msg\":\"edge r\\\"gistry;pw\"}}\n\
         Authorization: Bearer {BEARER}\n\
         curl -H 'authorization: bearer {BEARER}'\n\
         mounted {JWT} for a pod\n\
         client-key-data: {KEY_DATA}\n\
         {logged}\
         on one line: {}\n\
         {{\"auths\":{{\"r.example\":{{\"auth\": \"{DOCKER}\"}}}}}}\n\
         Set-Cookie: theme=dark; {COOKIE}; Path=/\n\
         cookie={COOKIE}\n\
         pull https://s3.example/a?X-Amz-Credential={CODE}&X-Amz-Signature={SIGNED}&x=1: 403\n\
         pull https://b.example/a?sv=2&sig={SIGNED}: 403\n\
         DefaultEndpointsProtocol=https;AccountName=a;AccountKey={CODE};SharedAccessKey={CODE}\n\
         user=a pwd={CODE} pass: {CODE}\n\
         credentials = \"{CODE}\" PrivateKey = {CODE}\n\
         secretAccessKey: {CODE}\n\
         {forms}\
         coloured \u{1b}[1;31m{coloured}\u{1b}[0m\n\
         escaped {escaped}\n\
         titled {TOKEN_HALF}\u{1b}]0;title\u{7}{OTHER_HALF}\n\
         harmless after\n",
        pem().trim_end().replace('\n', "\\n"),
        forms = FORMS.map(|form| format!("logged in with {form}, it says\n")).concat(),
        coloured = coloured("\u{1b}"),
        escaped = ["\\u001b", "\\x1b", "\\033", "#033", "^["].map(coloured).join(" "),
    )
}

/// A device with secrets in every file that may contain one, and in the output of every command.
fn device(root: &Path) -> Host {
    let (fake, seen) = Fake::new();
    seen.clock.set(Some(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_392_000)));
    let host = Host::open(root, Box::new(fake.answering(|_| Some(Ok(planted()))))).unwrap();
    host.record(crate::journal::Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
    for (_, path) in FILES.iter().filter(|(_, path)| *path != JOURNAL) {
        put(root, path, planted().as_bytes());
    }
    put(root, "/var/lib/firstboot/journal.damaged", planted().as_bytes());
    std::fs::create_dir_all(root.join("var/lib/firstboot/receipt.json.damaged")).unwrap();
    // The encoding of an editor on Windows.
    put(root, "/etc/hosts", &encodings(&format!("\u{feff}{}", planted()))[1]);
    put(
        root,
        "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf",
        format!("network={{\n\tpsk=\"{WIFI}\"\n}}\n").as_bytes(),
    );
    put(root, "/etc/firstboot/proxy.env", format!("HTTPS_PROXY=http://edge:{PROXY}@proxy.example:3128\n").as_bytes());
    let hosts = format!("# Written by firstboot.\n\n[header]\nAuthorization = \"Basic {BASIC}\"\n");
    put(root, "/etc/containerd/certs.d/quay.io/hosts.toml", hosts.as_bytes());
    put(root, &format!("{PKI}/kubelet-client-current.pem"), pem().as_bytes());
    put(root, KUBELET_CONF, planted().as_bytes());
    host
}

use std::path::Path;

fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn seed() -> Vec<u8> {
    format!(
        "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.{TOKEN}\"\nca-cert-hashes = \"sha256:{}\"\n",
        "0".repeat(64)
    )
    .into_bytes()
}

fn unpacked(gzip: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn s17_no_planted_secret_is_in_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let host = device(dir.path());
    let own: [Own<'_>; 2] = [("status", &|| Ok(planted())), ("audit", &|| anyhow::bail!("psk=\"{WIFI}\" failed"))];
    let secrets = collect_secrets(&host, Some(&seed()));
    let tar = unpacked(&archive(&host, &own, &secrets).unwrap());
    for secret in planted_secrets() {
        for form in encodings(secret) {
            assert_eq!(find_all(&tar, &form), [0usize; 0], "{secret} is in the archive");
        }
    }
    let mut names = Vec::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let name = name.strip_prefix("firstboot-report-edge-1-2026-11-23T000000Z/").unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        // Text before and after the secrets is unchanged.
        if !["firstboot/journal", "firstboot/receipt.json.damaged", "audit"].contains(&name.as_str()) {
            assert!(text.starts_with("harmless before\n") && text.ends_with("\nharmless after\n"), "{name}: {text}");
            assert!(text.contains("--token [redacted] --discovery-token-ca-cert-hash sha256:00\n"), "{text}");
            assert!(text.contains("\ndecoded: edge [redacted]\n"), "{text}");
            assert!(text.contains("http://[redacted]@proxy.example:3128/x: refused\n"), "{text}");
        }
        names.push(name);
    }
    assert_eq!(names.len(), own.len() + FILES.len() + 2 + COMMANDS.len() + LOGS.len());
    let never = ["seed", "kubelet.conf", "pki", "wpa_supplicant", "proxy.env", "join.key"];
    assert!(!names.iter().any(|name| never.iter().any(|n| name.contains(n))), "{names:?}");
}

/// Redaction by form and keyword alone, without known values.
#[test]
fn form_and_keyword_suffice_for_most_secrets() {
    let none = DeviceSecrets::default();
    for (text, shown) in [
        (format!("token abcdef.{TOKEN}!"), "token abcdef.[redacted]!"),
        (format!("\"token\":\"{BEARER}\",\"a\":1"), "\"token\":\"[redacted]\",\"a\":1"),
        (format!("\\\"token\\\": \\\"{BEARER}\\\" x"), "\\\"token\\\": \\\"[redacted]\\\" x"),
        ("\"secret\": \"one\\\"two\" x".into(), "\"secret\": \"[redacted]\" x"),
        ("token=one;two,three x".into(), "token=[redacted] x"),
        ("password: http://a:b@c one two".into(), "password: [redacted]"),
        (format!("sae_password = {WIFI}"), "sae_password = [redacted]"),
        (format!("psk=\"{WIFI}\" x"), "psk=\"[redacted]\" x"),
        ("key_mgmt=WPA-PSK WPA-PSK-SHA256".into(), "key_mgmt=WPA-PSK WPA-PSK-SHA256"),
        (
            "http://user@[fd00::1]:3128 https://plain.example/a@b".into(),
            "http://[redacted]@[fd00::1]:3128 https://plain.example/a@b",
        ),
        (format!("bearer {BEARER}, x"), "bearer [redacted] x"),
        (format!("value={JWT}"), "value=[redacted]"),
        ("no secrets: 12 tokens; containerd.io".into(), "no secrets: 12 tokens; containerd.io"),
        ("\u{1b}[31mred\u{0} \u{9b}1mbold \u{1b}(Bplain \u{1b}]0;a title\u{1b}\\end".into(), "red bold plain end"),
        ("half \u{1b}[31".into(), "half "),
        // Words that only look like a keyword.
        (
            "bypass=on authority: a --anonymous-auth=false passed: 3".into(),
            "bypass=on authority: a --anonymous-auth=false passed: 3",
        ),
        ("Signature Algorithm: ecdsa-with-SHA256 sigma=1".into(), "Signature Algorithm: ecdsa-with-SHA256 sigma=1"),
        ("h1:xAKIAIOSFODNN7EXAMPLEx AKIA ghp_ glpat-".into(), "h1:xAKIAIOSFODNN7EXAMPLEx AKIA ghp_ glpat-"),
    ] {
        assert_eq!(redact(text.as_bytes(), &none), format!("{shown}\n"), "{text}");
    }
    // A log that begins in the middle of a key, and one that ends there.
    let half = format!("a\nx: {}\nx: {}\nx: -----END EC PRIVATE KEY-----\nb\n", KEY[0], KEY[1]);
    assert_eq!(redact(half.as_bytes(), &none), "a\nx: [redacted]\nb\n");
    let half = format!("a\nx: -----BEGIN EC PRIVATE KEY-----\nx: {}\n", KEY[0]);
    assert_eq!(redact(half.as_bytes(), &none), "a\nx: [redacted]\n");
}

#[test]
fn secret_within_a_longer_secret_leaves_no_remainder() {
    let mut secrets = DeviceSecrets::default();
    for value in ["word", "password-1", "abc"] {
        secrets.add(value);
    }
    assert_eq!(redact(b"password-1 sword abc", &secrets), "[redacted] s[redacted] abc\n");
}

#[test]
fn size_is_bounded_and_the_newest_lines_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (fake, _) = Fake::new();
    let flood = "0123456789 0123456789 0123456789\n".repeat(1 << 9) + "the newest line\n";
    let host = Host::open(dir.path(), Box::new(fake.answering(move |_| Some(Ok(flood.clone()))))).unwrap();
    let archive = within(Limits { text: 1 << 10, total: 16 << 10 }, &host, &[], &DeviceSecrets::default()).unwrap();
    let tar = unpacked(&archive);
    // Plus headers and padding of tar.
    assert!(tar.len() < (16 << 10) + 26 * 2048 + 1024, "{}", tar.len());
    assert!(find_all(&tar, b"\nthe newest line\n").len() >= 15);
    assert!(find_all(&tar, b" bytes before this are left out]\n").len() >= 15);
    let file = dir.path().join("out.tar.gz");
    // The host's root is the temporary directory, so this path is below it.
    let message = super::write_archive(&host, &archive, "/out.tar.gz").unwrap().unwrap();
    assert!(message.starts_with("/out.tar.gz: "), "{message}");
    assert_eq!(std::fs::read(file).unwrap(), archive);
}
