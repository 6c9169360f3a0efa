// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed new --kubeconfig`: makes a token in the cluster, and a seed with it and with what the cluster says of
//! itself. The token goes again if the seed cannot be written.

use super::new::{self, Args};
use crate::cluster::table::{Cluster, Known};
use crate::cluster::{Api, bootstrap_token, kubeconfig};
use crate::progress::warn;
use anyhow::{Result, ensure};
use std::path::Path;

/// Runs `imagebuild seed new --kubeconfig`.
pub fn main(args: &Args, file: Option<&Path>) -> Result<()> {
    // Also found when it is written; here it costs no token.
    ensure!(!args.out.exists(), "create {}: it exists already", args.out.display());
    let access = kubeconfig::access(file, args.context.as_deref())?;
    let api = Api::new(&access)?;
    let known = Known::of(&api, &access, &args.apiserver, args.ttl)?;
    if let Some(node) = &args.node {
        bootstrap_token::check_binding(&api, node)?.iter().for_each(|text| warn(text));
    }
    let token = bootstrap_token::create(&api, args.node.as_deref(), known.expires)?;
    let id = token.id.clone();
    if let Some(text) = known.unsigned(&token)? {
        warn(&text);
    }
    let cluster = Cluster { token: token.token().to_string(), ..known.table };
    let text = new::assemble(args, cluster, args.node.clone().or(args.name.clone()), None, known.open)?;
    new::finish(args, &text, || token.keep())?;
    if let Some(node) = &args.node {
        println!("{}", bootstrap_token::approval(&format!("token {id} gets one certificate, for node {node}")));
    }
    Ok(())
}
