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
fn lines_that_other_programs_changed() {
    let want = format!("192.0.2.1:6443 {TOKEN} {HASH} ");
    for line in [
        // cmd.exe and PowerShell go on after these.
        format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} ^\r\n  --discovery-token-ca-cert-hash {HASH} ^\r\n"),
        format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} `\r\n  --discovery-token-ca-cert-hash {HASH}"),
        // Invisible characters around words.
        format!(
            "\u{feff}kubeadm\u{200b} join \u{2060}192.0.2.1:6443\u{ad} --token {TOKEN} \u{200b} --discovery-token-ca-cert-hash\u{a0}{HASH}\u{200e}"
        ),
        // Curly quotation marks around words.
        format!("kubeadm join ‘192.0.2.1:6443’ --token “{TOKEN}” --discovery-token-ca-cert-hash=„{HASH}“"),
        // Other text around the line.
        format!(
            "root@cp1:~# kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}\nroot@cp1:~# "
        ),
        format!(
            "It's a <warning> & more\nkubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}"
        ),
        format!("```\nkubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}\n```\n"),
        format!(
            "Then run `sudo kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}` there"
        ),
        format!("> kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}"),
        format!("“kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}”"),
        format!("<code>kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}</code>"),
    ] {
        assert_eq!(shown(&line), want, "{line}");
    }
}

/// What `kubeadm init --upload-certs` prints (cmd/kubeadm/app/cmd/init.go, 1.36), in short.
fn output_of_init() -> String {
    format!(
        "Your Kubernetes control-plane has initialized successfully!\n\n  sudo chown $(id -u):$(id -g) $HOME/.kube/config\n\n\
         You can now join any number of control-plane nodes running the following command on each as root:\n\n  \
         kubeadm join 192.0.2.1:6443 --token {TOKEN} \\\n\t--discovery-token-ca-cert-hash {HASH} \\\n\t--control-plane \
         --certificate-key {}\n\nPlease note that the certificate-key gives access to cluster sensitive data, keep it \
         secret!\n\nThen you can join any number of worker nodes by running the following on each as root:\n\n\
         kubeadm join 192.0.2.1:6443 --token {TOKEN} \\\n\t--discovery-token-ca-cert-hash {HASH} \n",
        "0".repeat(64)
    )
}

#[test]
fn one_line_is_taken_out_of_a_text() {
    let want = format!("192.0.2.1:6443 {TOKEN} {HASH} ");
    let text = output_of_init();
    assert_eq!(shown(&text), want);
    let note = |text: &str| read(text).unwrap().1;
    assert_eq!(note(&text), Some("took the worker's join line out of the text, not the control plane's"));
    let line = format!("kubeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH}\n");
    assert_eq!(note(&line), None);
    assert_eq!(note(&format!("warning\n{line}")), Some("took the join line alone out of the text"));
    // Twice the same, one of them overwritten already.
    let spent = line.replace("q7w2e9r4t1y6u8i3", JoinToken::ERASED);
    for text in [format!("{line}\n{line}"), format!("{spent}\n{line}"), format!("{line}\n{spent}")] {
        assert_eq!(shown(&text), want, "{text}");
    }
    let two = format!("{line}\n{}", line.replace("192.0.2.1", "192.0.2.2"));
    assert_eq!(parse(&two).unwrap_err(), "the text has two different join lines; keep the one that is meant");
    let alone = text.split("Then you can").next().unwrap();
    assert_eq!(
        parse(alone).unwrap_err(),
        "--control-plane is refused: use the seed join-control-plane.toml of the first control plane instead"
    );
    // The line is what is wrong, and not the text around it.
    let short = text.replace("--discovery-token-ca-cert-hash sha256:0", "--discovery-token-ca-cert-hash sha256:");
    let want = "--discovery-token-ca-cert-hash: expected sha256: and 64 hexadecimal digits";
    assert_eq!(parse(&short).unwrap_err(), want);
}

#[test]
fn lines_of_edgeadm() {
    let want = format!("192.0.2.1:6443 {TOKEN} {HASH} ");
    let line = |more: &str| {
        format!("edgeadm join 192.0.2.1:6443 --token {TOKEN} --discovery-token-ca-cert-hash {HASH} {more}")
    };
    for (more, role) in [
        ("", None),
        ("--install-pkg-path <Path of edgeadm kube-* install package>", None),
        (
            "\\\n    --install-pkg-path=<edgeadm kube-* install package address path> --enable-edge=true",
            Some(Role::Edge),
        ),
        ("--install-pkg-path ./kube-linux-amd64-v1.22.6.tar.gz --enable-edge", Some(Role::Edge)),
        ("--enable-edge=false --install-pkg-path ./kube-linux-*.tar.gz", Some(Role::Worker)),
        ("--runtime=containerd", None),
    ] {
        for program in ["", "./", "sudo /opt/edgeadm/"] {
            let line = format!("{program}{}", line(more));
            assert_eq!((shown(&line), parse(&line).unwrap().role), (want.clone(), role), "{line}");
        }
    }
    for (more, why) in [
        ("--enable-edge=yes", "--enable-edge: expected true or false"),
        ("--runtime docker", "--runtime is refused: the image brings containerd, and no other runtime"),
        ("--install-pkg-path", "--install-pkg-path has no value"),
        ("--install-pkg-path <Path of", "a bracket < is not closed"),
        ("--v=6", "--v is refused: it only says how much kubeadm prints"),
    ] {
        assert_eq!(parse(&line(more)).unwrap_err(), why);
    }
    for (flag, why) in REFUSED_EDGEADM_FLAGS {
        assert_eq!(parse(&line(&format!("{flag} a"))).unwrap_err(), format!("{flag} is refused: {why}"));
    }
    let flag = line("--enable-edge=true").replace("edgeadm", "kubeadm");
    assert_eq!(parse(&flag).unwrap_err(), "--enable-edge is refused: firstboot does not know this flag");
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
        (
            "kubeadm init",
            format!("this command makes a cluster or a token; give {}", EXPECTED.trim_start_matches("expected ")),
        ),
        (
            "yurtadm join a:1 --token abcdef.q7w2e9r4t1y6u8i3",
            "this is a line of yurtadm (OpenYurt), and firstboot takes kubeadm's: give what kubeadm token create \
             --print-join-command prints on the control plane"
                .to_owned(),
        ),
        (
            "curl -sfL https://get.k3s.io | K3S_URL=https://a:6443 K3S_TOKEN=q7w2e9r4t1y6u8i3 sh -",
            "this is a line of k3s, and firstboot joins clusters of kubeadm: give what kubeadm token create \
             --print-join-command prints there"
                .to_owned(),
        ),
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
        (
            &with("--node-nam a"),
            "--node-nam is refused: firstboot does not know this flag; did you mean --node-name?".to_owned(),
        ),
        (
            &with("--discovery_token_ca_cert_hash a"),
            "--discovery_token_ca_cert_hash is refused: firstboot does not know this flag; did you mean \
             --discovery-token-ca-cert-hash?"
                .to_owned(),
        ),
        (
            &with("--node\u{200b}-name a"),
            "a flag is malformed: the character U+200B (zero-width space) is invisible; delete it".to_owned(),
        ),
        ("kubeadm join a:1 --token --discovery-token-ca-cert-hash b", "--token has no value".to_owned()),
        (
            "kubeadm join a:1 --token abcdef.q7w2\u{200b}e9r4t1y6u8i3",
            "--token: the character U+200B (zero-width space) is invisible; delete it".to_owned(),
        ),
        (
            "kubeadm join a:1 --token ABCDEF.q7w2e9r4t1y6u8i3",
            "--token: expected a token in lower case, as in abcdef.0123456789abcdef".to_owned(),
        ),
        ("H4sIAAAAAAAC", "this is a join token of k0s, and firstboot joins clusters of kubeadm".to_owned()),
        (
            &with("x").replace("u8i3 x", &format!("\nu8i3 --discovery-token-ca-cert-hash {HASH}")),
            "a line end stands within a word; put the pieces of the word together".to_owned(),
        ),
        (
            &with(&format!("-\n-discovery-token-ca-cert-hash {HASH}")),
            "a line end stands within a word; put the pieces of the word together".to_owned(),
        ),
        ("kubeadm join a:1--token b", "API server address: expected a space after the port".to_owned()),
        (
            "kubeadm join a:1 &#45;&#45;token b",
            "&#45; stands for - in the source of a web page; write - instead".to_owned(),
        ),
        (
            "kubeadm join <control-plane-host>:<port> --token b",
            "a placeholder <…> is left in the line; put the value there".to_owned(),
        ),
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
