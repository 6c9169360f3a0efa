// SPDX-License-Identifier: Apache-2.0
//! The secrets that this device knows, so that they can be taken out of what other programs wrote. They are read from the
//! files that hold them and kept in memory alone.

use super::redact::Known;
use crate::host::{Host, STATE_DIR};
use crate::kube::files::{KUBELET_CONF, PKI};
use crate::seed;
use crate::unescape::resolved;

/// Folders of files with `psk=…` and the like: wpa_supplicant's, NetworkManager's.
const RADIO: [&str; 2] = ["/etc/wpa_supplicant", "/etc/NetworkManager/system-connections"];
/// Words before a secret in those files.
const RADIO_KEYS: [&str; 4] = ["psk", "sae_password", "password", "wep-key0"];
const PROXY: &str = "/etc/firstboot/proxy.env";
/// Folders of private keys.
const KEYS: [&str; 3] = [PKI, "/etc/ssh", STATE_DIR];

/// Everything secret in the device's files and in `seed`. What cannot be read holds nothing that could leak from it here.
pub fn known(host: &Host, seed: Option<&[u8]>) -> Known {
    let mut known = Known::default();
    if let Some(seed) = seed.and_then(|bytes| seed::parse(bytes).ok()) {
        known.add(seed.cluster.token.secret());
        if let Some(wifi) = &seed.network.wifi {
            known.add(wifi.password.expose());
        }
        if let Some(proxy) = &seed.network.via.proxy {
            add_credentials(&mut known, &proxy.url());
        }
    }
    let read = |path: &str| host.read(path).ok().flatten().map(|b| String::from_utf8_lossy(&b).into_owned());
    let in_folder = |folder: &str| {
        let names = host.list(folder).unwrap_or_default();
        names.into_iter().map(|name| format!("{folder}/{name}")).collect::<Vec<_>>()
    };
    for text in RADIO.iter().flat_map(|f| in_folder(f)).filter_map(|path| read(&path)) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if RADIO_KEYS.contains(&key.trim()) {
                add_value(&mut known, value.trim());
            }
        }
    }
    for line in read(PROXY).iter().flat_map(|text| text.lines()) {
        add_credentials(&mut known, line);
    }
    let keys = KEYS.iter().flat_map(|f| in_folder(f)).chain([KUBELET_CONF.to_owned()]);
    // firstboot's own files in between are read for nothing; none of them is large.
    for text in keys.filter(|path| !path.ends_with("/journal")).filter_map(|path| read(&path)) {
        known.add_keys(&text);
    }
    known
}

/// A value as it stands in the file, without its quotes, and with GLib's escapes resolved.
fn add_value(known: &mut Known, value: &str) {
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    known.add(bare);
    known.add(&bare.replace("\\s", " ").replace("\\\\", "\\"));
    // As a log or a JSON document would show it.
    known.add(&bare.replace('\\', "\\\\").replace('"', "\\\""));
}

/// The password of a URL, or what stands in its place, as it is there and with percent signs resolved. A user name is no
/// secret, and often a word that other things have for a name.
fn add_credentials(known: &mut Known, url: &str) {
    let who = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(who, _)| who);
    if let Some(secret) = who.and_then(|who| who.splitn(2, ':').last()) {
        known.add(secret);
        // RFC 3986, 2.1.
        known.add(&resolved(secret, b'%', 2, 16));
    }
}
