// SPDX-License-Identifier: Apache-2.0
//! kubelet's settings beside the cluster's, as drop-ins that kubelet lays over what the cluster says (`--config-dir`):
//! those of the hardened host ([`crate::harden::kubelet`]), then those of the seed's `[kubelet.config]`. The seed's are
//! there a second time, as a patch for `kubeadm upgrade node --patches /etc/firstboot/patches`, so that
//! kubeadm's own copy of the configuration says the same. All lie outside /etc/kubernetes, which is kubeadm's, and are
//! root's alone, as CIS Kubernetes asks of kubelet's configuration.

use super::join::resolv_conf;
use crate::containerd::cri::SOCKET;
use crate::fault::{Fault, OwnedBy, Owner};
use crate::harden::kubelet::fields::drop_in;
use crate::host::Host;
use crate::kube::go_yaml;
use crate::node::client::node_client;
use crate::offline;
use crate::paths::{DROP_IN, KUBELET_ARGS, KUBELET_CONFIG, KUBELET_DROP_INS, KUBELET_PATCH, SEED_DROP_IN};
use crate::seed::Kubelet;
use anyhow::{Context, Result};
use serde_json::json;

/// Of all of them.
const MODE: u32 = 0o600;

fn flag() -> String {
    format!("--config-dir={KUBELET_DROP_INS}")
}

/// What leads kubelet to the cache: of two flags of one name kubelet takes the last, which is this one.
fn offline_flag() -> String {
    format!("--kubeconfig={}", offline::KUBECONFIG)
}

/// The drop-ins that kubelet reads, in its order: path and text.
pub(super) fn drop_ins(kubelet: &Kubelet) -> Result<Vec<(&'static str, String)>> {
    let drop_ins = files(kubelet)?.into_iter().filter(|(path, _)| path.starts_with(KUBELET_DROP_INS));
    Ok(drop_ins.filter_map(|(path, text)| Some((path, text?))).collect())
}

