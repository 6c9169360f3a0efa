// SPDX-License-Identifier: Apache-2.0
//! `kubeconfig::read`: what it gives can be used, and comes back unchanged out of the kubelet.conf written from it.

use firstboot::kube::{client, kubeconfig, pin};
use reqwest::Url;

pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(info) = kubeconfig::read(text) else { return };
    let url = Url::parse(&info.server).expect("the server is a URL");
    assert_eq!(url.scheme(), "https");
    assert!(url.host_str().is_some_and(|h| !h.is_empty()), "the server has a host");
    assert!(!info.server.ends_with('/'));
    let host = client::host_of(&info.server);
    assert!(!host.chars().any(|c| c.is_control() || c.is_whitespace()), "{host:?}");
    assert!(!info.ca_pem.is_empty());
    if let Some(all) = pin::certificates(&info.ca_pem) {
        assert!(info.ca_pem.contains("-----BEGIN CERTIFICATE-----") && !all.is_empty());
    }
    let written = kubeconfig::kubelet_conf(&info.server, &info.ca_pem);
    assert_eq!(kubeconfig::read(&written).as_ref(), Ok(&info), "kubelet.conf says something else:\n{written}");
}
