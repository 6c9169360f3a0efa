// SPDX-License-Identifier: Apache-2.0
//! Files that are no seeds, and lines that are not TOML, each with its message.

use super::super::parse;

fn message(text: &[u8]) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn files_that_are_something_else() {
    const BEGINS: &str = "a seed is plain text that begins with: version = 1";
    const JOIN: &str =
        "write version = 1, and join = '…' with the line that kubeadm token create --print-join-command prints";
    const LINE: &str = "write version = 1 in the first line, and join = '…' with this line in the next";
    let secret = "abcdef.q7w2e9r4t1y6u8i3";
    let line = format!("kubeadm join 192.0.2.1:6443 --token {secret} --discovery-token-ca-cert-hash sha256:00");
    let joined = |kind: &str| format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: {kind}\ntoken: {secret}\n");
    for (text, what, advice) in [
        ("PK\x03\x04\x14".to_owned(), "a ZIP archive or a document of a word processor", BEGINS),
        ("%PDF-1.7".to_owned(), "a PDF document", BEGINS),
        ("{\\rtf1\\ansi\n\\f0 version = 1\\\n".to_owned(), "Rich Text (RTF)", "save it as plain text"),
        ("\n<!DOCTYPE html>\n".to_owned(), "a web page (HTML)", BEGINS),
        ("<?xml version = \"1.0\"?>".to_owned(), "XML or HTML", BEGINS),
        ("\u{200b}#cloud-config\nruncmd:\n - a\n".to_owned(), "cloud-config for cloud-init", BEGINS),
        ("#cloud-config\n".to_owned(), "cloud-config for cloud-init", BEGINS),
        (format!("#!/bin/sh\n{line}\n"), "a script", BEGINS),
        (format!("{{\"version\": 1, \"token\": \"{secret}\"}}"), "JSON", BEGINS),
        ("-----BEGIN CERTIFICATE-----\nA\n".to_owned(), "a certificate", "it is the value of ca-cert in [cluster]"),
        ("-----BEGIN EC PRIVATE KEY-----\nA\n".to_owned(), "a private key", "remove it from this medium"),
        ("ssh-ed25519 AAAA a\n".to_owned(), "a public key for SSH", "it is a value of ssh-keys in [access]"),
        (line.clone(), "a join line alone", LINE),
        (format!("W1127 warning: a\n$ sudo {line}\n"), "a join line alone", LINE),
        (secret.to_owned(), "a token alone", JOIN),
        (
            "country=DE\nnetwork = {\n ssid=\"a\"\n psk=\"12345678\"\n}\n".to_owned(),
            "configuration of wpa_supplicant",
            "ssid, password and country belong in [network.wifi]",
        ),
        (
            joined("JoinConfiguration"),
            "a JoinConfiguration of kubeadm (YAML)",
            "its values are apiserver, token and ca-cert-hashes in [cluster], after version = 1",
        ),
        (joined("InitConfiguration"), "an InitConfiguration of kubeadm (YAML)", JOIN),
        (joined("Pod"), "an object of Kubernetes (YAML)", JOIN),
        ("---\napiVersion: v1\nclusters:\n- cluster:\n".to_owned(), "a kubeconfig", JOIN),
        (
            format!("server: https://a:6443\ntoken: {secret}\n"),
            "YAML",
            "a seed is TOML, KEY = VALUE, and begins with: version = 1",
        ),
    ] {
        assert_eq!(message(text.as_bytes()), format!("seed.toml: this is {what}, and not a seed: {advice}"), "{text}");
    }
    let other = "seed.toml: this is a line of MicroK8s, and firstboot joins clusters of kubeadm: give what kubeadm token \
                 create --print-join-command prints there";
    assert_eq!(message(b"microk8s join 10.0.1.1:25000/a/b\n"), other);
    // A seed that has such text in it is a seed.
    for seed in ["version = 1\nruncmd:\n", "# {\nversion = 1\n[a\n", "version=1\nnetwork={\n"] {
        assert!(!message(seed.as_bytes()).contains("not a seed"), "{seed}");
    }
    let other = "not valid TOML, and without version: a seed is plain text that begins with: version = 1";
    for text in ["K3S_URL=https://a\n", "console=serial0 root=a\n", "[connection]\nid=home\n"] {
        let line = text.lines().count();
        assert_eq!(message(text.as_bytes()), format!("seed.toml:{line}: {other}"), "{text}");
    }
    let line = format!("join = '{line}'\n");
    assert_eq!(message(line.as_bytes()), "seed.toml: the first line must be: version = 1");
    assert_eq!(message(b"[cluster]\n"), "seed.toml: the first line must be: version = 1");
}