/// What is to be there; none where nothing is.
fn files(kubelet: &Kubelet) -> Result<[(&'static str, Option<String>); 3]> {
    let seed = text(kubelet)?;
    Ok([(DROP_IN, Some(drop_in()?)), (SEED_DROP_IN, seed.clone()), (KUBELET_PATCH, seed)])
}

/// Whether kubelet finds the hardened host's settings and what the seed says, and nothing of another seed.
pub(super) fn holds(host: &Host, kubelet: &Kubelet, offline: bool) -> Result<bool> {
    for (path, wanted) in files(kubelet)? {
        let mode = host.size_and_mode(path)?.map(|(_, mode)| mode);
        if host.read(path)? != wanted.map(String::into_bytes) || mode.is_some_and(|mode| mode != MODE) {
            return Ok(false);
        }
    }
    let args = args(host)?;
    Ok(with_flags(&args, offline) == args)
}

/// Writes it; whether that changed anything.
pub(super) fn put(host: &Host, kubelet: &Kubelet, offline: bool) -> Result<bool> {
    if holds(host, kubelet, offline)? {
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
    let new = with_flags(&args, offline);
    if new != args {
        host.write(KUBELET_ARGS, new.as_bytes(), MODE)?;
    }
    Ok(true)
}

/// Whether kubelet asks the cluster to sign its serving certificate (`serverTLSBootstrap`): the seed has the last word.
pub(super) fn asks_for_serving_certificate(host: &Host, kubelet: &Kubelet) -> Result<bool> {
    const FIELD: &str = "serverTLSBootstrap";
    if let Some(value) = kubelet.config.get(FIELD) {
        return Ok(value == true);
    }
    let cluster = host.read_text(KUBELET_CONFIG)?.and_then(|text| go_yaml::read(&text, 1).ok());
    Ok(cluster.is_some_and(|document| document.value[FIELD] == true))
}

/// Fetches the cluster's part again, by the node's own certificate, and writes it when it has changed; whether it has.
///
/// # Errors
/// No answer, or one that kubeadm would not take either.
pub(super) fn refresh(host: &Host) -> Result<bool, Fault> {
    let resolv_conf = resolv_conf(host).owned_by(Owner::Host)?;
    let published = node_client(host)?.kubelet_config(SOCKET, resolv_conf)?;
    let work = || -> Result<bool> {
        if host.read(KUBELET_CONFIG)?.as_deref() == Some(published.text.as_bytes()) {
            return Ok(false);
        }
        host.write(KUBELET_CONFIG, published.text.as_bytes(), MODE)?;
        let changed =
            "firstboot: ConfigMap kubelet-config has changed: kubelet starts with what it says now".to_owned();
        [changed].into_iter().chain(published.odd.iter().map(|odd| format!("firstboot: {odd}"))).for_each(|line| {
            host.sys().say(&line);
        });
        Ok(true)
    };
    work().owned_by(Owner::Host)
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

/// The same environment file with our flags among `KUBELET_EXTRA_ARGS`; everything else in it is the administrator's.
///
/// The file is read as systemd reads it ([`assignments`]). kubelet's unit splits the value at whitespace.
fn with_flags(file: &str, offline: bool) -> String {
    let all = assignments(file);
    let is_ours = |a: &&Assignment<'_>| a.name == NAME;
    // Of several assignments the last counts (systemd.exec(5), EnvironmentFile=).
    let value = all.iter().rev().find(is_ours).map_or("", |a| a.value.as_str());
    let (flag, offline_flag) = (flag(), offline_flag());
    let has = |flag: &str| value.split_whitespace().any(|word| word == flag);
    if has(&flag) && has(&offline_flag) == offline {
        return file.to_owned();
    }
    let others: Vec<&str> = all.iter().filter(|a| !is_ours(a)).map(|a| a.text).collect();
    let mut new = others.concat();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    let mut value = if offline { value.to_owned() } else { without_word(value, &offline_flag) };
    for ours in [Some(&flag), offline.then_some(&offline_flag)].into_iter().flatten() {
        if !value.split_whitespace().any(|word| word == ours) {
            value = format!("{value} {ours}");
        }
    }
    let mut quoted = String::new();
    for c in value.trim_start().chars() {
        if ESCAPED.contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    format!("{new}{NAME}=\"{quoted}\"\n")
}

/// A value without a word, and without the blank before it; all else stays as it is, other blanks too.
fn without_word(value: &str, word: &str) -> String {
    let mut rest = value.to_owned();
    let edge = |c: Option<char>| c.is_none_or(char::is_whitespace);
    let found = |rest: &str| {
        let mut all = rest.match_indices(word).map(|(at, _)| at);
        all.find(|at| edge(rest[..*at].chars().next_back()) && edge(rest[at + word.len()..].chars().next()))
    };
    while let Some(at) = found(&rest) {
        let start = rest[..at].char_indices().next_back().map_or(0, |(start, _)| start);
        rest.replace_range(start..at + word.len(), "");
    }
    rest
}

const NAME: &str = "KUBELET_EXTRA_ARGS";
/// What a backslash protects within double quotation marks (systemd, src/basic/env-file.c).
const ESCAPED: &str = "\"\\`$";

/// A piece of an environment file: an assignment, or lines that assign nothing, which have an empty name.
struct Assignment<'a> {
    /// The text in the file, with the end of its last line.
    text: &'a str,
    name: &'a str,
    value: String,
}

/// The pieces of an environment file, by the rules of systemd.exec(5), EnvironmentFile=: `#` and `;` begin comments, a
/// backslash at the end of a line continues it, values may stand in single or double quotation marks, also over lines.
fn assignments(file: &str) -> Vec<Assignment<'_>> {
    let mut all = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        let (length, name, value) = assignment(rest);
        let (text, after) = rest.split_at(length);
        all.push(Assignment { text, name, value });
        rest = after;
    }
    all
}

/// The first piece: its length in bytes, and its name and value.
fn assignment(text: &str) -> (usize, &str, String) {
    /// Where in a value a character is.
    enum Place {
        Before,
        Plain,
        Single,
        Double,
    }
    let line = text.find('\n').map_or(text.len(), |end| end + 1);
    let head = &text[..line];
    let name = head.split_once('=').map(|(name, _)| name.trim()).filter(|name| !name.starts_with(['#', ';']));
    let Some(name) = name else {
        // A comment may be continued, too.
        let mut end = line;
        while text[..end].ends_with("\\\n") && end < text.len() {
            end += text[end..].find('\n').map_or(text.len() - end, |at| at + 1);
        }
        return (end, "", String::new());
    };
    let start = head.find('=').map_or(line, |at| at + 1);
    let (mut place, mut value, mut end_of_plain) = (Place::Before, String::new(), 0);
    let mut end = text.len();
    let mut characters = text[start..].char_indices();
    while let Some((at, c)) = characters.next() {
        match (&place, c) {
            (Place::Before | Place::Plain, '\n') => {
                end = start + at + 1;
                break;
            }
            (Place::Before, '\'') => place = Place::Single,
            (Place::Before, '"') => place = Place::Double,
            (Place::Before, c) if c.is_ascii_whitespace() => {}
            (Place::Before | Place::Plain, '\\') => {
                place = Place::Plain;
                // An escaped end of line continues the value; any other character stands for itself.
                if let Some((_, next)) = characters.next().filter(|(_, next)| *next != '\n') {
                    value.push(next);
                    end_of_plain = value.len();
                }
            }
            (Place::Before | Place::Plain, c) => {
                place = Place::Plain;
                value.push(c);
                // Blanks at the end do not count.
                if !c.is_ascii_whitespace() {
                    end_of_plain = value.len();
                }
            }
            (Place::Single, '\'') | (Place::Double, '"') => {
                place = Place::Before;
                end_of_plain = value.len();
            }
            (Place::Double, '\\') => match characters.next() {
                Some((_, '\n')) | None => {}
                Some((_, next)) => {
                    if !ESCAPED.contains(next) {
                        value.push('\\');
                    }
                    value.push(next);
                }
            },
            (Place::Single | Place::Double, c) => value.push(c),
        }
    }
    if matches!(place, Place::Plain) {
        value.truncate(end_of_plain);
    }
    (end, name, value)
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
        assert!(!holds(&host, &none, false).unwrap() && put(&host, &none, false).unwrap());
        assert!(holds(&host, &none, false).unwrap() && !put(&host, &none, false).unwrap());
        assert_eq!(host.list(KUBELET_DROP_INS).unwrap(), ["10-harden.conf"]);
        let args = host.read_text(KUBELET_ARGS).unwrap().unwrap();
        assert_eq!(args, "KUBELET_EXTRA_ARGS=\"--config-dir=/etc/firstboot/kubelet.conf.d\"");
        let some = kubelet(json!({"maxPods": 60, "evictionHard": {"memory.available": "50Mi"}}));
        assert!(!holds(&host, &some, false).unwrap() && put(&host, &some, false).unwrap());
        assert!(holds(&host, &some, false).unwrap() && !put(&host, &some, false).unwrap());
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
        assert!(!holds(&host, &kubelet(json!({"maxPods": 61})), false).unwrap());
        host.write(SEED_DROP_IN, &host.read(SEED_DROP_IN).unwrap().unwrap(), 0o644).unwrap();
        assert!(!holds(&host, &some, false).unwrap(), "a mode that is too wide");
        assert!(put(&host, &none, false).unwrap() && holds(&host, &none, false).unwrap());
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
            ("KUBELET_EXTRA_ARGS='--v=4 --x=1'\n", format!("KUBELET_EXTRA_ARGS=\"--v=4 --x=1 {ours}\"\n")),
            (" KUBELET_EXTRA_ARGS = --v=4  \n", format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n")),
            (
                "KUBELET_EXTRA_ARGS=--v=4 \\\n  --x=1\nB=1\n",
                format!("B=1\nKUBELET_EXTRA_ARGS=\"--v=4   --x=1 {ours}\"\n"),
            ),
            ("KUBELET_EXTRA_ARGS=\"--v=4 \\\n--x=1\"\n", format!("KUBELET_EXTRA_ARGS=\"--v=4 --x=1 {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\"--v=4\n--x=1\"\n", format!("KUBELET_EXTRA_ARGS=\"--v=4\n--x=1 {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS='--x=\"a b\" $c'\n", format!("KUBELET_EXTRA_ARGS=\"--x=\\\"a b\\\" \\$c {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=--x=a\\ b\n", format!("KUBELET_EXTRA_ARGS=\"--x=a b {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\"a\" \\\n\n", format!("KUBELET_EXTRA_ARGS=\"a {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\"a\" 'b'\n", format!("KUBELET_EXTRA_ARGS=\"ab {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=--v=1\nKUBELET_EXTRA_ARGS=--v=2\n", format!("KUBELET_EXTRA_ARGS=\"--v=2 {ours}\"\n")),
            (
                "# KUBELET_EXTRA_ARGS=--v=1 \\\nKUBELET_EXTRA_ARGS=--v=2\n",
                format!("# KUBELET_EXTRA_ARGS=--v=1 \\\nKUBELET_EXTRA_ARGS=--v=2\nKUBELET_EXTRA_ARGS=\"{ours}\"\n"),
            ),
            (
                "B='x\nKUBELET_EXTRA_ARGS=no'\n",
                format!("B='x\nKUBELET_EXTRA_ARGS=no'\nKUBELET_EXTRA_ARGS=\"{ours}\"\n"),
            ),
            ("KUBELET_EXTRA_ARGS=\"--v=4", format!("KUBELET_EXTRA_ARGS=\"--v=4 {ours}\"\n")),
            ("KUBELET_EXTRA_ARGS=\n", format!("KUBELET_EXTRA_ARGS=\"{ours}\"\n")),
            ("no assignment\nB=1", format!("no assignment\nB=1\nKUBELET_EXTRA_ARGS=\"{ours}\"\n")),
        ] {
            assert_eq!(with_flags(without, false), with);
            assert_eq!(with_flags(&with, false), with);
            let offline = with_flags(&with, true);
            assert!(offline.ends_with(" --kubeconfig=/etc/firstboot/offline/kubelet.conf\"\n"), "{offline}");
            assert_eq!(with_flags(&offline, true), offline);
            assert_eq!(with_flags(&offline, false), with);
        }
    }
}
