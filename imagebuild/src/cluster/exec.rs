// SPDX-License-Identifier: Apache-2.0
//! Credential plugins of kubeconfigs: a program prints an ExecCredential (client.authentication.k8s.io/v1;
//! Kubernetes, "Authenticating", client-go credential plugins).

use super::{Credential, word};
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::secret::Secret;
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Versions of the protocol; both have the same fields.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
/// Name of the extension that goes to the plugin.
const EXTENSION: &str = "client.authentication.k8s.io/exec";

/// The cluster that a plugin is asked for.
pub struct Target<'a> {
    /// Its API server.
    pub server: &'a str,
    /// Its CA, PEM.
    pub ca_pem: &'a str,
    /// Extensions of the cluster in the kubeconfig.
    pub extensions: &'a Value,
}

/// Runs the plugin `exec` of `user` and reads what it prints. A relative command counts from `directory`.
///
/// # Errors
/// The plugin is not installed, fails, or prints no credential. Its output is never repeated.
pub fn credential(exec: &Value, user: &str, directory: &Path, target: &Target<'_>) -> Result<Credential> {
    let version = word(&exec["apiVersion"]);
    ensure!(VERSIONS.contains(&version), "use exec of {user}: apiVersion is not {}", VERSIONS[0]);
    let name = word(&exec["command"]);
    ensure!(!name.is_empty(), "use exec of {user}: it has no command");
    let interactive = word(&exec["interactiveMode"]) != "Never" && std::io::stdin().is_terminal();
    ensure!(
        interactive || word(&exec["interactiveMode"]) != "Always",
        "run {name} for {user}: it asks questions, and standard input is no terminal"
    );
    let mut spec = json!({ "interactive": interactive });
    if exec["provideClusterInfo"] == true {
        spec["cluster"] = json!({
            "server": target.server, "certificate-authority-data": STANDARD.encode(target.ca_pem),
        });
        let all = target.extensions.as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(extension) = all.iter().find(|extension| extension["name"] == EXTENSION) {
            spec["cluster"]["config"] = extension["extension"].clone();
        }
    }
    let info = json!({ "apiVersion": version, "kind": "ExecCredential", "spec": spec }).to_string();
    // Without a slash it is looked for in PATH, as client-go does.
    let program = if name.contains('/') { directory.join(name) } else { name.into() };
    let mut command = Command::new(program);
    let list = |key: &str| exec[key].as_array().cloned().unwrap_or_default();
    command.args(list("args").iter().map(word)).env("KUBERNETES_EXEC_INFO", info);
    command.envs(list("env").iter().map(|pair| (word(&pair["name"]).to_owned(), word(&pair["value"]).to_owned())));
    command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() }).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| match (error.kind(), word(&exec["installHint"])) {
        (ErrorKind::NotFound, "") => anyhow!("run {name} for {user}: it is not installed"),
        (ErrorKind::NotFound, hint) => anyhow!("run {name} for {user}: it is not installed: {}", one_line(hint)),
        _ => anyhow!("run {name} for {user}: {error}"),
    })?;
    let printed = Zeroizing::new(output.stdout);
    ensure!(output.status.success(), "run {name} for {user}: it failed; what it printed says why");
    read(&printed, version).with_context(|| format!("read what {name} gives for {user}"))
}

/// The credential in an ExecCredential.
fn read(printed: &[u8], version: &str) -> Result<Credential> {
    let object: Value = serde_json::from_slice(printed).map_err(|_| anyhow!("it is no JSON"))?;
    ensure!(object["kind"] == "ExecCredential", "it is no ExecCredential");
    ensure!(object["apiVersion"] == version, "its apiVersion differs from the kubeconfig's");
    let status = &object["status"];
    let (chain, key) = (word(&status["clientCertificateData"]), word(&status["clientKeyData"]));
    match word(&status["token"]) {
        _ if !chain.is_empty() && !key.is_empty() => {
            Ok(Credential::Certificate(chain.to_owned(), Secret::new(key.to_owned())))
        }
        "" => bail!("its status has no token, and no certificate with a key"),
        token => Ok(Credential::Token(Secret::new(token.to_owned()))),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
