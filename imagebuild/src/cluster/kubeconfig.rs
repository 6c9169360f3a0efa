// SPDX-License-Identifier: Apache-2.0
//! Kubeconfigs, as kubectl finds and merges them (client-go, tools/clientcmd): of several files the first that has a
//! name counts.

use super::{Access, Credential, exec, word};
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::kube::{go_yaml, kubeconfig::is_server};
use firstboot::proxy::{Direct, Proxy, Via};
use firstboot::secret::Secret;
use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// One kubeconfig file.
struct File {
    path: PathBuf,
    value: Value,
}

/// A cluster, user or context, and the file that has it.
struct Entry<'f> {
    file: &'f File,
    /// `cluster "x" in FILE`, for messages.
    what: String,
    value: &'f Value,
}

/// The access that a kubeconfig gives. Without `file`: those of KUBECONFIG, or else `~/.kube/config`. Without `context`:
/// the current one. Starts the credential plugin, if the user has one.
///
/// # Errors
/// What is missing or not supported, with the file.
pub fn access(file: Option<&Path>, context: Option<&str>) -> Result<Access> {
    let files = files(file)?;
    let contexts: Vec<&str> = files.iter().map(|f| word(&f.value["current-context"])).collect();
    let current = contexts.iter().find(|name| !name.is_empty());
    let shown = files.iter().map(|f| f.path.display().to_string()).collect::<Vec<_>>().join(", ");
    let name = context.or(current.copied()).with_context(|| {
        format!("read {shown}: it has no current-context; give --context, or: kubectl config use-context NAME")
    })?;
    let context = entry(&files, "context", name)?;
    let cluster = entry(&files, "cluster", word(&context.value["cluster"]))?;
    let user = entry(&files, "user", word(&context.value["user"]))?;
    let server = server(&cluster)?;
    let ca = match data(&cluster, "certificate-authority")? {
        Some(ca) => String::from_utf8(ca).map_err(|_| anyhow!("read {}: its CA is no PEM text", cluster.what))?,
        None => bail!(
            "read {}: it names no certificate-authority, by which the API server has to prove itself: kubectl config \
             set-cluster NAME --certificate-authority=FILE --embed-certs",
            cluster.what
        ),
    };
    let via = via(&cluster)?;
    let credential = credential(&user, &cluster, &server, &ca)?;
    Ok(Access { server, ca_pem: ca, via, credential })
}

/// The files, those that do not exist left out where none was asked for by name.
fn files(file: Option<&Path>) -> Result<Vec<File>> {
    let read = |path: &Path| -> Result<File> {
        let text = fs::read_to_string(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
        let document = go_yaml::read(&text, 1).map_err(|why| anyhow!("read kubeconfig {}: {why}", path.display()))?;
        ensure!(document.value.is_object(), "read kubeconfig {}: it is no kubeconfig", path.display());
        Ok(File { path: path.to_owned(), value: document.value })
    };
    if let Some(file) = file {
        return Ok(vec![read(file)?]);
    }
    let paths: Vec<PathBuf> = match env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        Some(list) => env::split_paths(&list).filter(|path| path.exists()).collect(),
        None => {
            let home = env::var_os("HOME").context("find ~/.kube/config: HOME is not set; give --kubeconfig FILE")?;
            vec![PathBuf::from(home).join(".kube/config")]
        }
    };
    ensure!(!paths.is_empty(), "find a kubeconfig: no file of KUBECONFIG exists; give --kubeconfig FILE");
    paths.iter().map(|path| read(path)).collect()
}

fn entry<'f>(files: &'f [File], kind: &str, name: &str) -> Result<Entry<'f>> {
    for file in files {
        let list = file.value[format!("{kind}s")].as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(found) = list.iter().find(|item| word(&item["name"]) == name && !name.is_empty()) {
            let what = format!("{kind} \"{name}\" in {}", file.path.display());
            return Ok(Entry { file, what, value: &found[kind] });
        }
    }
    let shown = files.iter().map(|f| f.path.display().to_string()).collect::<Vec<_>>().join(", ");
    bail!("find {kind} \"{name}\" in {shown}: it is not there; kubectl config get-contexts lists the contexts")
}

