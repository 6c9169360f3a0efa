// SPDX-License-Identifier: Apache-2.0
//! The configuration of the container runtime: no setting removes a protection from containers, and containerd listens
//! only on its socket.
//!
//! Nothing is applied here: the phase `runtime` writes the file. The audit reads the result that containerd computes
//! from the file, its defaults and its imports (`containerd config dump`).

use super::process::{changed_since, main_pid, started};
use crate::check::Finding;
use crate::harden::overrides::AuditContext;
use crate::paths::CONTAINERD_CONFIG;
use anyhow::{Result, anyhow};
use toml::de::{DeTable, DeValue};

/// Directory of files that containerd imports by default.
const IMPORTS: &str = "/etc/containerd/conf.d";
const PROGRAM: &str = "/usr/bin/containerd";

/// Plugin, keys below it, wanted value, reason. Each version of a plugin has its own name.
type Setting = (&'static str, &'static [&'static str], &'static str, &'static str);

#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    ("io.containerd.cri.v1.runtime", &["disable_apparmor"], "false", "containers get containerd's AppArmor profile"),
    ("io.containerd.cri.v1.runtime", &["disable_proc_mount"], "false", "/proc of containers is masked unless a pod is allowed to change that"),
    ("io.containerd.cri.v1.runtime", &["containerd", "default_runtime_name"], "runc", "the runtime that applies these protections"),
    ("io.containerd.cri.v1.runtime", &["containerd", "runtimes", "runc", "base_runtime_spec"], "none", "containers start from containerd's own set of protections"),
    ("io.containerd.cri.v1.runtime", &["containerd", "runtimes", "runc", "cgroup_writable"], "false", "no container changes its own limits"),
    ("io.containerd.cri.v1.runtime", &["containerd", "runtimes", "runc", "options", "NoNewKeyring"], "false", "containers do not share the host's keys"),
    ("io.containerd.cri.v1.runtime", &["containerd", "runtimes", "runc", "options", "SystemdCgroup"], "true", "one manager of control groups, so that limits hold"),
    ("io.containerd.grpc.v1.cri", &["disable_tcp_service"], "true", "the mode of its socket decides who may use containerd"),
    ("io.containerd.service.v1.diff-service", &["sync_fs"], "true", "imported images reach the disk before they are recorded: a power cut leaves no empty files in them"),
    ("io.containerd.cri.v1.images", &["image_pull_with_sync_fs"], "true", "the same for pulled images"),
    ("io.containerd.grpc.v1.cri", &["stream_server_address"], "127.0.0.1", "exec and attach go through kubelet, which requires a credential"),
];

/// All findings; none before the runtime is configured.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let host = context.host;
    if host.read(CONTAINERD_CONFIG)?.is_none() {
        return Ok(Vec::new());
    }
    let text = host.run(&[PROGRAM, "config", "dump"])?;
    let dump = DeTable::parse(&text).map_err(|_| anyhow!("read containerd's configuration"))?;
    let mut all: Vec<Finding> = SETTINGS.iter().map(|setting| compare_setting(dump.get_ref(), setting)).collect();
    let imports = host.list(IMPORTS)?;
    let found = if imports.is_empty() { "none".to_owned() } else { imports.join(", ") };
    let why = "no other file changes this configuration";
    all.push(Finding::compare(format!("containerd{IMPORTS}"), "none", None, Some(found), why));
    let found = match main_pid(host, "containerd.service")? {
        None => "not running".to_owned(),
        Some(pid) => match changed_since(host, started(host, pid)?, &[CONTAINERD_CONFIG.to_owned()])?.is_empty() {
            true => "none".to_owned(),
            false => CONTAINERD_CONFIG.to_owned(),
        },
    };
    let why = "containerd reads its configuration once, when it starts";
    all.push(Finding::compare("containerd/changed-since-start".to_owned(), "none", None, Some(found), why));
    Ok(all)
}

fn compare_setting(dump: &DeTable<'_>, (plugin, keys, wanted, why): &Setting) -> Finding {
    let start = dump.get("plugins").map(|plugins| plugins.get_ref());
    let path = std::iter::once(plugin).chain(keys.iter());
    let found = path.fold(start, |at, key| Some(at?.as_table()?.get(*key)?.get_ref())).map(shown);
    Finding::compare(format!("containerd/{}", keys.join("/")), wanted, None, found, why)
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.is_empty() => "none".to_owned(),
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        _ => "neither text nor true nor false".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::Host;
    use crate::host::fake::Fake;

    /// What containerd 2.4.2 dumps for firstboot's file, shortened.
    const DUMP: &str = include_str!("containerd-dump.toml");

    /// The findings that are not `Ok` when containerd prints `dump`.
    fn deviations(dump: String, imports: &[&str]) -> Vec<(String, Verdict, String)> {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.answering(move |argv| match argv[0] {
            PROGRAM => Some(Ok(dump.clone())),
            _ => Some(Ok("9\n".to_owned())),
        });
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let put = |path: &str, text: &str| host.write(path, text.as_bytes(), 0o600).unwrap();
        put(CONTAINERD_CONFIG, "version = 3\n");
        put("/proc/9/stat", &format!("9 (containerd) S {}0 0\n", "0 ".repeat(18)));
        put("/proc/stat", "btime 9000000000\n");
        for name in imports {
            put(&format!("{IMPORTS}/{name}"), "version = 3\n");
        }
        let all = audit(&AuditContext { host: &host, kept: SeedOverrides::default() }).unwrap();
        assert_eq!(all.len(), SETTINGS.len() + 2);
        all.into_iter().filter(|f| f.state != Verdict::Ok).map(|f| (f.id, f.state, f.found)).collect()
    }

    #[test]
    fn own_configuration_has_no_deviations() {
        assert_eq!(deviations(DUMP.to_owned(), &[]), []);
    }

    #[test]
    fn removed_protections_and_foreign_imports_are_drift() {
        let dump = DUMP.replace("disable_apparmor = false", "disable_apparmor = true");
        let dump = dump.replace("base_runtime_spec = ''", "base_runtime_spec = '/etc/spec.json'");
        let drift = |id: &str, found: &str| (id.to_owned(), Verdict::Drift, found.to_owned());
        assert_eq!(
            deviations(dump, &["nvidia.toml"]),
            [
                drift("containerd/disable_apparmor", "true"),
                drift("containerd/containerd/runtimes/runc/base_runtime_spec", "/etc/spec.json"),
                drift("containerd/etc/containerd/conf.d", "nvidia.toml"),
            ]
        );
    }
}
