// SPDX-License-Identifier: Apache-2.0
//! Collects the secrets on this device, so that they can be removed from the output of other programs. They are read
//! from the files that contain them and exist only in memory.

use super::redact::DeviceSecrets;
use crate::host::{Host, STATE_DIR};
use crate::paths::{KUBELET_CONF, PKI, PROXY_ENV, REGISTRIES};
use crate::seed;
use crate::unescape::resolved;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Directories of files with `psk=…` and similar lines: wpa_supplicant's, NetworkManager's.
const WIFI_DIRS: [&str; 2] = ["/etc/wpa_supplicant", "/etc/NetworkManager/system-connections"];
/// Keys of secrets in those files.
const WIFI_KEYS: [&str; 4] = ["psk", "sae_password", "password", "wep-key0"];
/// Directories of private keys.
const KEY_DIRS: [&str; 3] = [PKI, "/etc/ssh", STATE_DIR];

/// Collects the secrets in the device's files and in `seed`. Unreadable files are skipped: they cannot leak either.
pub fn collect_secrets(host: &Host, seed: Option<&[u8]>) -> DeviceSecrets {
    let mut secrets = DeviceSecrets::default();
    if let Some(seed) = seed.and_then(|bytes| seed::parse(bytes).ok()) {
        if let Some(token) = seed.token() {
            secrets.add(token.secret());
        }
        if let Some(password) = seed.network.wifi.as_ref().and_then(|wifi| wifi.password.as_ref()) {
            secrets.add(password.expose());
        }
        if let Some(proxy) = &seed.network.via.proxy {
            add_credentials(&mut secrets, &proxy.url());
        }
        for auth in seed.registries.iter().filter_map(|registry| registry.auth.as_ref()) {
            add_basic(&mut secrets, auth.expose());
        }
    }
    let read = |path: &str| host.read(path).ok().flatten().map(|b| String::from_utf8_lossy(&b).into_owned());
    let in_dir = |dir: &str| {
        let names = host.list(dir).unwrap_or_default();
        names.into_iter().map(|name| format!("{dir}/{name}")).collect::<Vec<_>>()
    };
    for text in WIFI_DIRS.iter().flat_map(|f| in_dir(f)).filter_map(|path| read(&path)) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if WIFI_KEYS.contains(&key.trim()) {
                add_value(&mut secrets, value.trim());
            }
        }
    }
    for line in read(PROXY_ENV).iter().flat_map(|text| text.lines()) {
        add_credentials(&mut secrets, line);
    }
    for text in in_dir(REGISTRIES).into_iter().filter_map(|directory| read(&format!("{directory}/hosts.toml"))) {
        for auth in text.lines().filter_map(|line| line.strip_prefix("Authorization = \"Basic ")?.strip_suffix('"')) {
            add_basic(&mut secrets, auth);
        }
    }
    let keys = KEY_DIRS.iter().flat_map(|f| in_dir(f)).chain([KUBELET_CONF.to_owned()]);
    // Other files of firstboot in these directories contain no key; reading them costs little.
    for text in keys.filter(|path| !path.ends_with("/journal")).filter_map(|path| read(&path)) {
        secrets.add_keys(&text);
    }
    secrets
}

/// Adds a value without its quotes, and the same with GLib's escapes resolved.
fn add_value(secrets: &mut DeviceSecrets, value: &str) {
    let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
    secrets.add(bare);
    secrets.add(&bare.replace("\\s", " ").replace("\\\\", "\\"));
    // The notation in a log or a JSON document.
    secrets.add(&bare.replace('\\', "\\\\").replace('"', "\\\""));
}

/// Adds `USER:PASSWORD` in base64 (RFC 7617) and the password itself.
fn add_basic(secrets: &mut DeviceSecrets, auth: &str) {
    secrets.add(auth);
    let whole = Zeroizing::new(STANDARD.decode(auth).unwrap_or_default());
    let whole = Zeroizing::new(String::from_utf8_lossy(&whole).into_owned());
    if let Some((_, password)) = whole.split_once(':') {
        secrets.add(password);
        // The notation in a log or a JSON document.
        secrets.add(&password.replace('\\', "\\\\").replace('"', "\\\""));
    }
}

/// Adds the password of a URL, or the user part where there is no password, verbatim and percent-decoded. A user name
/// beside a password is no secret, and often also a common word.
fn add_credentials(secrets: &mut DeviceSecrets, url: &str) {
    let who = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(who, _)| who);
    if let Some(secret) = who.and_then(|who| who.splitn(2, ':').last()) {
        secrets.add(secret);
        // RFC 3986, 2.1.
        secrets.add(&resolved(secret, b'%', 2, 16));
    }
}
