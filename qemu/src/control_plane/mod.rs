// SPDX-License-Identifier: Apache-2.0
//! A real control plane on the build machine, as a guard: etcd, kube-apiserver, kube-controller-manager and
//! kube-scheduler on free loopback ports, prepared by unmodified kubeadm phases.
//!
//! Needs no root and changes nothing outside its scratch directory. Guests on QEMU's user network reach it as 10.0.2.2;
//! its certificate, `cluster-info` and Service `kubernetes` carry that address. An IPv6 cluster has an address of that
//! family in its place, which [`crate::link`] leads to. Or it runs in a namespace, next to the devices on its network
//! ([`crate::link::site`]): then the API server reaches them, too.

pub mod audit;
pub mod config;
mod objects;
mod prepare;

pub use objects::{Csr, condition, conditions, is_ready};

use crate::kubectl::Kubectl;
use crate::link::namespace::Namespace;
use crate::process::Process;
use crate::run_dir::RunDir;
use crate::{ports, wait};
use anyhow::{Context, Result, bail};
use config::{Family, Ports};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const START: Duration = Duration::from_secs(90);

/// What may be chosen.
#[derive(Debug, Clone)]
pub struct Options {
    /// Version that the control plane runs and that `kubeadm-config` names, with the leading `v`; components.lock
    /// has to hold it.
    pub kubernetes_version: String,
    /// How long the certificates are valid that kube-controller-manager signs, as Go writes durations; a year by
    /// default.
    pub signing_duration: Option<String>,
    /// Whether kube-proxy and CoreDNS are installed. Without them `kubeadm-config` and `kubelet-config` still exist.
    pub addons: bool,
    /// Address family of the cluster.
    pub family: Family,
    /// Where it runs; on the build machine's loopback by default.
    pub namespace: Option<Arc<Namespace>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            kubernetes_version: "v1.36.3".to_owned(),
            signing_duration: None,
            addons: true,
            family: Family::V4,
            namespace: None,
        }
    }
}

impl Options {
    /// The default, without kube-proxy and CoreDNS: nodes run no pods of the cluster's own.
    pub fn without_addons() -> Self {
        Options { addons: false, ..Options::default() }
    }
}

/// A running control plane. Dropping it ends its servers and removes its directory.
pub struct ControlPlane {
    // Order matters: servers end before the directory that they write to goes.
    /// kube-apiserver and what watches it, in the order in which they end.
    servers: Mutex<Vec<Process>>,
    etcd: Option<Process>,
    signing_duration: Option<String>,
    programs: Programs,
    family: Family,
    ports: Ports,
    namespace: Option<Arc<Namespace>>,
    dir: RunDir,
}

/// The programs of a control plane.
#[derive(Debug, Clone)]
struct Programs {
    etcd: PathBuf,
    apiserver: PathBuf,
    controller_manager: PathBuf,
    scheduler: PathBuf,
    kubeadm: PathBuf,
    kubectl: PathBuf,
}

impl Programs {
    fn ensure(version: &str) -> Result<Self> {
        let arch = imagebuild::arch::Arch::host()?;
        let get = |name: &str| {
            imagebuild::component::ensure(name, arch, Some(version)).with_context(|| format!("build {name}"))
        };
        Ok(Programs {
            etcd: get("etcd")?,
            apiserver: get("kube-apiserver")?,
            controller_manager: get("kube-controller-manager")?,
            scheduler: get("kube-scheduler")?,
            kubeadm: get("kubeadm")?,
            kubectl: get("kubectl")?,
        })
    }
}

