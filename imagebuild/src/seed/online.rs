// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed check --online`: what a device would find at the seed's API servers, by the device's own code.

use crate::arch::Arch;
use crate::lock::Lock;
use crate::repo;
use anyhow::{Result, anyhow, bail, ensure};
use firstboot::fault::{Code, Owner};
use firstboot::kube::survey::{Row, State, Survey};
use firstboot::seed::SeedRequest;
use serde_json::json;
use std::path::Path;
use std::time::SystemTime;

/// Flags of `imagebuild seed check --online`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long, requires = "online")]
    json: bool,
    /// Kubernetes version of the image [default: the one that imagebuild build takes]
    #[arg(long, requires = "online")]
    kubernetes_version: Option<String>,
    /// Target of the image, for the command that builds another one [default: generic, this machine's architecture]
    #[arg(long, requires = "online")]
    target: Option<String>,
}

/// Runs `imagebuild seed check --online`.
///
/// # Errors
/// The seed is refused, or one check has failed.
pub fn main(file: &Path, args: &Args) -> Result<()> {
    let seeds = super::many::at(file)?;
    let [(_, bytes)] = &seeds[..] else {
        bail!("check {} online: it has {} seeds; name one of them", file.display(), seeds.len());
    };
    let rows = rows(bytes, args)?;
    let failed = rows.iter().filter(|row| row.state == State::Failed).count();
    match args.json {
        true => println!("{:#}", json!({ "file": file.display().to_string(), "good": failed == 0, "checks": rows })),
        false => rows.iter().for_each(|row| println!("{}", shown(row))),
    }
    let looked = rows.iter().filter(|row| row.state != State::Skipped).count();
    ensure!(failed == 0, "check {} online: {failed} of {looked} checks failed", file.display());
    Ok(())
}

/// The seed itself, then its API servers.
fn rows(bytes: &[u8], args: &Args) -> Result<Vec<Row>> {
    let row = |state, code: Option<Code>, text: String| {
        let owner = code.map(Code::owner);
        Row { server: String::new(), check: "seed", state, code, owner, text }
    };
    let refused = |error: firstboot::seed::Error| vec![row(State::Failed, Some(error.code), error.to_string())];
    let seed = match firstboot::seed::parse_request(bytes) {
        Ok(SeedRequest::Join(seed)) => seed,
        Ok(SeedRequest::Reset { .. }) => {
            return Ok(vec![row(State::Good, None, "it resets the device, and names no cluster".to_owned())]);
        }
        Err(error) => return Ok(refused(error)),
    };
    if let Err(error) = seed.check_dates(SystemTime::now()) {
        return Ok(refused(error));
    }
    let text = super::describe(&seed);
    let mut all = vec![row(State::Good, None, text.trim_start_matches("good: ").to_owned())];
    let version = kubelet(args)?;
    let target = match &args.target {
        Some(target) => target.clone(),
        None => format!("generic-{}", Arch::host()?),
    };
    let kubelet = version.as_deref().map(|version| (version, target.as_str()));
    let Some(cluster) = seed.join() else {
        all.push(row(State::Good, None, "it names no cluster to ask: the device creates one".to_owned()));
        return Ok(all);
    };
    let survey = Survey { cluster, via: &seed.network.via, kubelet, now: SystemTime::now() };
    all.extend(survey.run().map_err(|fault| anyhow!("{}: {fault}", fault.code))?);
    Ok(all)
}

/// The kubelet of an image: the one that was asked for, or what this clone builds by default.
fn kubelet(args: &Args) -> Result<Option<String>> {
    let Ok(root) = repo::root() else { return Ok(args.kubernetes_version.clone()) };
    let lock = Lock::read(&root.join(crate::lock::FILE))?;
    let minor = lock.minor(args.kubernetes_version.as_deref())?;
    Ok(Some(lock.component("kubelet", &minor)?.version.trim_start_matches('v').to_owned()))
}

/// One line, or the words of a failure behind its owner.
fn shown(row: &Row) -> String {
    let state = match row.state {
        State::Good => "good",
        State::Failed => "FAILED",
        State::Skipped => "skipped",
    };
    let server = if row.server.is_empty() { String::new() } else { format!("{}  ", row.server) };
    let who = match (row.owner, row.code) {
        (Some(owner), Some(code)) => format!("{}, {code}: ", owner_word(owner)),
        _ => String::new(),
    };
    format!("{state:<8} {server}{:<15} {who}{}", row.check, row.text)
}

fn owner_word(owner: Owner) -> &'static str {
    owner.word()
}