#[test]
fn lines_that_are_not_toml() {
    const OPEN: &str = "a value has no quotation mark at its end; one of several lines stands between \"\"\"";
    const QUOTES: &str = "put the value in quotation marks, \"…\"";
    for (lines, number, want) in [
        ("join = “a”", 2, "the character U+201C is a curly quotation mark; type \" instead"),
        ("join = ‘a’", 2, "the character U+2018 is a curly quotation mark; type ' instead"),
        ("“join” = 'a'", 2, "the character U+201C is a curly quotation mark; type \" instead"),
        ("[node]\ntaints = [\"a\", “b”]", 3, "the character U+201C is a curly quotation mark; type \" instead"),
        ("[node]\nname\u{a0}= \"a\"", 3, "the character U+00A0 is a no-break space; type a space instead"),
        ("[node\u{200b}]", 2, "the character U+200B (zero-width space) is invisible; delete it"),
        ("[node]\u{feff}", 2, "the character U+FEFF (byte-order mark) is invisible; delete it"),
        ("[node]\nname – \"a\"", 3, "the character U+2013 is an en dash; type - instead"),
        ("join = kubeadm join a:1", 2, QUOTES),
        ("join = <a>", 2, QUOTES),
        ("[cluster]\napiserver = 10.0.0.1:6443", 3, QUOTES),
        ("[network]\naddresses = [10.0.0.1/24]", 3, QUOTES),
        ("[node]\n\"name\": \"a\"", 3, "TOML has KEY = VALUE, not KEY: VALUE"),
        ("[node]\nname = &quot;a&quot;", 3, "&quot; stands for \" in the source of a web page; write \" instead"),
        ("kubeadm join a:1", 2, "write join = '…' with the join line between the quotation marks"),
        ("reset = True", 2, "write true, in lower case"),
        ("reset = no", 2, "write false, in lower case"),
        ("[node]\nname: \"a\"", 3, "TOML has KEY = VALUE, not KEY: VALUE"),
        ("[node]\nname = \"a\";", 3, "a line has no ; or , at its end"),
        ("join = \"a \"b\" c\"", 2, "a value with quotation marks (\") in it stands between single ones, '…'"),
        ("join = 'a 'b' c'", 2, "a value with apostrophes (') in it stands between double quotation marks, \"…\""),
        (
            "[network.wifi]\nssid = 'Tom's'",
            3,
            "a value with apostrophes (') in it stands between double quotation marks, \"…\"",
        ),
        ("join = \"a \\\n b\"", 2, OPEN),
        ("join = 'a\n b'", 2, OPEN),
        ("[node]\nname = \"a", 3, OPEN),
        // The parser's own words where nothing better is known.
        ("[node]\nname", 3, "key with no value, expected `=`"),
        ("[node]\n[node]", 3, "duplicate key"),
    ] {
        let text = format!("version = 1\n{lines}\n");
        assert_eq!(message(text.as_bytes()), format!("seed.toml:{number}: not valid TOML: {want}"), "{text}");
    }
    // In a string such a character is a part of the value.
    let text = "version = 1\n[network.wifi]\nssid = \"Tom’s\" = 1\n";
    assert_eq!(message(text.as_bytes()), "seed.toml:3: not valid TOML: unexpected key or value, expected newline, `#`");
}

#[test]
fn encodings_of_editors() {
    let seed =
        "version = 1\n[cluster]\napiserver = \"a\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = [\"sha256:";
    let seed = format!("{seed}{}\"]\n", "0".repeat(64));
    let want = parse(seed.as_bytes()).unwrap();
    let wide = |to: fn(u16) -> [u8; 2]| seed.encode_utf16().flat_map(to).collect::<Vec<u8>>();
    let cr = seed.replace('\n', "\r");
    for bytes in [
        wide(u16::to_le_bytes),
        wide(u16::to_be_bytes),
        cr.clone().into_bytes(),
        cr.replacen('\r', "\r\n", 2).into_bytes(),
    ] {
        assert_eq!(parse(&bytes).unwrap().membership, want.membership);
    }
    // An error has its line all the same.
    assert_eq!(
        message(cr.replace("token", "tokn").as_bytes()),
        "seed.toml:4: unknown key \"tokn\" in [cluster]; did you mean token?"
    );
    for end in ["\0\0\0\0", "# a\0\0"] {
        let text = "seed.toml:6: there are zero bytes from here on: the file was not written to its end; copy it again, and \
                    eject the medium before you remove it";
        assert_eq!(message(format!("{seed}{end}").as_bytes()), text);
    }
}
