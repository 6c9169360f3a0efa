// SPDX-License-Identifier: Apache-2.0
//! The seed's proxy for containerd and kubelet: one file of environment variables that both units read.
//!
//! A file rather than `Environment=` in a drop-in: what stands in a unit anybody may ask systemd for, and the proxy's
//! URL may hold a password; the file is root's alone.
//!
//! kubelet goes through the proxy as well, because it talks to the same API server as the join, which was reached
//! through it. An API server on the near side of the proxy goes into `no-proxy`, for both.

use crate::host::Host;
use crate::host::managed_files::{self, File};
use crate::journal::facts::Fact;
use crate::paths::{PROXY_ENV, SETTINGS};
use crate::proxy::{Direct, Proxy, Via};
use anyhow::Result;
use zeroize::Zeroizing;

/// This device itself and its link: no proxy leads there.
const LOCAL: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10";

/// The proxy of an earlier seed, as the file has it: for requests to the API server when the seed is gone.
///
/// # Errors
/// The file cannot be read, or no longer holds what firstboot wrote.
pub(crate) fn kept(host: &Host) -> Result<Via> {
    let Some(text) = host.read_text(PROXY_ENV)?.map(Zeroizing::new) else { return Ok(Via::default()) };
    let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
    let broken = |why| anyhow::anyhow!("read {PROXY_ENV}: {why}");
    let proxy = value("HTTPS_PROXY").map(Proxy::parse).transpose().map_err(broken)?;
    let direct = value("NO_PROXY").unwrap_or_default().split(',').filter(|d| !d.is_empty());
    Ok(Via { proxy, direct: direct.map(Direct::parse).collect::<Result<_, _>>().map_err(broken)? })
}

/// Whether containerd and kubelet find what the seed says.
pub(crate) fn holds(host: &Host, via: &Via) -> Result<bool> {
    managed_files::hold(host, &files(&networks(host), via), &[SETTINGS])
}

/// Writes what the seed says; whether that changed anything.
pub(crate) fn put(host: &Host, via: &Via) -> Result<bool> {
    Ok(managed_files::put(host, &files(&networks(host), via), &[SETTINGS])? != managed_files::Changes::default())
}

/// The cluster's own ranges, joined by commas; empty before the join.
fn networks(host: &Host) -> String {
    host.journal().fact(Fact::ClusterNetworks).unwrap_or_default().to_owned()
}

/// The file for a cluster whose own ranges are `networks`, joined by commas; none without a proxy.
pub(crate) fn files(networks: &str, via: &Via) -> Vec<File> {
    let Some(proxy) = &via.proxy else { return Vec::new() };
    let url = proxy.url();
    let mut direct = vec![LOCAL];
    // Pods and Services are inside the cluster: image registries and webhooks that run there are reached from here. They
    // are known only after the join, so the file is written once more then.
    direct.extend(networks.split(',').filter(|n| !n.is_empty()));
    direct.extend(via.direct.iter().map(|d| d.as_str()));
    let direct = direct.join(",");
    // Quoted as systemd.exec(5) has it; a URL holds no quotation mark and no backslash, they are percent-encoded.
    let text = Zeroizing::new(format!("HTTP_PROXY=\"{}\"\nHTTPS_PROXY=\"{}\"\nNO_PROXY=\"{direct}\"\n", *url, *url));
    vec![File::secret(PROXY_ENV, &text)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;
    use crate::journal::Record;

    #[test]
    fn the_file_follows_the_seed_and_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert!(holds(&host, &Via::default()).unwrap());
        let via = Via {
            proxy: Some(Proxy::parse("http://user:p%22ss@proxy:3128").unwrap()),
            direct: vec![Direct::parse("10.9.0.0/16").unwrap()],
        };
        assert!(put(&host, &via).unwrap());
        assert!(holds(&host, &via).unwrap() && !put(&host, &via).unwrap());
        assert_eq!(host.size_and_mode(PROXY_ENV).unwrap().unwrap().1, 0o600);
        let networks =
            Record::Fact { name: Fact::ClusterNetworks, value: "10.244.0.0/16,fd00::/108,10.96.0.0/12".into() };
        host.record(networks).unwrap();
        assert!(!holds(&host, &via).unwrap());
        assert!(put(&host, &via).unwrap());
        assert_eq!(
            host.read_text(PROXY_ENV).unwrap().unwrap(),
            "# Written by firstboot.\nHTTP_PROXY=\"http://user:p%22ss@proxy:3128\"\n\
             HTTPS_PROXY=\"http://user:p%22ss@proxy:3128\"\n\
             NO_PROXY=\"localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,10.244.0.0/16,fd00::/108,10.96.0.0/12,\
             10.9.0.0/16\""
        );
        let kept = kept(&host).unwrap();
        assert_eq!(kept.proxy, via.proxy);
        assert!(kept.proxy_for("10.96.0.1", 443).is_none() && kept.proxy_for("192.0.2.1", 443).is_some());
        assert!(!holds(&host, &Via::default()).unwrap());
        assert!(put(&host, &Via::default()).unwrap());
        assert_eq!(host.read(PROXY_ENV).unwrap(), None);
    }
}
