// SPDX-License-Identifier: Apache-2.0
//! The YAML of `imagebuild approver manifests`.

use anyhow::{Result, ensure};

const RULES: &str = include_str!("manifests.yaml");
const DEPLOYMENT: &str = include_str!("deployment.yaml");

/// What a cluster needs for tokens of one node; with the Deployment of the approver where its image has a name.
///
/// # Errors
/// An image name that is none.
pub fn manifests(image: Option<&str>) -> Result<String> {
    let Some(image) = image else { return Ok(RULES.to_owned()) };
    // distribution/reference: what else a name may not have, the API server says.
    let plain = image.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/:@[]".contains(&b));
    ensure!(
        plain && !image.is_empty(),
        "use --image: it is no image name, as in registry.example.com/firstboot-approver:1"
    );
    Ok(format!("{RULES}{}", DEPLOYMENT.replace("image: IMAGE", &format!("image: \"{image}\""))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cluster::bootstrap_token::group;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use firstboot::kube::go_yaml;
    use serde_json::Value;

    fn objects(image: Option<&str>) -> Vec<Value> {
        let text = manifests(image).unwrap();
        go_yaml::documents(&text)
            .unwrap()
            .iter()
            .map(|(line, text)| go_yaml::read(text, *line).unwrap().value)
            .collect()
    }

    #[test]
    fn the_policy_knows_tokens_of_one_node_by_their_group() {
        let encoded = STANDARD.encode(group("edge-1"));
        assert!(encoded.starts_with("c3lzdGVtOmJvb3RzdHJhcHBlcnM6Zmlyc3Rib290"), "{encoded}");
        assert!(RULES.contains("startsWith('c3lzdGVtOmJvb3RzdHJhcHBlcnM6Zmlyc3Rib290')"));
    }

    #[test]
    fn the_approver_may_read_no_secret_and_approve_for_one_signer() {
        for object in objects(None) {
            for rule in object["rules"].as_array().map(Vec::as_slice).unwrap_or_default() {
                let has = |key: &str, word: &str| rule[key].as_array().unwrap().iter().any(|w| w == word || w == "*");
                assert!(!has("resources", "secrets") || !has("verbs", "get") && !has("verbs", "list"), "{rule}");
                let signer = serde_json::json!(["kubernetes.io/kube-apiserver-client-kubelet"]);
                assert!(!has("verbs", "approve") || rule["resourceNames"] == signer, "{rule}");
            }
        }
    }

    #[test]
    fn with_an_image_there_is_a_deployment() {
        assert!(objects(None).iter().all(|object| object["kind"] != "Deployment"));
        let name = "registry.example.com:5000/a/b@sha256:00";
        let all = objects(Some(name));
        let last = all.last().unwrap();
        let pod = &last["spec"]["template"]["spec"];
        assert_eq!((last["kind"].as_str(), &pod["containers"][0]["image"]), (Some("Deployment"), &Value::from(name)));
        assert_eq!(pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
        for bad in ["", "a b", "a\"b", "a\nkind: Secret"] {
            let error = manifests(Some(bad)).unwrap_err().to_string();
            assert!(error.starts_with("use --image: it is no image name"), "{error}");
        }
    }
}
