// SPDX-License-Identifier: Apache-2.0
//! Seeds of a table with tokens that the cluster makes: one for each device, for its node alone. A stolen card is then worth
//! one node name, and nothing once the device has joined.

use super::make::{self, Device};
use crate::cluster::bootstrap_token::{self, Created, ttl};
use crate::cluster::table::Known;
use crate::cluster::{Access, Api, kubeconfig};
use crate::progress::{self, warn};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags that say by which cluster tokens are made.
#[derive(Debug, clap::Args)]
pub struct Flags {
    /// Make a token for each device, bound to its node, by a kubeconfig; without a value those of KUBECONFIG, or
    /// ~/.kube/config. CA and API server are the cluster's own
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    kubeconfig: Option<Option<PathBuf>>,
    /// Context of the kubeconfig, in place of the current one
    #[arg(long, requires = "kubeconfig", value_name = "NAME")]
    context: Option<String>,
    /// Life of the tokens: 2h, 90m … [default: 2h]
    #[arg(long, requires = "kubeconfig", value_parser = ttl)]
    ttl: Option<Duration>,
}

impl Flags {
    /// The cluster that is asked for tokens; none where the seeds bring their own.
    ///
    /// # Errors
    /// A kubeconfig that cannot be used.
    pub fn cluster(&self) -> Result<Option<Fleet>> {
        let Some(file) = &self.kubeconfig else { return Ok(None) };
        let access = kubeconfig::access(file.as_deref(), self.context.as_deref())?;
        Ok(Some(Fleet { api: Api::new(&access)?, access, ttl: self.ttl }))
    }
}

/// The cluster of a fleet.
pub struct Fleet {
    api: Api,
    access: Access,
    ttl: Option<Duration>,
}

impl Fleet {
    /// The devices of a table, and a token for each, which is deleted again unless it is [kept](Created::keep).
    ///
    /// # Errors
    /// Everything that is wrong with the table, before any token is made; a cluster that makes none, or that does not keep
    /// one to its node.
    pub fn devices(&self, csv: &Path, base: Option<&Path>) -> Result<(Vec<Device>, Vec<Created<'_>>)> {
        let known = Known::of(&self.api, &self.access, &[], self.ttl)?;
        let mut devices = make::devices_of(csv, base, &known.table)?;
        if let Some(name) = devices.first().and_then(|device| device.name.as_deref()) {
            bootstrap_token::check_binding(&self.api, name)?.iter().for_each(|text| warn(text));
        }
        let what = format!("{} tokens in the cluster", devices.len());
        let tokens: Vec<Created<'_>> =
            progress::step(&what, || devices.iter_mut().map(|device| self.bind(device, &known)).collect())?;
        // The last one alone: the cluster signs them in turn.
        if let Some(token) = tokens.last()
            && let Some(text) = known.unsigned(token)?
        {
            warn(&text);
        }
        Ok((devices, tokens))
    }

    /// Makes a device's token and puts it into its seed, with what else the cluster needs there.
    fn bind(&self, device: &mut Device, known: &Known) -> Result<Created<'_>> {
        let name = device.name.as_deref().context("find the node name of a device")?;
        let name = bootstrap_token::node_name(name).map_err(anyhow::Error::msg)?;
        let token = bootstrap_token::create(&self.api, Some(&name), known.expires)?;
        device.set_token(&token.token(), &known.open)?;
        Ok(token)
    }
}
