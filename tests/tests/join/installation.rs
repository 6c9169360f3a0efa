// SPDX-License-Identifier: Apache-2.0
//! One installation up to a sealed node, below a root directory, with the recorded state before each effect.

use std::rc::Rc;

use e2e::native::cluster::{Cluster, pod_cidr};
use e2e::native::compare::differences;
use e2e::native::cut::{Cut, Damage, Recorder, State, damages, holding};
use e2e::native::tree::{self, Tree};
use e2e::native::{Boot, Device, Outcome};
use qemu::control_plane::ControlPlane;
use qemu::seed::secret_of;

use super::machine::value;

/// Which of several ways to damage a state is taken; another one with `FIRSTBOOT_CUTS`.
pub fn seed_of_choice() -> u64 {
    let Some(number) = std::env::var_os("FIRSTBOOT_CUTS") else { return 1 };
    let parsed = number.to_str().and_then(|n| n.parse().ok());
    parsed.unwrap_or_else(|| panic!("FIRSTBOOT_CUTS={}: not a number", number.display()))
}

/// A recorded installation, and the device on which it is repeated.
pub struct Installation {
    pub device: Device,
    pub cuts: Vec<Cut>,
    pub end: Tree,
    pub flashed: Tree,
    pub cluster: Cluster,
    token: String,
    /// Secrets in the seeds of other devices on the card.
    others: Vec<String>,
    /// The first cut at which the cluster had the Node.
    registered: usize,
    _dir: tempfile::TempDir,
}

/// A seed with each table that becomes a file; three sectors long, and the token's secret spans two of them.
fn seed(plane: &ControlPlane, token: &str) -> String {
    let (id, secret) = token.split_once('.').unwrap();
    let head = |filler: &str| {
        let server = plane.endpoint_for_host();
        format!("version = 1\n# {filler}\n[cluster]\napiserver = \"{server}\"\ntoken = \"{id}.")
    };
    let head = head(&"-".repeat(512 - 8 - head("").len()));
    let pin = plane.ca_pin().unwrap();
    let mut text = format!(
        "{head}{secret}\"\nca-cert-hashes = [\"{pin}\"]\n[node]\nlabels = {{ \"shop\" = \"12\" }}\n[time]\nservers = \
         \"10.0.0.5\"\n[kubelet.config]\nmaxPods = 60\n[registries.\"docker.io\"]\nmirrors = \"https://10.0.0.6\"\n[access]\n\
         ssh-keys = \"{}\"\n[harden]\nmodules = \"sctp\"\n# ",
        e2e::UNUSED_KEY
    );
    text += &"-".repeat(1300 - text.len());
    text
}

impl Installation {
    /// Runs and records one installation.
    pub fn recorded(plane: &ControlPlane, serial: &str) -> Self {
        Self::recorded_with(plane, serial, 0)
    }

