// SPDX-License-Identifier: Apache-2.0
//! What answers firstboot's commands in place of systemd, kubelet and `ssh-keygen`: as much of each as firstboot
//! can see. kubelet registers with the real API server by the certificate that firstboot obtained.

use super::cluster::Cluster;
use super::cri::Runtime;
use super::ground;
use anyhow::{Context, Result};
use firstboot::containerd::prepared;
use firstboot::host::Host;
use firstboot::host::fake::Fake;
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

/// The programs beside firstboot, below one root directory.
pub(super) struct StandIn {
    root: PathBuf,
    node: String,
    runtime: RefCell<Option<Runtime>>,
    kubelet: Cell<bool>,
}

impl StandIn {
    /// Nothing runs yet.
    pub(super) fn new(root: &Path, node: &str) -> Self {
        StandIn { root: root.to_owned(), node: node.to_owned(), runtime: RefCell::default(), kubelet: Cell::new(false) }
    }

    /// systemd starts what is enabled, and the guard before it.
    pub(super) fn boot(&self) -> Result<()> {
        if self.root.join(WANTS).join("containerd.service").is_symlink() {
            prepared::place(&Host::open(&self.root, Box::new(Fake::new().0))?)?;
        }
        for unit in ["containerd.service", "kubelet.service"] {
            if self.root.join(WANTS).join(unit).is_symlink() {
                self.start(unit)?;
            }
        }
        Ok(())
    }

    /// Whether kubelet runs.
    pub(super) fn kubelet_runs(&self) -> bool {
        self.kubelet.get()
    }

    /// The answer to a command; none where silence is one.
    pub(super) fn answer(&self, argv: &[&str]) -> Option<Result<String>> {
        let done = match argv {
            ["systemctl", "show", "--property=ActiveState,NRestarts", "containerd.service"] => {
                let state = if self.runtime.borrow().is_some() { "active" } else { "inactive" };
                return Some(Ok(format!("ActiveState={state}\nNRestarts=0\n")));
            }
            ["systemctl", "show", ..] => return Some(Ok("0\n".to_owned())),
            ["systemctl", words @ ..] => self.systemctl(words),
            ["get", _, "/healthz"] if self.kubelet.get() => Ok(()),
            ["get", ..] => Err(anyhow::anyhow!("connection refused")),
            ["ssh-keygen", .., path] => self.new_host_key(path),
            _ => return None,
        };
        Some(done.map(|()| String::new()))
    }

    fn systemctl(&self, words: &[&str]) -> Result<()> {
        let words: Vec<&str> = words.iter().copied().filter(|w| !w.starts_with("--")).collect();
        match words.as_slice() {
            ["start" | "restart", units @ ..] => units.iter().try_for_each(|unit| self.start(unit)),
            ["stop", units @ ..] => {
                units.iter().for_each(|unit| self.stop(unit));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start(&self, unit: &str) -> Result<()> {
        match unit {
            "containerd.service" if self.runtime.borrow().is_none() => {
                let directory = self.root.join("run/containerd");
                fs::create_dir_all(&directory)?;
                fs::create_dir_all(self.root.join("var/lib/containerd"))?;
                *self.runtime.borrow_mut() = Some(Runtime::start(&directory.join("containerd.sock"), &self.root)?);
                Ok(())
            }
            "kubelet.service" if !self.kubelet.get() => self.start_kubelet(),
            _ => Ok(()),
        }
    }

    fn stop(&self, unit: &str) {
        match unit {
            "containerd.service" => drop(self.runtime.borrow_mut().take()),
            "kubelet.service" => self.kubelet.set(false),
            _ => {}
        }
    }

    /// Without a certificate it ends at once, and systemd starts it again until there is one.
    fn start_kubelet(&self) -> Result<()> {
        let Ok(node) = Cluster::as_node(&self.root) else { return Ok(()) };
        for directory in ["var/lib/kubelet/pods", "var/log/pods", "var/log/containers"] {
            fs::create_dir_all(self.root.join(directory))?;
        }
        fs::write(self.root.join("var/lib/kubelet/cpu_manager_state"), "{}")?;
        node.register(&self.node, &ground::boot_id(&self.root)).context("register the node")?;
        self.kubelet.set(true);
        Ok(())
    }

    fn new_host_key(&self, path: &str) -> Result<()> {
        let path = self.root.join(path.trim_start_matches('/'));
        fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n")?;
        Ok(fs::write(path.with_extension("pub"), "ssh-ed25519 AAAA\n")?)
    }
}
