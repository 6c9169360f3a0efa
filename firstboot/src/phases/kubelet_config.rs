// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings beside the cluster's, as drop-ins that kubelet lays over what the cluster says (`--config-dir`):
//! those of the hardened host ([`crate::harden::kubelet`]), then those of the seed's `[kubelet.config]`. The seed's are
//! there a second time, as a patch for `kubeadm upgrade node --patches /etc/firstboot/patches`, so that
//! kubeadm's own copy of the configuration says the same. All lie outside /etc/kubernetes, which is kubeadm's, and are
//! root's alone, as CIS Kubernetes asks of kubelet's configuration.

use crate::harden::kubelet::fields::drop_in;
use crate::host::Host;
use crate::paths::{DROP_IN, KUBELET_ARGS, KUBELET_DROP_INS, KUBELET_PATCH, SEED_DROP_IN};
use crate::seed::Kubelet;
use anyhow::{Context, Result};
use serde_json::json;

/// Of all of them.
const MODE: u32 = 0o600;

fn flag() -> String {
    format!("--config-dir={KUBELET_DROP_INS}")
}

/// What is to be there; none where nothing is.
fn files(kubelet: &Kubelet) -> Result<[(&'static str, Option<String>); 3]> {
    let seed = text(kubelet)?;
    Ok([(DROP_IN, Some(drop_in()?)), (SEED_DROP_IN, seed.clone()), (KUBELET_PATCH, seed)])
}

/// Whether kubelet finds the hardened host's settings and what the seed says, and nothing of another seed.
pub(super) fn holds(host: &Host, kubelet: &Kubelet) -> Result<bool> {
    for (path, wanted) in files(kubelet)? {
        let mode = host.size_and_mode(path)?.map(|(_, mode)| mode);
        if host.read(path)? != wanted.map(String::into_bytes) || mode.is_some_and(|mode| mode != MODE) {
            return Ok(false);
        }
    }
    let args = args(host)?;
    Ok(with_flag(&args) == args)
}

/// Writes it; whether that changed anything.
pub(super) fn put(host: &Host, kubelet: &Kubelet) -> Result<bool> {
    if holds(host, kubelet)? {
        return Ok(false);
    }
    for (path, wanted) in files(kubelet)? {
        match &wanted {
            Some(text) => host.write(path, text.as_bytes(), MODE)?,
            None => host.remove(path)?,
        }
    }
    // The flag comes after the directory that it names: kubelet ends without the directory.
    let args = args(host)?;
    let new = with_flag(&args);
    if new != args {
        host.write(KUBELET_ARGS, new.as_bytes(), MODE)?;
    }
    Ok(true)
}

/// The fields as a document of KubeletConfiguration; none when the seed sets none.
fn text(kubelet: &Kubelet) -> Result<Option<String>> {
    if kubelet.config.is_empty() {
        return Ok(None);
    }
    let mut document = kubelet.config.clone();
    document.insert("apiVersion".into(), json!("kubelet.config.k8s.io/v1beta1"));
    document.insert("kind".into(), json!("KubeletConfiguration"));
    let text = serde_json::to_string_pretty(&document).context("encode [kubelet.config]")?;
    Ok(Some(text + "\n"))
}

fn args(host: &Host) -> Result<String> {
    Ok(String::from_utf8_lossy(&host.read(KUBELET_ARGS)?.unwrap_or_default()).into_owned())
}

/// The same environment file with our flag among `KUBELET_EXTRA_ARGS`; everything else in it is the administrator's.
fn with_flag(file: &str) -> String {
    const NAME: &str = "KUBELET_EXTRA_ARGS=";
    // Of several lines the last counts (systemd.exec(5), EnvironmentFile=).
    let last = file.lines().rev().find_map(|l| l.strip_prefix(NAME)).unwrap_or_default();
    let ours = flag();
    let mut flags: Vec<&str> = last.trim_matches('"').split_whitespace().collect();
    if flags.contains(&ours.as_str()) {
        return file.to_owned();
    }
    flags.push(&ours);
    let others: String = file.lines().filter(|l| !l.starts_with(NAME)).map(|l| format!("{l}\n")).collect();
    format!("{others}{NAME}\"{}\"\n", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn kubelet(json: serde_json::Value) -> Kubelet {
        Kubelet { config: json.as_object().unwrap().clone() }
    }

    #[test]
    fn the_hardened_settings_are_always_there_and_the_seeds_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let none = Kubelet::default();
        assert!(!holds(&host, &none).unwrap() && put(&host, &none).unwrap());
        assert!(holds(&host, &none).unwrap() && !put(&host, &none).unwrap());
        assert_eq!(host.list(KUBELET_DROP_INS).unwrap(), ["10-harden.conf"]);
        let args = host.read_text(KUBELET_ARGS).unwrap().unwrap();
        assert_eq!(args, "KUBELET_EXTRA_ARGS=\"--config-dir=/etc/firstboot/kubelet.conf.d\"");
        let some = kubelet(json!({"maxPods": 60, "evictionHard": {"memory.available": "50Mi"}}));
        assert!(!holds(&host, &some).unwrap() && put(&host, &some).unwrap());
        assert!(holds(&host, &some).unwrap() && !put(&host, &some).unwrap());
        let text = host.read_text(SEED_DROP_IN).unwrap().unwrap();
        assert_eq!(
            text,
            "{\n  \"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n  \"evictionHard\": {\n    \
             \"memory.available\": \"50Mi\"\n  },\n  \"kind\": \"KubeletConfiguration\",\n  \"maxPods\": 60\n}"
        );
        assert_eq!(host.read_text(KUBELET_PATCH).unwrap().unwrap(), text);
        for path in [DROP_IN, SEED_DROP_IN, KUBELET_PATCH, KUBELET_ARGS] {
            assert_eq!(host.size_and_mode(path).unwrap().unwrap().1, 0o600, "{path}");
        }
        assert!(!holds(&host, &kubelet(json!({"maxPods": 61}))).unwrap());
        host.write(SEED_DROP_IN, &host.read(SEED_DROP_IN).unwrap().unwrap(), 0o644).unwrap();
        assert!(!holds(&host, &some).unwrap(), "a mode that is too wide");
        assert!(put(&host, &none).unwrap() && holds(&host, &none).unwrap());
        assert_eq!(
            (host.list(KUBELET_DROP_INS).unwrap(), host.read(KUBELET_PATCH).unwrap()),
            (vec!["10-harden.conf".to_owned()], None)
        );
    }

    #[test]
    fn flags_of_the_administrator_stay() {
        let ours = flag();
        for (without, with) in [
            ("", format!("KUBELET_EXTRA_ARGS=\"{ours}\"\n")),
            ("# A\nB=1\n", format!("# A\nB=1\nKUBELET_EXTRA_ARGS=\"{ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=--v=4", format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\"--v=4\"\n", format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n")),
        ] {
            assert_eq!(with_flag(without), with);
            assert_eq!(with_flag(&with), with);
        }
    }
}
