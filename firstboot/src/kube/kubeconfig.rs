// SPDX-License-Identifier: Apache-2.0
//! The two kubeconfigs of a join: the one inside cluster-info, read; and kubelet.conf, written as kubelet itself
//! writes it (`pkg/kubelet/certificate/bootstrap`, names and all).

use crate::paths::CURRENT_PEM;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{go_yaml, pin};

/// What cluster-info says of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// CA bundle, PEM.
    pub ca_pem: String,
    /// `https://host:port[/path]`.
    pub server: String,
}

/// Reads the kubeconfig of cluster-info as Go's clientcmd does: the cluster without a name, else that of the current
/// context.
///
/// # Errors
/// What is missing or wrong and its line, without any of the text.
pub fn read(text: &str) -> Result<ClusterInfo, String> {
    let document = go_yaml::read(text, 1)?;
    let config = &document.value;
    if !config.is_object() {
        return Err("it is no kubeconfig".to_owned());
    }
    let list = |key: &str| -> Result<&[Value], String> {
        match &config[key] {
            Value::Null => Ok(&[]),
            Value::Array(list) => Ok(list),
            _ => Err(format!("{}{key} must be a list", document.at(key))),
        }
    };
    let (clusters, contexts) = (list("clusters")?, list("contexts")?);
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let current = word(&config["current-context"]);
    let context = contexts.iter().find(|c| word(&c["name"]) == current);
    let named = |name: &str| clusters.iter().position(|c| word(&c["name"]) == name);
    let by_context = || named(&word(&context?["context"]["cluster"]));
    let index = named("").or_else(by_context).ok_or("it names no cluster")?;
    let at = |key: &str| document.at(&format!("clusters[{index}].cluster.{key}"));
    let cluster = &clusters[index]["cluster"];
    // Line ends are no part of base64 for Go; blanks are.
    let data = word(&cluster["certificate-authority-data"]).replace(['\n', '\r'], "");
    let ca = STANDARD.decode(&data).ok().filter(|pem| !pem.is_empty());
    let ca = ca.ok_or_else(|| format!("{}it holds no CA certificate", at("certificate-authority-data")))?;
    let server = server(&word(&cluster["server"]));
    let server = server.ok_or_else(|| format!("{}its server is no https:// address", at("server")))?;
    Ok(ClusterInfo { ca_pem: String::from_utf8_lossy(&ca).into_owned(), server })
}

/// Certificate and key of the first user of a kubeconfig that kubeadm wrote, PEM.
///
/// # Errors
/// What is missing, without any of the text.
pub fn user_pem(text: &str) -> Result<Zeroizing<String>, String> {
    let (certificate, key) = (user_data(text, "client-certificate-data")?, user_data(text, "client-key-data")?);
    Ok(Zeroizing::new([certificate.as_str(), "\n", &key, "\n"].concat()))
}

/// A value in base64 of the first user of a kubeconfig, decoded.
///
/// # Errors
/// It is missing, empty or no text; without any of it.
pub fn user_data(text: &str, key: &str) -> Result<Zeroizing<String>, String> {
    let document = go_yaml::read(text, 1)?;
    // Line ends are no part of base64 for Go.
    let data = document.value["users"][0]["user"][key].as_str().unwrap_or_default().replace(['\n', '\r'], "");
    let bytes = STANDARD.decode(data).ok().map(Zeroizing::new).filter(|bytes| !bytes.is_empty());
    let data = bytes.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    data.map(|data| Zeroizing::new(data.to_owned())).ok_or_else(|| format!("its user has no {key} that can be read"))
}

/// The CA bundle in a kubeconfig of which nothing is proven, found without parsing YAML: the first value after its key.
/// None where there is none. What comes of it has to prove itself.
pub(super) fn ca_data(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("certificate-authority-data")?;
    let data = rest.trim_start_matches(['"', ':', ' ']);
    let end = data.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c))).unwrap_or(data.len());
    String::from_utf8(STANDARD.decode(&data[..end]).ok()?).ok()
}

