// SPDX-License-Identifier: Apache-2.0
//! What `offline = true` writes: the cache's settings, its certificate, and a kubeconfig that leads kubelet to it.
//!
//! kubelet.conf is left alone: kubeadm and firstboot itself reach the API server by it, whatever becomes of the cache.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use apicache::config::{Config, certificate_pem};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use zeroize::Zeroizing;

use crate::host::Host;
use crate::journal::facts::Fact;
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
/// Its port, on loopback and at the address of Service `kubernetes`.
pub(crate) const PORT: u16 = 16_443;
/// All of these.
const ALL: [&str; 3] = [KUBECONFIG, CONFIG, SERVING];
/// Of all files.
const MODE: u32 = 0o600;

/// Host of an address `HOST:PORT`, without the brackets of IPv6.
fn host_name(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The address of Service `kubernetes`, as the join recorded it.
fn api_service(host: &Host) -> Option<IpAddr> {
    host.journal().fact(Fact::ApiService).and_then(|address| address.parse().ok())
}

/// The address of Service `kubernetes` where the cache answers for it; none where it does not, or does not run.
///
/// # Errors
/// The settings cannot be read. What is in them and is none counts as nothing.
pub(crate) fn service(host: &Host) -> Result<Option<IpAddr>> {
    let config = host.read(CONFIG)?.and_then(|text| serde_json::from_slice::<Config>(&text).ok());
    Ok(config.and_then(|config| config.service))
}

/// By which names clients find the cache: kubelet by the API server's, pods by those of Service `kubernetes`.
fn names(host: &Host) -> Result<Vec<String>> {
    let (server, _) = cluster(host)?;
    let mut names = vec![host_name(&host_of(&server)).to_owned(), "127.0.0.1".to_owned()];
    names.extend(api_service(host).map(|address| address.to_string()));
    names.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned));
    Ok(names)
}

/// The certificate that is there, if it is for these names.
fn serving(host: &Host, names: &[String]) -> Result<Option<String>> {
    let Some(pem) = host.read_utf8(SERVING)? else { return Ok(None) };
    let leaf = pin::certificates(&pem).and_then(|chain| chain.into_iter().next());
    let covers = leaf.is_some_and(|der| {
        let parsed = ParsedCertificate::try_from(&der);
        let covered = |name: &String| {
            let name = ServerName::try_from(name.as_str());
            matches!((name, &parsed), (Ok(name), Ok(parsed)) if verify_server_name(parsed, &name).is_ok())
        };
        names.iter().all(covered)
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
    for endpoint in seed.servers() {
        let other = endpoint.to_string();
        if !servers.contains(&other) {
            servers.push(other);
        }
    }
    // Names without a directory are those of the unit's credentials.
    let config = Config {
        listen: ([127, 0, 0, 1], PORT).into(),
        service: api_service(host),
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
    let certificate = certificate_pem(serving);
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
    let Some(serving) = serving(host, &names(host)?)? else { return Ok(false) };
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
    let names = names(host)?;
    let pem = match serving(host, &names)? {
        Some(pem) => Zeroizing::new(pem),
        None => {
            let made = rcgen::generate_simple_self_signed(names);
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
