// SPDX-License-Identifier: Apache-2.0
//! Preparing a control plane with unmodified `kubeadm init phase …`.

use super::config;
use super::{ControlPlane, Options};
use crate::wait;
use anyhow::{Context, Result};
use std::process::Command;
use std::time::Duration;

/// kubeconfigs that kubeadm makes and that are used on the build machine.
const KUBECONFIGS: [&str; 4] = ["admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf"];

impl ControlPlane {
    /// Certificates, kubeconfigs and the audit policy.
    pub(super) fn prepare_files(&self, options: &Options) -> Result<()> {
        let dir = self.path();
        let version = &options.kubernetes_version;
        let here = config::kubeadm(version, self.family, self.ports.api, &dir.join("pki").display().to_string());
        let uploaded = config::kubeadm(version, self.family, self.ports.api, "/etc/kubernetes/pki");
        for (name, text) in
            [("kubeadm.yaml", &*here), ("uploaded.yaml", &uploaded), ("audit-policy.yaml", config::audit_policy())]
        {
            std::fs::write(dir.join(name), text).with_context(|| format!("write {name}"))?;
        }
        self.phase(&["certs", "all"], "kubeadm.yaml", &[])?;
        let kubeconfig_dir = dir.display().to_string();
        self.phase(&["kubeconfig", "all"], "kubeadm.yaml", &["--kubeconfig-dir", &kubeconfig_dir])?;
        let (from, to) = (self.endpoint_for_guest(), self.endpoint_for_host());
        for name in KUBECONFIGS {
            let path = dir.join(name);
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
            std::fs::write(&path, text.replace(&from, &to)).with_context(|| format!("write {name}"))?;
        }
        Ok(())
    }

    /// What a joining device finds in the cluster.
    pub(super) fn prepare_cluster(&self, options: &Options) -> Result<()> {
        let kubeconfig = self.kubeconfig().display().to_string();
        let super_admin = self.path().join("super-admin.conf").display().to_string();
        // What `kubeadm init` does before the phases below: administrators get their rights.
        self.kubectl(&[
            "--kubeconfig",
            &super_admin,
            "create",
            "clusterrolebinding",
            "kubeadm:cluster-admins",
            "--clusterrole=cluster-admin",
            "--group=kubeadm:cluster-admins",
        ])?;
        let with = ["--kubeconfig", kubeconfig.as_str()];
        self.phase(&["upload-config", "all"], "uploaded.yaml", &with)?;
        self.phase(&["bootstrap-token"], "uploaded.yaml", &["--kubeconfig", &kubeconfig, "--skip-token-print"])?;
        if options.addons {
            std::thread::scope(|scope| {
                let proxy = scope.spawn(|| self.phase(&["addon", "kube-proxy"], "uploaded.yaml", &with));
                self.phase(&["addon", "coredns"], "uploaded.yaml", &with)?;
                proxy.join().unwrap_or_else(|_| anyhow::bail!("install kube-proxy"))
            })?;
            // kubeadm's second replica is for a second node.
            self.kubectl(&["-n", "kube-system", "scale", "deployment", "coredns", "--replicas=1"])?;
        }
        self.publish_guest_view()
    }

    /// kubeadm publishes the server of the kubeconfig that it was given: here, one that a guest cannot reach.
    fn publish_guest_view(&self) -> Result<()> {
        let get = ["-n", "kube-public", "configmap", "cluster-info"];
        let found = self.get(&get)?;
        let text = found["data"]["kubeconfig"].as_str().context("read kubeconfig in cluster-info")?;
        let text = text.replace(&self.endpoint_for_host(), &self.endpoint_for_guest());
        let patch = serde_json::json!({ "data": { "kubeconfig": text } }).to_string();
        self.kubectl(&["-n", "kube-public", "patch", "configmap", "cluster-info", "--type=merge", "-p", &patch])?;
        Ok(())
    }

    /// A new bootstrap token; returns when the cluster has signed `cluster-info` with it.
    /// `ttl` as kubeadm takes it: `1h`, or `0` for one that does not expire.
    pub fn create_token(&self, ttl: &str) -> Result<String> {
        let mut command = self.kubeadm();
        command.args(["token", "create", "--ttl", ttl, "--kubeconfig"]).arg(self.kubeconfig());
        let token = String::from_utf8(imagebuild::cmd::output(&mut command)?).context("decode the token")?;
        let token = token.trim().to_owned();
        let id = token.split('.').next().unwrap_or_default();
        let key = format!("jws-kubeconfig-{id}");
        wait::until("cluster-info to be signed with the new token", Duration::from_secs(30), || {
            let info = self.get(&["-n", "kube-public", "configmap", "cluster-info"])?;
            Ok(info["data"].get(&key).map(drop))
        })?;
        Ok(token)
    }

    /// Gives kube-apiserver a new serving certificate, as its yearly renewal does, and starts it again.
    pub fn renew_serving_certificate(&self) -> Result<()> {
        let pki = self.path().join("pki");
        for name in ["apiserver.crt", "apiserver.key"] {
            std::fs::remove_file(pki.join(name)).with_context(|| format!("remove {name}"))?;
        }
        self.phase(&["certs", "apiserver"], "kubeadm.yaml", &[])?;
        self.stop_apiserver()?;
        self.start_apiserver()
    }

    fn kubeadm(&self) -> Command {
        let mut command = self.command(&self.programs.kubeadm);
        // kubeadm asks the internet for a version when it does not find one; it must not.
        command.env("HOME", self.path());
        command
    }

    fn phase(&self, phase: &[&str], config: &str, more: &[&str]) -> Result<()> {
        let mut command = self.kubeadm();
        command.args(["init", "phase"]).args(phase).arg("--config").arg(self.path().join(config)).args(more);
        imagebuild::cmd::run(&mut command)
    }
}
