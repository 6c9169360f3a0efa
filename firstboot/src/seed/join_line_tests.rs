// SPDX-License-Identifier: Apache-2.0
//! Lines that are read, and lines that are refused, each by its exact message.

use super::*;

const HASH: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const OTHER: &str = "sha256:ff112233445566778899aabbccddeeff00112233445566778899aabbccddee00";
const TOKEN: &str = "abcdef.q7w2e9r4t1y6u8i3";

fn shown(line: &str) -> String {
    let read = parse(line).unwrap();
    let hashes: Vec<String> = read.ca_cert_hashes.iter().map(ToString::to_string).collect();
    let name = read.node_name.map(|n| n.render(|_| None).unwrap()).unwrap_or_default();
    format!("{} {} {} {name}", read.apiserver, *read.token.bearer(), hashes.join(" "))
}

#[test]
fn lines_as_people_paste_them() {
    let want = format!("192.0.2.1:6443 {TOKEN} {HASH} ");
    for line in [
        format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH} "),
        format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} \\\n\t--discovery-token-ca-cert-hash {HASH}\n"),
        format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} \\ \r\n    --discovery-token-ca-cert-hash {HASH} \\"),
        format!("sudo kubeadm join --token={TOKEN} --discovery-token-ca-cert-hash={HASH} 192.0.2.1:6443"),
        format!(
            "# sudo -E /usr/bin/kubeadm join '192.0.2.1:6443' --token \"{TOKEN}\"\n--discovery-token-ca-cert-hash {HASH}"
        ),
        format!(
            "$ kubeadm join 192.0.2.1 --discovery-token {TOKEN} --tls-bootstrap-token {TOKEN} --discovery-token-ca-cert-hash {HASH}"
        ),
        format!("kubeadm join 192.0.2.1 --discovery-token {TOKEN} --discovery-token-ca-cert-hash {HASH}"),
    ] {
        assert_eq!(shown(&line), want, "{line}");
    }
    assert_eq!(
        shown(&format!(
            "kubeadm join [fd00::1]:443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH},{OTHER} \
             --discovery-token-ca-cert-hash={OTHER} --node-name Shop-1"
        )),
        format!("[fd00::1]:443 {TOKEN} {HASH} {OTHER} {OTHER} shop-1")
    );
}

#[test]
fn a_spent_token_is_still_read() {
    let line = format!("kubeadm join a:1 --token abcdef.{} --discovery-token-ca-cert-hash {HASH}", JoinToken::ERASED);
    assert!(parse(&line).unwrap().token.is_erased());
}

#[test]
fn refused_by_exact_message() {
    const EXPECTED: &str = "expected the line that kubeadm token create --print-join-command prints";
    const TOKEN_FORM: &str = "--token: expected 6 and 16 characters a-z0-9, as in abcdef.0123456789abcdef";
    const SHELL: &str = "is refused: give the one command, without what a shell makes of more";
    let with = |more: &str| format!("kubeadm join a:1 --token {TOKEN} {more}");
    for (line, want) in [
        ("", EXPECTED.to_owned()),
        ("kubeadm init", EXPECTED.to_owned()),
        (TOKEN, EXPECTED.to_owned()),
        ("ssh node kubeadm join a:1", EXPECTED.to_owned()),
        ("kubeadm join", "it names no API server: expected kubeadm join HOST:PORT".to_owned()),
        ("kubeadm join a:1", "--token is missing".to_owned()),
        (&format!("kubeadm join a:1 --tls-bootstrap-token {TOKEN}"), "--token is missing".to_owned()),
        ("kubeadm join a:1 --token", "--token has no value".to_owned()),
        ("kubeadm join a:1 --token=", "--token has no value".to_owned()),
        ("kubeadm join a:1 --token abcdef.q7w2e9r4t1y6u8i", TOKEN_FORM.to_owned()),
        ("kubeadm join a:1 --token 'abcdef", "a quotation mark ' is not closed".to_owned()),
        (&with("b:1"), "API server address is given twice".to_owned()),
        (&with(&format!("--token {TOKEN}")), "--token is given twice".to_owned()),
        (
            &format!("kubeadm join https://a:1 --token {TOKEN}"),
            "API server address: expected host:port without https://, as in 10.0.0.1:6443".to_owned(),
        ),
        (
            "kubeadm join a:1 --discovery-token abcdef.q7w2e9r4t1y6u8i3 --tls-bootstrap-token abcdef.a7w2e9r4t1y6u8i3",
            "--tls-bootstrap-token differs from the discovery token; firstboot uses one for both".to_owned(),
        ),
        (
            &with("--discovery-token-ca-cert-hash sha256:00"),
            "--discovery-token-ca-cert-hash: expected sha256: and 64 hexadecimal digits".to_owned(),
        ),
        (
            &with("--node-name a_b"),
            "--node-name: expected a node name: at most 63 characters a-z, 0-9, - and .".to_owned(),
        ),
        (&with("–node-name a"), "a hyphen was replaced by a dash; write flags with two hyphens, --".to_owned()),
        (&with("--new-flag"), "--new-flag is refused: firstboot does not know this flag".to_owned()),
        (&with("--q7w2e9r4t1y6u8i3"), "a flag of 18 characters is refused: firstboot does not know it".to_owned()),
        (&with("&& reboot"), format!("& {SHELL}")),
        (&with("| tee log"), format!("| {SHELL}")),
        ("kubeadm join a:1 --token $TOKEN", format!("$ {SHELL}")),
    ] {
        assert_eq!(parse(line).unwrap_err(), want, "{line}");
    }
    for (flag, why) in REFUSED_SWITCHES.iter().chain(&REFUSED_FLAGS) {
        for line in [with(flag), with(&format!("{flag} value")), with(&format!("{flag}=value"))] {
            assert_eq!(parse(&line).unwrap_err(), format!("{flag} is refused: {why}"));
        }
    }
}
