// SPDX-License-Identifier: Apache-2.0
//! Kubeconfigs of every kind, and what is said of those that cannot be used.

#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::PermissionsExt;

/// base64 of `ca`, `chain` and `key`: nothing here reads certificates.
const CLUSTER: &str = "clusters:\n- {name: c, cluster: {server: \"https://192.0.2.1:6443\", \
                       certificate-authority-data: Y2E=}}\ncontexts:\n- {name: x, context: {cluster: c, user: u}}\n\
                       current-context: x\n";

struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Self {
        Bench(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// With this user.
    fn access(&self, user: &str) -> Result<Access> {
        let path = self.write("config", &format!("{CLUSTER}users:\n- {{name: u, user: {user}}}\n"));
        access(Some(&path), None)
    }

    fn error(&self, user: &str) -> String {
        let Err(error) = self.access(user) else { panic!("{user} is accepted") };
        format!("{error:#}").replace(&self.0.path().display().to_string(), "DIR")
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.write(name, &format!("#!/bin/sh\n{text}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn shown(access: &Access) -> (String, String) {
    match &access.credential {
        Credential::Token(token) => ("token".to_owned(), token.expose().clone()),
        Credential::Certificate(chain, key) => (chain.clone(), key.expose().clone()),
    }
}

#[test]
fn tokens_and_certificates_inline_and_in_files() {
    let bench = Bench::new();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let found = bench.access("{token: abc}").unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), ("https://192.0.2.1:6443", "ca"));
    assert_eq!(shown(&found), pair("token", "abc"));
    bench.write("token", " def\n");
    // The file is renewed, the value is not.
    assert_eq!(shown(&bench.access("{token: abc, tokenFile: token}").unwrap()), pair("token", "def"));
    let inline = "{client-certificate-data: Y2hhaW4=, client-key-data: a2V5}";
    assert_eq!(shown(&bench.access(inline).unwrap()), pair("chain", "key"));
    bench.write("a.crt", "chain 2");
    bench.write("a.key", "key 2");
    let files = "{client-certificate: a.crt, client-key: a.key, token: abc}";
    assert_eq!(shown(&bench.access(files).unwrap()), pair("chain 2", "key 2"));
}

#[test]
fn a_plugin_gives_the_credential() {
    let bench = Bench::new();
    let status = |status: &str| {
        format!(r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{status}}}"#)
    };
    let user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, args: [a, 'b c'], \
                env: [{name: NAME, value: word}], provideClusterInfo: true, interactiveMode: Never}}";
    // What it is given is what it answers with.
    let given =
        r#"test "$1 $2 $NAME" = "a b c word" && echo "$KUBERNETES_EXEC_INFO" >"$(dirname "$0")/info" && echo '"#;
    bench.program("plugin", &format!("{given}{}'", status(r#"{"token":"from-plugin"}"#)));
    assert_eq!(shown(&bench.access(user).unwrap()).1, "from-plugin");
    let info: Value = serde_json::from_str(&fs::read_to_string(bench.0.path().join("info")).unwrap()).unwrap();
    assert_eq!(info["kind"], "ExecCredential");
    let want = serde_json::json!({"interactive": false,
        "cluster": {"server": "https://192.0.2.1:6443", "certificate-authority-data": "Y2E="}});
    assert_eq!(info["spec"], want);
    bench.program("plugin", &format!("echo '{}'", status(r#"{"clientCertificateData":"c","clientKeyData":"k"}"#)));
    assert_eq!(shown(&bench.access(user).unwrap()), ("c".to_owned(), "k".to_owned()));

    for (text, want) in [
        ("echo secret", "read what ./plugin gives for user \"u\" in DIR/config: it is no JSON"),
        ("exit 3", "run ./plugin for user \"u\" in DIR/config: it failed; what it printed says why"),
        ("echo '{\"kind\":\"Pod\"}'", "read what ./plugin gives for user \"u\" in DIR/config: it is no ExecCredential"),
    ] {
        bench.program("plugin", text);
        assert_eq!(bench.error(user), want);
    }
    bench.program("plugin", &format!("echo '{}'", status("{}")));
    assert!(bench.error(user).ends_with(": its status has no token, and no certificate with a key"));
    let missing = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin, installHint: \"get it\\n  \
                   from x\"}}";
    let want = "run no-such-plugin for user \"u\" in DIR/config: it is not installed: get it from x";
    assert_eq!(bench.error(missing), want);
    let old = "{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}";
    let want = "use exec of user \"u\" in DIR/config: apiVersion is not client.authentication.k8s.io/v1";
    assert_eq!(bench.error(old), want);
}

#[test]
fn what_is_missing_or_not_supported_is_named() {
    let bench = Bench::new();
    let user = "user \"u\" in DIR/config";
    assert_eq!(bench.error("{}"), format!("read {user}: it has no token, client certificate or exec"));
    assert_eq!(
        bench.error("{auth-provider: {name: gcp}}"),
        format!("use {user}: auth-provider is not supported; token, client certificate and exec are")
    );
    assert_eq!(
        bench.error("{client-key-data: a2V5}"),
        format!("read {user}: client-certificate and client-key go together")
    );
    assert_eq!(bench.error("{client-key-data: '!'}"), format!("read client-key-data of {user}: it is not base64"));
    let error = |text: &str, context: Option<&str>| {
        let path = bench.write("config", text);
        let Err(error) = access(Some(&path), context) else { panic!("{text} is accepted") };
        format!("{error:#}").replace(&bench.0.path().display().to_string(), "DIR")
    };
    assert_eq!(error("[]", None), "read kubeconfig DIR/config: it is no kubeconfig");
    assert_eq!(error("a: [", None), "read kubeconfig DIR/config: line 2: it is no YAML");
    assert_eq!(
        error("clusters: []\n", None),
        "read DIR/config: it has no current-context; give --context, or: kubectl config use-context NAME"
    );
    assert_eq!(
        error(CLUSTER, Some("other")),
        "find context \"other\" in DIR/config: it is not there; kubectl config get-contexts lists the contexts"
    );
    let insecure = CLUSTER.replace("server:", "insecure-skip-tls-verify: true, server:");
    let insecure = format!("{insecure}users:\n- {{name: u, user: {{token: abc}}}}\n");
    assert_eq!(
        error(&insecure, None),
        "use cluster \"c\" in DIR/config: insecure-skip-tls-verify is not supported: the server would not be verified; give \
         its certificate-authority instead"
    );
    let open = CLUSTER.replace(", certificate-authority-data: Y2E=", "");
    assert!(error(&format!("{open}users:\n- {{name: u, user: {{token: abc}}}}\n"), None).starts_with(
        "read cluster \"c\" in DIR/config: it names no certificate-authority, by which the API server has to prove itself"
    ));
}

#[test]
fn of_several_files_the_first_that_has_a_name_counts() {
    let bench = Bench::new();
    let first = bench.write("first", "users:\n- {name: u, user: {token: one}}\ncurrent-context: \"\"\n");
    let second = bench.write("second", &format!("{CLUSTER}users:\n- {{name: u, user: {{token: two}}}}\n"));
    let read = |path: &Path| File {
        path: path.to_owned(),
        value: go_yaml::read(&fs::read_to_string(path).unwrap(), 1).unwrap().value,
    };
    let files = [read(&first), read(&second)];
    assert_eq!(entry(&files, "user", "u").unwrap().value["token"], "one");
    assert_eq!(entry(&files, "cluster", "c").unwrap().file.path, second);
}