    /// The same of a device that takes its seed from a card with those of so many others; one has the same token.
    pub fn recorded_with(plane: &ControlPlane, serial: &str, others: usize) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let token = plane.create_token("1h").unwrap();
        let device = Device::flashed(dir.path(), serial, &seed(plane, &token)).unwrap();
        let secrets: Vec<String> = (0..others).map(|n| format!("{n:016}")).collect();
        if others > 0 {
            let own = device.boot.read("seed.toml").unwrap().unwrap();
            let text = String::from_utf8(own.clone()).unwrap();
            let of = |secret: &String| text.replace(secret_of(&token), secret).into_bytes();
            let mut seeds: Vec<(String, Vec<u8>)> =
                secrets.iter().enumerate().map(|(n, secret)| (format!("other-device-{n}.toml"), of(secret))).collect();
            seeds.insert(1, (format!("{}.toml", serial.to_uppercase()), own.clone()));
            seeds.push(("same-token.toml".into(), own));
            device.boot.destroy("seed.toml").unwrap();
            let seeds: Vec<_> = seeds.iter().map(|(name, bytes)| (name.clone(), &bytes[..])).collect();
            device.boot.write_seeds(&seeds).unwrap();
        }
        let flashed = tree::read(&device.root, &Tree::new()).unwrap();
        let recorder = Rc::new(Recorder::default());
        let (notes, noted) = (recorder.clone(), device.clone());
        let outcome = device.run(Boot { before: Box::new(move |what| notes.note(&noted, what)), ..Boot::default() });
        let outcome = outcome.unwrap();
        outcome.done.as_ref().unwrap_or_else(|fault| panic!("{fault}: {:#?}", outcome.lines));
        let cuts = recorder.end(&device).unwrap();
        let end = cuts.last().unwrap().state.tree.clone();
        let starts = |cut: &Cut| cut.what == "systemctl start kubelet.service";
        let registered = cuts.iter().position(starts).unwrap() + 1;
        let installation = Installation {
            device,
            cuts,
            end,
            flashed,
            cluster: Cluster::of(plane).unwrap(),
            token,
            others: secrets,
            registered,
            _dir: dir,
        };
        installation.completed(&outcome).unwrap();
        assert_eq!(installation.cluster.csrs_by(&installation.token).unwrap().len(), 1);
        pod_cidr(&installation.device.registered(&installation.cluster).unwrap().unwrap()).unwrap();
        installation
    }

    /// The ways in which the power may go at a cut.
    pub fn damages(&self, n: usize) -> Vec<Damage> {
        let mut random = fastrand::Rng::with_seed(seed_of_choice() << 32 | n as u64);
        damages(&self.cuts[n], self.cuts.get(n + 1), &mut || random.u64(..))
    }

    /// Restores a state on the device and in the cluster, then runs `act`. Returns what is wrong, one line each.
    pub fn from(&self, n: usize, state: &State, act: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        state.write_to(&self.device).unwrap();
        if n < self.registered {
            self.cluster.forget(&self.device.node()).unwrap();
        }
        let requests = self.cluster.csrs_by(&self.token).unwrap();
        let node = self.device.registered(&self.cluster).unwrap();
        let done = act();
        let mut wrong: Vec<String> = done.err().into_iter().collect();
        // The key, once it is in place, is what the request is known by.
        let tree = &self.cuts[n].state.tree;
        let keyed = ["var/lib/firstboot/join.key", "var/lib/kubelet/pki/kubelet-client-current.pem"];
        let keyed = keyed.iter().any(|path| tree.contains_key(*path));
        let mut new = self.cluster.csrs_by(&self.token).unwrap();
        new.retain(|name| !requests.contains(name));
        if new.len() > usize::from(!keyed) {
            wrong.push(format!("{} new signing requests", new.len()));
        }
        new.iter().for_each(|name| self.cluster.forget_csr(name).unwrap());
        if n >= self.registered {
            let now = self.device.registered(&self.cluster).unwrap();
            let uid = |node: &Option<serde_json::Value>| node.as_ref().map(|n| n["metadata"]["uid"].to_string());
            if uid(&now) != uid(&node) {
                wrong.push("another Node".to_owned());
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Resumes without faults up to the end, and compares the result with the installation that was not cut.
    pub fn resumes(&self, restart: bool) -> Result<(), String> {
        self.completed(&self.device.run(Boot { restart, ..Boot::default() }).map_err(|e| format!("{e:#}"))?)
    }

    pub fn completed(&self, outcome: &Outcome) -> Result<(), String> {
        let mut wrong = Vec::new();
        if let Err(fault) = &outcome.done {
            return Err(format!("{fault}\n{:#?}", outcome.lines));
        }
        let found = tree::read(&self.device.root, &self.end).unwrap();
        wrong.extend(differences(&self.end, &found));
        for secret in self.others.iter().map(String::as_str).chain([secret_of(&self.token)]) {
            let held = holding(&self.device, &found, secret).unwrap();
            if !held.is_empty() {
                wrong.push(format!("the token {secret} is in {held:?}"));
            }
        }
        if self.others.is_empty() != value(&outcome.status, "seeds destroyed").is_none() {
            wrong.push(format!("not as many seeds destroyed: {}", outcome.status));
        }
        if self.device.boot.seed().unwrap().is_some() || self.device.boot.has_seeds().unwrap() {
            wrong.push("the seed is still there".to_owned());
        }
        let state = value(&outcome.status, "state");
        if state != Some("joined") || value(&outcome.status, "error").is_some() || !outcome.kubelet {
            wrong.push(format!("status {state:?}, kubelet runs: {}", outcome.kubelet));
        }
        if self.device.registered(&self.cluster).unwrap().is_none() {
            wrong.push("no Node".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{:#?}", wrong.join("\n"), outcome.lines)) }
    }
}

/// Collects the failures and reports them at the end.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Records a failure. After 30 failures the test ends.
    pub fn note(&mut self, what: &str, result: Result<(), String>) {
        if let Err(why) = result {
            eprintln!("--- {what}\n{why}");
            self.0.push(what.to_owned());
        }
        self.tell(30);
    }

    pub fn tell(&self, most: usize) {
        let choice = seed_of_choice();
        assert!(self.0.len() < most.max(1), "FIRSTBOOT_CUTS={choice}\n{}", self.0.join("\n"));
    }
}