/// The bytes of `KEY-data`, or of the file that `KEY` names.
fn data(entry: &Entry<'_>, key: &str) -> Result<Option<Vec<u8>>> {
    let inline = word(&entry.value[format!("{key}-data")]).replace(['\n', '\r'], "");
    if !inline.is_empty() {
        let bytes = STANDARD.decode(inline);
        return bytes.map(Some).map_err(|_| anyhow!("read {key}-data of {}: it is not base64", entry.what));
    }
    match word(&entry.value[key]) {
        "" => Ok(None),
        path => read(entry, path).map(Some),
    }
}

/// A file that a kubeconfig names; a relative path counts from the kubeconfig's directory.
fn read(entry: &Entry<'_>, path: &str) -> Result<Vec<u8>> {
    let path = entry.file.path.parent().unwrap_or(Path::new(".")).join(path);
    fs::read(&path).with_context(|| format!("read {}, named by {}", path.display(), entry.what))
}

fn server(cluster: &Entry<'_>) -> Result<String> {
    for (key, why) in [
        ("insecure-skip-tls-verify", "the server would not be verified; give its certificate-authority instead"),
        ("tls-server-name", "the server is verified by the name in its address only"),
    ] {
        let set = !matches!(&cluster.value[key], Value::Null | Value::Bool(false)) && cluster.value[key] != "";
        ensure!(!set, "use {}: {key} is not supported: {why}", cluster.what);
    }
    let server = word(&cluster.value["server"]).trim_end_matches('/');
    ensure!(is_server(server), "read server of {}: it is no https:// address", cluster.what);
    Ok(server.to_owned())
}

/// `proxy-url`, or else what the environment says, as for kubectl (golang.org/x/net/http/httpproxy).
fn via(cluster: &Entry<'_>) -> Result<Via> {
    let parse = |text: &str, what: &str| Proxy::parse(text).map(Some).map_err(|why| anyhow!("read {what}: {why}"));
    let url = word(&cluster.value["proxy-url"]);
    if !url.is_empty() {
        let proxy = parse(url, &format!("proxy-url of {}", cluster.what))?;
        return Ok(Via { proxy, direct: Vec::new() });
    }
    let variable = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, env::var(name).ok().filter(|value| !value.is_empty())?)))
    };
    let proxy = match variable(["HTTPS_PROXY", "https_proxy"]) {
        Some((name, value)) => parse(&if value.contains("://") { value } else { format!("http://{value}") }, name)?,
        None => None,
    };
    let list = variable(["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default();
    let mut direct: Vec<Direct> = list.split(',').filter_map(|entry| Direct::parse(entry.trim()).ok()).collect();
    // Go never uses a proxy for the machine itself.
    direct.extend(["localhost", "127.0.0.0/8", "::1"].iter().filter_map(|entry| Direct::parse(entry).ok()));
    Ok(Via { proxy, direct })
}

/// A certificate counts before a token, and both before a plugin, as for client-go.
fn credential(user: &Entry<'_>, cluster: &Entry<'_>, server: &str, ca_pem: &str) -> Result<Credential> {
    for key in ["username", "password", "auth-provider", "as"] {
        let given = !user.value[key].is_null() && user.value[key] != "";
        ensure!(!given, "use {}: {key} is not supported; token, client certificate and exec are", user.what);
    }
    let text = |bytes: Vec<u8>, what: &str| {
        String::from_utf8(bytes).map_err(|_| anyhow!("read {what} of {}: it is no text", user.what))
    };
    match (data(user, "client-certificate")?, data(user, "client-key")?) {
        (Some(chain), Some(key)) => {
            let key = Secret::new(text(key, "client-key")?);
            return Ok(Credential::Certificate(text(chain, "client-certificate")?, key));
        }
        (None, None) => {}
        _ => bail!("read {}: client-certificate and client-key go together", user.what),
    }
    // The file counts before the value: it is renewed.
    let token = match word(&user.value["tokenFile"]) {
        "" => word(&user.value["token"]).to_owned(),
        path => text(read(user, path)?, "tokenFile")?.trim().to_owned(),
    };
    if !token.is_empty() {
        return Ok(Credential::Token(Secret::new(token)));
    }
    ensure!(!user.value["exec"].is_null(), "read {}: it has no token, client certificate or exec", user.what);
    let directory = user.file.path.parent().unwrap_or(Path::new("."));
    let config = &cluster.value["extensions"];
    exec::credential(&user.value["exec"], &user.what, directory, &exec::Target { server, ca_pem, extensions: config })
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
