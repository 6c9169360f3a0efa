// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed new --kubeconfig`: makes a token in the cluster, and a seed with it and with what the cluster says of
//! itself. The token goes again if the seed cannot be written.

use super::new::{self, Args, Cluster};
use crate::cluster::bootstrap_token::{self, Facts};
use crate::cluster::{Api, kubeconfig};
use anyhow::{Context, Result, anyhow, ensure};
use firstboot::kube::client::host_of;
use firstboot::kube::pin;
use firstboot::seed::Endpoint;
use firstboot::text::{timestamp, unix_seconds};
use std::path::Path;
use std::time::Duration;

/// Life of a token: long enough for the work with one batch of cards.
const TTL: Duration = Duration::from_secs(2 * 60 * 60);

/// Runs `imagebuild seed new --kubeconfig`.
pub fn main(args: &Args, file: Option<&Path>) -> Result<()> {
    // Also found when it is written; here it costs no token.
    ensure!(!args.out.exists(), "create {}: it exists already", args.out.display());
    let access = kubeconfig::access(file, args.context.as_deref())?;
    let api = Api::new(&access)?;
    let facts = bootstrap_token::facts(&api, &access.ca_pem, &access.server)?;
    let apiserver = match args.apiserver.is_empty() {
        true => vec![endpoint(&facts.server)?],
        false => args.apiserver.clone(),
    };
    let pins = pin::certificates(&facts.ca_pem).unwrap_or_default();
    let pins: Vec<String> = pins.iter().filter_map(|der| pin::pin_of(der)).map(|pin| pin.to_string()).collect();
    ensure!(!pins.is_empty(), "read the cluster's CA: it cannot be read");
    if let Some(node) = &args.node {
        bootstrap_token::check_binding(&api, node)?.iter().for_each(|text| warn(text));
    }
    let expires = facts.now + args.ttl.unwrap_or(TTL);
    let token = bootstrap_token::create(&api, args.node.as_deref(), expires)?;
    let id = token.id.clone();
    if facts.published && !token.is_signed()? {
        warn(&format!(
            "cluster-info is not signed for token {id}: no device joins before it is; kube-controller-manager does that with \
             its controller bootstrapsigner"
        ));
    }
    let ends = timestamp(unix_seconds(expires)).parse().with_context(|| format!("write the end of token {id}"))?;
    let Facts { ca_pem, published, .. } = facts;
    let cluster = Cluster {
        apiserver,
        token: token.token().to_string(),
        // Without cluster-info nothing can be held against a hash.
        ca_cert_hashes: if published { pins } else { Vec::new() },
        ca_cert: (!published).then_some(ca_pem),
        token_expires: Some(ends),
    };
    let text = new::assemble(args, cluster, args.node.clone().or(args.name.clone()), None)?;
    new::finish(args, &text)?;
    token.keep();
    if let Some(node) = &args.node {
        println!("token {id} gets one certificate, for node {node}, which has to be approved by one of:");
        println!("  the approver in the cluster:  imagebuild approver manifests --image NAME | kubectl apply -f -");
        println!("  the approver on this machine: imagebuild approver run --kubeconfig");
        println!(
            "  yourself, once:               kubectl certificate approve NAME, with the name that the device shows"
        );
    }
    Ok(())
}

/// `HOST:PORT` of a server's URL.
fn endpoint(server: &str) -> Result<String> {
    let shown = server.trim_start_matches("https://").trim_end_matches('/');
    ensure!(
        !shown.contains('/'),
        "read API server {shown} of the cluster: a seed has no path; give --apiserver HOST:PORT"
    );
    let endpoint = Endpoint::parse(&host_of(server));
    endpoint.map(|found| found.to_string()).map_err(|why| anyhow!("read API server {shown} of the cluster: {why}"))
}

fn warn(text: &str) {
    eprintln!("imagebuild: warning: {text}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_is_at_that_of_https() {
        assert_eq!(endpoint("https://api.example.com").unwrap(), "api.example.com:443");
        assert_eq!(endpoint("https://[fd00::1]:6443/").unwrap(), "[fd00::1]:6443");
        let error = endpoint("https://rancher.example.com/k8s/clusters/c1").unwrap_err().to_string();
        assert_eq!(
            error,
            "read API server rancher.example.com/k8s/clusters/c1 of the cluster: a seed has no path; give --apiserver HOST:PORT"
        );
    }
}