/// The address of an API server in one form; none where TLS is not spoken. Without a scheme Go takes https, since there
/// is a CA (`DefaultServerURL` of client-go).
fn server(text: &str) -> Option<String> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => rest,
        Some(_) => return None,
        None => text,
    };
    let server = format!("https://{}", rest.trim_end_matches('/'));
    is_server(&server).then_some(server)
}

/// The certificates among the PEM blocks of a text, as Go's `ParseCertsPEM` (client-go's util/cert) finds them: text
/// around them, other blocks and blocks with headers do not count. They come back in one form.
///
/// None where there is none, or one that cannot be read.
pub fn ca_certificates(text: &str) -> Option<String> {
    let mut all = String::new();
    let mut open: Option<(&str, String, bool)> = None;
    for line in text.split('\n').map(str::trim_end) {
        let mark = |word: &str| line.strip_prefix(word)?.strip_suffix("-----");
        if let Some(label) = mark("-----BEGIN ") {
            open = Some((label, String::new(), false));
        } else if let Some(end) = mark("-----END ") {
            let Some((_, data, false)) = open.take().filter(|(label, ..)| *label == end && end == "CERTIFICATE") else {
                continue;
            };
            let Ok(der) = STANDARD.decode(&data) else { continue };
            pin::pin_of(&der)?;
            let lines = STANDARD.encode(&der).into_bytes();
            all.push_str("-----BEGIN CERTIFICATE-----\n");
            lines.chunks(64).for_each(|line| all.push_str(&format!("{}\n", String::from_utf8_lossy(line))));
            all.push_str("-----END CERTIFICATE-----\n");
        } else if let Some((_, data, headers)) = &mut open {
            *headers |= line.contains(':');
            data.extend(line.chars().filter(|c| !matches!(c, ' ' | '\t')));
        }
    }
    (!all.is_empty()).then_some(all)
}

/// Whether this is the URL of an API server, and the same one to Go as it is here.
pub fn is_server(server: &str) -> bool {
    // Browsers' rules (Url) let more pass than Go's, and what has a blank in it or ends in a colon is something else in
    // kubelet.conf than what was read here.
    let plain =
        server.bytes().all(|b| b.is_ascii_graphic()) && !server.ends_with(':') && server.starts_with("https://");
    plain && Url::parse(server).is_ok_and(|url| url.has_host())
}

