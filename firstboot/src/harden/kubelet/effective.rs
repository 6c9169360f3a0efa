// SPDX-License-Identifier: Apache-2.0
//! The configuration of the running kubelet: its command line and the files that it names, merged as kubelet does
//! (mergeKubeletConfigurations in cmd/kubelet/app/server.go: RFC 7386, in the order of names; flags win).

use super::fields::{self, Field};
use crate::harden::process::{changed_since, main_pid, started};
use crate::host::Host;
use anyhow::{Context, Result, anyhow};
use serde_json::{Map, Value};
use serde_yaml_ng::{Mapping, Value as Yaml};

/// The running kubelet.
pub(super) struct Running {
    /// Flags without leading dashes, in the order of the command line.
    flags: Vec<(String, String)>,
    /// Configuration file and drop-ins, merged.
    files: Value,
    /// Files newer than the process, which therefore has not read their content.
    pub(super) unread: Vec<String>,
    /// Names in the directory of drop-ins.
    pub(super) drop_ins: Vec<String>,
}

impl Running {
    /// Inspects the process; `None` when kubelet does not run.
    pub(super) fn read(host: &Host) -> Result<Option<Self>> {
        let Some(pid) = main_pid(host, "kubelet.service")? else { return Ok(None) };
        let Some(line) = host.read(&format!("/proc/{pid}/cmdline"))? else { return Ok(None) };
        let flags = flags(&String::from_utf8_lossy(&line));
        let value = |name: &str| flags.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let mut paths: Vec<String> = value("config").map(str::to_owned).into_iter().collect();
        let mut drop_ins = Vec::new();
        if let Some(dir) = value("config-dir") {
            drop_ins = host.list(dir)?;
            let read = drop_ins.iter().filter(|name| name.ends_with(".conf"));
            paths.extend(read.map(|name| format!("{}/{name}", dir.trim_end_matches('/'))));
        }
        let mut files = Value::Object(Map::new());
        for path in &paths {
            let text = host.read_text(path)?.with_context(|| format!("find {path}"))?;
            let document: Mapping =
                serde_yaml_ng::from_str(&text).map_err(|_| anyhow!("read {path}: it is no YAML"))?;
            merge(&mut files, json(Yaml::Mapping(document)));
        }
        let unread = changed_since(host, started(host, pid)?, &paths)?;
        Ok(Some(Running { flags, files, unread, drop_ins }))
    }

    /// The value of a field, for people; `None` when neither a file nor a flag sets it.
    pub(super) fn value(&self, field: &Field) -> Option<String> {
        let flag = self.flags.iter().rev().find(|(name, _)| !field.flag.is_empty() && name == field.flag);
        match flag {
            Some((name, value)) => Some(format!("{value} (--{name})")),
            None => field.of(&self.files).map(fields::shown),
        }
    }
}

/// Parses `--name=value` and `--name value`; a name without a value is a switch.
fn flags(line: &str) -> Vec<(String, String)> {
    let mut words = line.split('\0').skip(1).peekable();
    let mut flags = Vec::new();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let next = words.next_if(|next| !next.is_empty() && !next.starts_with('-'));
                (flag, next.map_or_else(|| "true".to_owned(), str::to_owned))
            }
        };
        flags.push((name.to_owned(), value));
    }
    flags
}

/// The same value in JSON, without what JSON lacks (tags, keys that are not text).
fn json(value: Yaml) -> Value {
    match value {
        Yaml::Bool(yes) => Value::Bool(yes),
        Yaml::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, part) => part.into(),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => Value::Array(list.into_iter().map(json).collect()),
        Yaml::Mapping(map) => {
            let entry = |(key, value): (Yaml, Yaml)| Some((key.as_str()?.to_owned(), json(value)));
            Value::Object(map.into_iter().filter_map(entry).collect())
        }
        Yaml::Null | Yaml::Tagged(_) => Value::Null,
    }
}

