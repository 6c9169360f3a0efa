// SPDX-License-Identifier: Apache-2.0
//! kubelet's drop-ins, which it lays over what the cluster says (`--config-dir`): the hardened fields, then the seed's
//! `[kubelet.config]`. The latter is there as a patch, too, for whoever runs `kubeadm upgrade node --patches /etc/firstboot/patches`, so that
//! kubeadm's own copy of the configuration says the same. Both lie outside /etc/kubernetes, which is kubeadm's.

use crate::harden::kubelet::{self as hardened, FOLDER};
use crate::host::Host;
use crate::seed::Kubelet;
use anyhow::{Context, Result};
use serde_json::json;

/// What kubelet is told by is root's alone to read (CIS 4.1.9).
const MODE: u32 = 0o600;
/// The name says which component is patched, and how (kubeadm, `--patches`).
const PATCH: &str = "/etc/firstboot/patches/kubeletconfiguration+strategic.json";
/// Where kubeadm's unit looks for `KUBELET_EXTRA_ARGS`.
const ARGS_FILE: &str = "/etc/default/kubelet";

fn drop_in() -> String {
    format!("{FOLDER}/50-seed.conf")
}

fn flag() -> String {
    format!("--config-dir={FOLDER}")
}

/// Whether kubelet finds the hardened fields and what the seed says, and nothing of another seed.
pub(super) fn holds(host: &Host, kubelet: &Kubelet) -> Result<bool> {
    let seed = text(kubelet)?;
    for (path, wanted) in [(hardened::FILE, Some(hardened::text()?)), (&*drop_in(), seed.clone()), (PATCH, seed)] {
        if host.read(path)? != wanted.map(String::into_bytes) {
            return Ok(false);
        }
    }
    let args = args(host)?;
    Ok(with_flag(&args) == args)
}

/// Writes them; whether that changed anything.
pub(super) fn put(host: &Host, kubelet: &Kubelet) -> Result<bool> {
    if holds(host, kubelet)? {
        return Ok(false);
    }
    host.write(hardened::FILE, hardened::text()?.as_bytes(), MODE)?;
    let wanted = text(kubelet)?;
    for path in [&drop_in(), PATCH] {
        match &wanted {
            Some(text) => host.write(path, text.as_bytes(), MODE)?,
            None => host.remove(path)?,
        }
    }
    // The flag comes after the folder that it names: kubelet ends without the folder.
    let args = args(host)?;
    let new = with_flag(&args);
    if new != args {
        host.write(ARGS_FILE, new.as_bytes(), 0o644)?;
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
    Ok(String::from_utf8_lossy(&host.read(ARGS_FILE)?.unwrap_or_default()).into_owned())
}

/// The same environment file with our flag among `KUBELET_EXTRA_ARGS`; everything else in it is the administrator's.
fn with_flag(file: &str) -> String {
    const NAME: &str = "KUBELET_EXTRA_ARGS=";
    // Of several lines the last counts (systemd.exec(5), EnvironmentFile=).
    let last = file.lines().rev().find_map(|l| l.strip_prefix(NAME)).unwrap_or_default();
    let mut flags: Vec<&str> = last.trim_matches('"').split_whitespace().collect();
    let ours = flag();
    if flags.contains(&ours.as_str()) {
        return file.to_owned();
    }
    flags.push(&ours);
    let rest: String = file.lines().filter(|l| !l.starts_with(NAME)).map(|l| format!("{l}\n")).collect();
    format!("{rest}{NAME}\"{}\"\n", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    fn kubelet(json: serde_json::Value) -> Kubelet {
        Kubelet { config: json.as_object().unwrap().clone() }
    }

    #[test]
    fn fields_become_a_drop_in_and_a_patch_and_go_with_the_seed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let none = Kubelet::default();
        assert!(!holds(&host, &none).unwrap());
        assert!(put(&host, &none).unwrap() && holds(&host, &none).unwrap());
        assert_eq!(host.read_text(hardened::FILE).unwrap().unwrap() + "\n", hardened::text().unwrap());
        assert_eq!(host.size_and_mode(hardened::FILE).unwrap().unwrap().1, 0o600);
        let some = kubelet(json!({"maxPods": 60, "evictionHard": {"memory.available": "50Mi"}}));
        assert!(put(&host, &some).unwrap());
        assert!(holds(&host, &some).unwrap() && !put(&host, &some).unwrap());
        let text = host.read_text("/etc/firstboot/kubelet.conf.d/50-seed.conf").unwrap().unwrap();
        assert_eq!(
            text,
            "{\n  \"apiVersion\": \"kubelet.config.k8s.io/v1beta1\",\n  \"evictionHard\": {\n    \
             \"memory.available\": \"50Mi\"\n  },\n  \"kind\": \"KubeletConfiguration\",\n  \"maxPods\": 60\n}"
        );
        assert_eq!(host.read_text(PATCH).unwrap().unwrap(), text);
        let args = host.read_text(ARGS_FILE).unwrap().unwrap();
        assert_eq!(args, "KUBELET_EXTRA_ARGS=\"--config-dir=/etc/firstboot/kubelet.conf.d\"");
        assert!(!holds(&host, &kubelet(json!({"maxPods": 61}))).unwrap());
        assert!(put(&host, &none).unwrap() && holds(&host, &none).unwrap());
        assert_eq!((host.read(&drop_in()).unwrap(), host.read(PATCH).unwrap()), (None, None));
        assert_eq!(host.read_text(ARGS_FILE).unwrap().unwrap(), args);
    }

    #[test]
    fn flags_of_the_administrator_stay() {
        let ours = flag();
        for (without, with) in [
            ("", format!("KUBELET_EXTRA_ARGS=\"{ours}\"\n")),
            ("# A\nB=1\n", format!("# A\nB=1\nKUBELET_EXTRA_ARGS=\"{ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\"--v=4\"\n", format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n")),
        ] {
            assert_eq!(with_flag(without), with);
            assert_eq!(with_flag(&with), with);
        }
        assert_eq!(with_flag("KUBELET_EXTRA_ARGS=--v=4"), format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n"));
    }
}
