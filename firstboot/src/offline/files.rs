// SPDX-License-Identifier: Apache-2.0
//! What `offline = true` writes: the cache's settings, its certificate, and a kubeconfig that leads kubelet to it.
//!
//! kubelet.conf is left alone: kubeadm and firstboot itself reach the API server by it, whatever becomes of the cache.

use std::path::PathBuf;

use anyhow::{Context, Result};
use apicache::config::Config;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use crate::host::Host;
use crate::kube::client::host_of;
use crate::kube::kubeconfig::kubelet_conf;
use crate::kube::pin;
use crate::node::client::cluster;
use crate::seed::Seed;

/// The settings, which the phase `kubelet` writes.
pub const CONFIG: &str = "/etc/firstboot/offline.json";
/// kubelet's way to the cache, beside kubelet.conf, which stays as kubeadm knows it.
pub const KUBECONFIG: &str = "/etc/firstboot/offline/kubelet.conf";
/// Where the cache publishes its state.
pub(super) const STATUS: &str = "/run/firstboot-cache/status.json";
/// The unit of the cache.
pub(crate) const UNIT: &str = "firstboot-cache.service";
/// The certificate and key of its port. The certificate vouches for nothing but itself.
const SERVING: &str = "/etc/firstboot/offline/serving.pem";
/// Its port on loopback.
const PORT: u16 = 16_443;
/// All of these.
const ALL: [&str; 3] = [KUBECONFIG, CONFIG, SERVING];
/// Of all files.
const MODE: u32 = 0o600;

/// Host of an address `HOST:PORT`, without the brackets of IPv6.
fn host_name(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The certificate that is there, if it is for this name.
fn serving(host: &Host, name: &str) -> Result<Option<String>> {
    let Some(pem) = host.read_utf8(SERVING)? else { return Ok(None) };
    let leaf = pin::certificates(&pem).and_then(|chain| chain.into_iter().next());
    let covers = leaf.is_some_and(|der| {
        let name = ServerName::try_from(name);
        let parsed = ParsedCertificate::try_from(&der);
        matches!((name, parsed), (Ok(name), Ok(parsed)) if verify_server_name(&parsed, &name).is_ok())
    });
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).is_ok();
    Ok((covers && key).then_some(pem))
}

/// What is to be there with this certificate: path and content.
fn files(host: &Host, seed: &Seed, serving: &str) -> Result<[(&'static str, String); 2]> {
    let (server, ca) = cluster(host)?;
    let first = host_of(&server);
    let name = host_name(&first).to_owned();
    let mut servers = vec![first];
    for endpoint in &seed.cluster.apiserver {
        let other = endpoint.to_string();
        if !servers.contains(&other) {
            servers.push(other);
        }
    }
    // Names without a directory are those of the unit's credentials.
    let config = Config {
        listen: ([127, 0, 0, 1], PORT).into(),
        servers,
        server_name: name.clone(),
        ca: PathBuf::from("ca.pem"),
        node: PathBuf::from("node.pem"),
        serving: PathBuf::from("serving.pem"),
        state: PathBuf::from("/var/lib/firstboot-cache"),
        status: Some(PathBuf::from(STATUS)),
        secrets: seed.node.offline_secrets,
    };
    let settings = serde_json::to_string(&config).context("encode the settings of the cache")? + "\n";
    let certificate = serving.split("-----BEGIN PRIVATE KEY").next().unwrap_or_default();
    let url = format!("https://127.0.0.1:{PORT}");
    let line = format!("    server: {url}\n");
    // Both are trusted: when the cache fails, the same port leads to the API server itself.
    let conf = kubelet_conf(&url, &format!("{}\n{certificate}", ca.trim_end()));
    let conf = conf.replace(&line, &format!("{line}    tls-server-name: {name}\n"));
    Ok([(CONFIG, settings), (KUBECONFIG, conf)])
}

/// Whether what the seed says is there.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn holds(host: &Host, seed: &Seed) -> Result<bool> {
    if !seed.node.offline {
        for path in ALL {
            if host.size_and_mode(path)?.is_some() {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let (server, _) = cluster(host)?;
    let Some(serving) = serving(host, host_name(&host_of(&server)))? else { return Ok(false) };
    for (path, text) in files(host, seed, &serving)? {
        if host.read(path)?.as_deref() != Some(text.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes it, or takes it away, and starts or stops the cache; whether that changed anything.
///
/// # Errors
/// A file cannot be written; the unit does not start.
pub(crate) fn put(host: &Host, seed: &Seed) -> Result<bool> {
    if holds(host, seed)? {
        if seed.node.offline {
            host.start_unit(UNIT)?;
        }
        return Ok(false);
    }
    if !seed.node.offline {
        // The port stays until kubelet is started again, by the caller, with another kubeconfig.
        for path in ALL {
            host.remove(path)?;
        }
        host.run(&["systemctl", "--no-block", "stop", UNIT])?;
        return Ok(true);
    }
    let (server, _) = cluster(host)?;
    let name = host_name(&host_of(&server)).to_owned();
    let pem = match serving(host, &name)? {
        Some(pem) => Zeroizing::new(pem),
        None => {
            let made = rcgen::generate_simple_self_signed([name, "127.0.0.1".to_owned()]);
            let made = made.context("make a certificate for the cache")?;
            let key = Zeroizing::new(made.signing_key.serialize_pem());
            let pem = Zeroizing::new(format!("{}{}", made.cert.pem(), *key));
            host.write(SERVING, pem.as_bytes(), MODE)?;
            pem
        }
    };
    for (path, text) in files(host, seed, &pem)? {
        host.write(path, text.as_bytes(), MODE)?;
    }
    host.start_unit(UNIT)?;
    // One that ran already has read other settings.
    host.run(&["systemctl", "restart", UNIT])?;
    Ok(true)
}