/// JSON merge patch.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (key, value) in patch {
        match value.is_null() {
            true => drop(object.remove(&key)),
            false => merge(object.entry(key).or_insert(Value::Null), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harden::kubelet::fields::FIELDS;
    use crate::host::fake::Fake;
    use serde_json::json;

    /// A machine whose kubelet runs with these flags.
    fn machine(flags: &[&str], files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|argv| (argv[0] == "systemctl").then(|| Ok("77\n".to_owned())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let words = ["/usr/bin/kubelet"].iter().chain(flags);
        let line: String = words.map(|word| format!("{word}\0")).collect();
        host.write("/proc/77/cmdline", line.as_bytes(), 0o444).unwrap();
        let stat = format!("77 (ku be) let) S {}5000 1\n", "0 ".repeat(18));
        host.write("/proc/77/stat", stat.as_bytes(), 0o444).unwrap();
        // Later than any file that a test writes.
        host.write("/proc/stat", b"cpu 1\nbtime 9000000000\n", 0o444).unwrap();
        for (path, text) in files {
            host.write(path, text.as_bytes(), 0o600).unwrap();
        }
        (dir, host)
    }

    fn value(running: &Running, path: &str) -> Option<String> {
        running.value(FIELDS.iter().find(|f| f.path == path).unwrap())
    }

    #[test]
    fn files_are_merged_and_flags_win() {
        let files = [
            ("/a/config.yaml", "readOnlyPort: 10255\nevictionHard: {memory.available: 1Mi}\nseccompDefault: false\n"),
            (
                "/d/10-x.conf",
                "{\"readOnlyPort\": 0, \"seccompDefault\": true, \"evictionHard\": {\"pid.available\": \"10%\"}}",
            ),
            ("/d/50-y.conf", "{\"seccompDefault\": null}"),
            ("/d/60-z.json", "{\"readOnlyPort\": 1}"),
        ];
        let (_dir, host) = machine(&["--config=/a/config.yaml", "--config-dir", "/d/", "--event-qps=5"], &files);
        let running = Running::read(&host).unwrap().unwrap();
        assert_eq!(value(&running, "readOnlyPort").as_deref(), Some("0"));
        assert_eq!(value(&running, "evictionHard/memory.available").as_deref(), Some("1Mi"));
        assert_eq!(value(&running, "evictionHard/pid.available").as_deref(), Some("10%"));
        assert_eq!(value(&running, "seccompDefault"), None);
        assert_eq!(value(&running, "eventRecordQPS").as_deref(), Some("5 (--event-qps)"));
        assert_eq!(running.drop_ins, ["10-x.conf", "50-y.conf", "60-z.json"]);
        assert!(running.unread.is_empty());
    }

    #[test]
    fn files_changed_since_the_start_are_unread() {
        let (_dir, host) = machine(&["--config=/a/config.yaml"], &[("/a/config.yaml", "readOnlyPort: 0\n")]);
        host.write("/proc/stat", b"btime 1000\n", 0o444).unwrap();
        assert_eq!(Running::read(&host).unwrap().unwrap().unread, ["/a/config.yaml"]);
    }

    #[test]
    fn stopped_kubelet_has_no_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(|_| Some(Ok("0\n".to_owned())));
        assert!(Running::read(&Host::open(dir.path(), Box::new(fake)).unwrap()).unwrap().is_none());
    }

    #[test]
    fn merge_patches_of_rfc_7386() {
        for (target, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [1]}), json!({"a": [2, 3]}), json!({"a": [2, 3]})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut found = target;
            merge(&mut found, patch);
            assert_eq!(found, merged);
        }
    }

    #[test]
    fn flags_are_parsed_in_every_form() {
        let line = "kubelet\0--a=1\0--b\x002\0-v=4\0--c\0--d=x=y\0";
        let found = flags(line);
        let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, [("a", "1"), ("b", "2"), ("v", "4"), ("c", "true"), ("d", "x=y")]);
    }
}
