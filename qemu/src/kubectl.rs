// SPDX-License-Identifier: Apache-2.0
//! kubectl, as the user of a kubeconfig.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// kubectl with a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    /// Where it may write what it discovered: not to the user's home.
    cache: PathBuf,
}

impl Kubectl {
    /// The program of this path.
    pub fn new(program: &Path, kubeconfig: &Path, directory: &Path) -> Self {
        Kubectl {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            cache: directory.join("kubectl-cache"),
        }
    }

    /// The lock's kubectl, built where it is missing.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn of_lock(kubeconfig: &Path, directory: &Path) -> Result<Self> {
        let arch = imagebuild::arch::Arch::host()?;
        let program = imagebuild::component::ensure("kubectl", arch, None).context("build kubectl")?;
        Ok(Kubectl::new(&program, kubeconfig, directory))
    }

    /// Runs it; returns what it prints.
    ///
    /// # Errors
    /// With the end of what it wrote to standard error.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.run_by(&mut Command::new(&self.program), args)
    }

    /// The same by a command that starts [`Self::program`] somewhere else.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_by(&self, command: &mut Command, args: &[&str]) -> Result<String> {
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).env("KUBECACHEDIR", &self.cache);
        let out = imagebuild::cmd::output(command)?;
        String::from_utf8(out).context("decode kubectl's output")
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `get` with `-o json`, parsed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let all: Vec<&str> = ["get", "-o", "json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.run(&all)?).context("parse kubectl's output")
    }

    /// Applies objects, by a file in `directory`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn apply(&self, objects: &Value, directory: &Path) -> Result<()> {
        let path = directory.join("objects.json");
        std::fs::write(&path, objects.to_string()).with_context(|| format!("write {}", path.display()))?;
        // An emulated API server takes longer for its schema than kubectl waits; it validates by itself as well.
        self.run(&["apply", "--validate=false", "-f", &path.display().to_string()]).map(drop)
    }
}
