// SPDX-License-Identifier: Apache-2.0
//! Seeds that firstboot accepts, given to the programs that finally read their values: does each of them take what it
//! gets, and read it as firstboot does?
//!
//! [`generate`] makes the seeds. [`judges`] has the Go programs: kubelet, containerd and Go's own proxy variables, by
//! their own packages (`tests/judge`). [`programs`] runs sshd, ssh-keygen, wpa_supplicant, systemd-networkd and nft.

pub mod generate;
pub mod judges;
pub mod programs;

use anyhow::{Context, Result};
use fastrand::Rng;
use firstboot::phases::configuration::{Configuration, Reader, configuration};
use firstboot::seed::{self, Seed};

/// Name of the node in all configurations.
pub const NODE: &str = "edge-1";
/// The one interface, where a seed uses one without naming it.
pub const INTERFACE: &str = "eth0";

/// A seed that firstboot accepts.
#[derive(Debug)]
pub struct Accepted {
    /// Its file.
    pub text: String,
    /// What firstboot reads.
    pub seed: Seed,
    /// What firstboot writes.
    pub files: Vec<Configuration>,
}

impl Accepted {
    /// Reads a seed; `None` when it is refused.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn read(text: &str) -> Result<Option<Self>> {
        let Ok(seed) = seed::parse(text.as_bytes()) else { return Ok(None) };
        let files = configuration(&seed, NODE, INTERFACE).context("write the configuration of a seed")?;
        Ok(Some(Accepted { text: text.to_owned(), seed, files }))
    }

    /// The files that `reader` reads, in order.
    pub fn of(&self, reader: Reader) -> impl Iterator<Item = &Configuration> {
        self.files.iter().filter(move |file| file.reader == reader)
    }
}

/// What came of a number of random seeds.
#[derive(Debug)]
pub struct Sample {
    /// Seeds that were made.
    pub made: u64,
    /// Those of them that firstboot accepts.
    pub accepted: u64,
    /// As many of the accepted ones as were asked for, each with the same chance.
    pub sample: Vec<Accepted>,
}

/// Makes `seeds` random seeds and keeps at most `keep` of those that are accepted (reservoir sampling). The same `start`
/// makes the same seeds.
///
/// # Errors
/// As [`Accepted::read`].
pub fn sample(start: u64, seeds: u64, keep: usize) -> Result<Sample> {
    let (mut rng, mut choose) = (Rng::with_seed(start), Rng::with_seed(!start));
    let (mut accepted, mut texts) = (0u64, Vec::new());
    for _ in 0..seeds {
        let text = generate::seed(&mut rng);
        if seed::parse(text.as_bytes()).is_err() {
            continue;
        }
        accepted += 1;
        if texts.len() < keep {
            texts.push(text);
        } else if let Some(at) = usize::try_from(choose.u64(..accepted)).ok().filter(|at| *at < keep) {
            texts[at] = text;
        }
    }
    let sample = texts.iter().map(|text| Accepted::read(text)).filter_map(Result::transpose).collect::<Result<_>>()?;
    Ok(Sample { made: seeds, accepted, sample })
}

/// A seed that a program refuses, or reads otherwise than firstboot.
#[derive(Debug)]
pub struct Finding {
    /// The program.
    pub program: &'static str,
    /// What it says, or how it differs.
    pub why: String,
    /// The seed's file.
    pub seed: String,
}

impl Finding {
    /// A finding about `accepted`.
    pub fn new(program: &'static str, why: impl Into<String>, accepted: &Accepted) -> Self {
        Finding { program, why: why.into(), seed: accepted.text.clone() }
    }
}