impl ControlPlane {
    /// Builds what is missing, starts everything and returns when it serves.
    ///
    /// # Errors
    /// Names the server that failed, with the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        let programs = Programs::ensure(&options.kubernetes_version)?;
        let dir = RunDir::new("control-plane")?;
        let ports = Ports {
            api: ports::free()?,
            etcd: ports::free()?,
            etcd_peer: ports::free()?,
            controller_manager: ports::free()?,
            scheduler: ports::free()?,
        };
        let path = dir.path().to_owned();
        let (family, namespace) = (options.family, options.namespace.clone());
        let (servers, signing_duration) = (Mutex::default(), options.signing_duration.clone());
        let mut plane = ControlPlane { servers, etcd: None, signing_duration, programs, family, ports, namespace, dir };
        plane.etcd = Some(plane.run("etcd", &plane.programs.etcd, &config::etcd(&path, ports))?);
        plane.prepare_files(options).context("prepare certificates with kubeadm")?;
        plane.start_apiserver()?;
        plane.prepare_cluster(options).context("prepare the cluster with kubeadm")?;
        Ok(plane)
    }

    /// Starts kube-apiserver (again), waits until it is ready, and starts kube-controller-manager and kube-scheduler.
    pub fn start_apiserver(&self) -> Result<()> {
        let args = config::apiserver(self.path(), self.family, self.ports, self.namespace.is_some());
        let process = self.run("kube-apiserver", &self.programs.apiserver, &args)?;
        let ready = wait::until("kube-apiserver to be ready", START, || {
            process.check()?;
            self.etcd.iter().try_for_each(Process::check)?;
            Ok(self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]).ok())
        });
        ready.with_context(|| format!("start kube-apiserver; its log ends:\n{}", process.tail(20)))?;
        let mut servers = self.controllers()?;
        servers.push(process);
        match self.servers.lock() {
            Ok(mut running) => *running = servers,
            Err(_) => bail!("keep kube-apiserver's guard"),
        }
        Ok(())
    }

    /// Ends kube-apiserver; connections to its port are refused until it is started again.
    /// What watches it ends as well: kube-controller-manager would ask less and less often meanwhile, and would
    /// sign nothing for up to a minute after the API server is back.
    pub fn stop_apiserver(&self) -> Result<()> {
        let running = self.servers.lock().map(|mut servers| std::mem::take(&mut *servers)).unwrap_or_default();
        if running.is_empty() {
            bail!("find a running kube-apiserver");
        }
        running.into_iter().try_for_each(|process| process.stop(Duration::from_secs(5)))
    }

    fn controllers(&self) -> Result<Vec<Process>> {
        let manager =
            config::controller_manager(self.path(), self.family, self.ports, self.signing_duration.as_deref());
        let scheduler = config::scheduler(self.path(), self.ports);
        Ok(vec![
            self.run("kube-controller-manager", &self.programs.controller_manager, &manager)?,
            self.run("kube-scheduler", &self.programs.scheduler, &scheduler)?,
        ])
    }

    /// Starts one of its servers where it runs; its output goes to `NAME.log`.
    fn run(&self, name: &str, program: &Path, args: &[String]) -> Result<Process> {
        let log = self.path().join(format!("{name}.log"));
        match &self.namespace {
            Some(namespace) => namespace.start(name, program, args, &log),
            None => Process::start(name, program, args, &log),
        }
    }

    /// A command that will run where its servers do.
    fn command(&self, program: &Path) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(program),
            None => Command::new(program),
        }
    }

    /// Address for guests: `10.0.2.2:PORT`, or its IPv6 counterpart.
    pub fn endpoint_for_guest(&self) -> String {
        self.family.with_port(self.family.guest_view(), self.ports.api)
    }

    /// Address for programs on the build machine: `127.0.0.1:PORT` or `[::1]:PORT`.
    pub fn endpoint_for_host(&self) -> String {
        self.family.with_port(self.family.loopback(), self.ports.api)
    }

    /// Scratch directory with certificates, logs and kubeconfigs.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The cluster CA's certificate, PEM.
    pub fn ca_pem(&self) -> Result<String> {
        let path = self.path().join("pki/ca.crt");
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The administrator's kubeconfig, valid on the build machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path().join("admin.conf")
    }

    /// Runs kubectl as administrator; returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        let kubectl = Kubectl::new(&self.programs.kubectl, &self.kubeconfig(), self.path());
        kubectl.run_by(&mut self.command(kubectl.program()), args)
    }

    /// Like [`Self::kubectl`] with `-o json`, parsed.
    pub fn get(&self, args: &[&str]) -> Result<serde_json::Value> {
        let all: Vec<&str> = ["get", "-o", "json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.kubectl(&all)?).context("parse kubectl's output")
    }

    /// Applies objects; those without a namespace in `default`.
    pub fn apply(&self, objects: &serde_json::Value) -> Result<()> {
        let path = self.path().join("objects.json");
        std::fs::write(&path, objects.to_string()).with_context(|| format!("write {}", path.display()))?;
        self.kubectl(&["apply", "-f", &path.display().to_string()]).map(drop)
    }

    /// Requests so far, from the audit log.
    pub fn audit(&self) -> Result<Vec<audit::Event>> {
        audit::read(&self.path().join("audit.log"))
    }

    /// The last lines of every server's log, for a failure's report.
    pub fn logs(&self, lines: usize) -> String {
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        let part =
            |n: &&str| format!("--- {n}\n{}", crate::process::tail(&self.path().join(format!("{n}.log")), lines));
        names.iter().map(part).collect::<Vec<_>>().join("\n")
    }
}