/// `/etc/kubernetes/kubelet.conf`, byte for byte as client-go writes it; certificate and key by path, because kubelet's
/// rotation replaces them.
pub fn kubelet_conf(server: &str, ca_pem: &str) -> String {
    format!(
        "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: {server}
  name: default-cluster
contexts:
- context:
    cluster: default-cluster
    namespace: default
    user: default-auth
  name: default-context
current-context: default-context
kind: Config
users:
- name: default-auth
  user:
    client-certificate: {CURRENT_PEM}
    client-key: {CURRENT_PEM}
",
        ca = STANDARD.encode(ca_pem)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: Q0E=
    server: https://10.0.2.2:6443
  name: \"\"
contexts: null
current-context: \"\"
kind: Config
users: null
";

    #[test]
    fn reads_what_kubeadm_publishes() {
        let want = ClusterInfo { ca_pem: "CA".into(), server: "https://10.0.2.2:6443".into() };
        assert_eq!(read(INFO).unwrap(), want);
        let by_context = INFO
            .replace("name: \"\"", "name: c")
            .replace("contexts: null", "contexts:\n- name: x\n  context: {cluster: c, user: u}")
            .replace("current-context: \"\"", "current-context: x");
        assert_eq!(read(&by_context).unwrap(), want);
    }

    #[test]
    fn a_bundle_is_found_in_what_is_not_parsed() {
        let json = r#"{"clusters":[{"cluster":{"certificate-authority-data":"Q0E=","server":"x"}}]}"#;
        for text in [INFO, json, "certificate-authority-data: Q0E=", "\t: [certificate-authority-data: \"Q0E=\""] {
            assert_eq!(ca_data(text).as_deref(), Some("CA"), "{text}");
        }
        for text in ["", "certificate-authority-data: |\n  Q0E=", "certificate-authority-data: !", "Q0E="] {
            assert!(ca_data(text).unwrap_or_default().is_empty(), "{text}");
        }
    }

    #[test]
    fn forms_that_go_reads() {
        let of = |text: String| read(&text).map(|info| (info.ca_pem, info.server));
        let want = Ok(("CA".to_owned(), "https://10.0.2.2:6443".to_owned()));
        let json = serde_json::json!({"clusters": [{"name": "", "cluster": {
            "server": "https://10.0.2.2:6443", "certificate-authority-data": "Q0E="}}]});
        assert_eq!(of(json.to_string()), want);
        for (from, to) in [
            ("kind: Config", "kind: Config\nkind: Config\nmore: {a: b}"),
            ("users: null\n", ""),
            ("contexts: null\n", ""),
            ("Q0E=", "|\n      Q0\n      E="),
            ("https://10", "HTTPS://10"),
            ("https://10", "10"),
            (":6443", ":6443/"),
            ("\n", "\r\n"),
        ] {
            assert_eq!(of(INFO.replace(from, to)), want, "{from}");
        }
    }

    #[test]
    fn certificates_among_pem_blocks() {
        let ca = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem().replace("\r\n", "\n");
        let one = Some(ca.clone());
        let other = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        for text in [
            ca.clone(),
            format!("subject: a\n{ca}rest\n"),
            ca.replace('\n', "\r\n"),
            ca.replace('\n', " \t\n"),
            ca.trim_end().to_owned(),
            format!("{other}{ca}"),
            format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n"),
            format!("{ca}{}", ca.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1)),
        ] {
            assert_eq!(ca_certificates(&text), one, "{text}");
        }
        assert_eq!(ca_certificates(&format!("{ca}{ca}")), Some(format!("{ca}{ca}")));
        let broken = format!("{ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        for text in ["", other, &ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE"), &broken] {
            assert_eq!(ca_certificates(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let why = |text: &str| read(text).unwrap_err();
        assert_eq!(why("<html>"), "it is no kubeconfig");
        assert_eq!(why("a:\n\tb: c"), "line 2: a tab indents it, which YAML does not allow");
        assert_eq!(why("clusters: a"), "line 1: clusters must be a list");
        assert_eq!(why(&INFO.replace("name: \"\"", "name: c")), "it names no cluster");
        assert_eq!(why(&INFO.replace("Q0E=", "\"\"")), "line 4: it holds no CA certificate");
        assert_eq!(why(&INFO.replace("Q0E=", "Q0 E=")), "line 4: it holds no CA certificate");
        // The others found by fuzzing: kubelet.conf would say something else than what was read.
        for bad in
            ["http://10.0.2.2", "https://", "\"https://a/b:/\"", "\"https:\"", "\"https://a /b\"", "\"https://a\\n/b\""]
        {
            let info = INFO.replace("https://10.0.2.2:6443", bad);
            assert_eq!(why(&info), "line 5: its server is no https:// address", "{bad}");
        }
    }

    #[test]
    fn kubelet_conf_can_be_read_back() {
        let text = kubelet_conf("https://10.0.2.2:6443", "PEM\n");
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "UEVNCg==");
        assert_eq!(value["users"][0]["user"]["client-key"], CURRENT_PEM);
        assert_eq!(value["contexts"][0]["context"]["namespace"], "default");
        let read_back = read(&text).unwrap();
        assert_eq!((read_back.ca_pem.as_str(), read_back.server.as_str()), ("PEM\n", "https://10.0.2.2:6443"));
    }
}
