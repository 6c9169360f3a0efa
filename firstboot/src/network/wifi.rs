// SPDX-License-Identifier: Apache-2.0
//! Configuration of wpa_supplicant, which joins a Wi-Fi network where systemd-networkd configures the addresses:
//! wpa_supplicant.conf(5). Pure.

use crate::host::managed_files::File;
use crate::seed::{Security, Wifi};
use std::fmt::Write;
use zeroize::Zeroizing;

/// Directory of the configuration.
pub(crate) const DIR: &str = "/etc/wpa_supplicant";
/// The unit of one interface.
pub(crate) const UNIT_FILE: &str = "/usr/lib/systemd/system/wpa_supplicant@.service";
/// Sets the country of the Wi-Fi driver before wpa_supplicant or NetworkManager runs.
pub(crate) const COUNTRY_FILE: &str = "/etc/modprobe.d/firstboot-wifi.conf";

/// Path of the configuration for one interface, where the unit looks for it.
pub(crate) fn path(interface: &str) -> String {
    format!("{DIR}/wpa_supplicant-{interface}.conf")
}

/// The interface that the configuration at `path` belongs to.
pub(crate) fn interface_of(path: &str) -> Option<&str> {
    path.strip_prefix(DIR)?.strip_prefix("/wpa_supplicant-")?.strip_suffix(".conf")
}

/// The configuration for one interface; it contains the passphrase.
pub(crate) fn file(wifi: &Wifi, interface: &str) -> File {
    let (methods, protected) = match wifi.security {
        Security::Both => ("WPA-PSK WPA-PSK-SHA256 SAE", 1),
        Security::Wpa2 => ("WPA-PSK WPA-PSK-SHA256", 1),
        // WPA3 demands protected management frames.
        Security::Wpa3 => ("SAE", 2),
        Security::Open => ("NONE", 0),
    };
    let mut text = Zeroizing::new(String::new());
    let _ = write!(
        text,
        "country={}\n# Either way of deriving the password element (WPA3 on 6 GHz has one only).\nsae_pwe=2\n\n\
         network={{\n\tssid={}\n",
        wifi.country,
        ssid(&wifi.ssid),
    );
    if wifi.hidden {
        *text += "\t# Hidden networks are found by probe requests.\n\tscan_ssid=1\n";
    }
    let _ = write!(text, "\tkey_mgmt={methods}\n\tieee80211w={protected}\n");
    if let Some(password) = &wifi.password {
        // A key stands without quotation marks, a passphrase in them, whatever characters it has.
        let mark = if Wifi::is_key(password) { "" } else { "\"" };
        let _ = writeln!(text, "\tpsk={mark}{}{mark}", password.expose());
    }
    *text += "}\n";
    File::secret(path(interface), &text)
}

/// The country whose rules the Wi-Fi driver starts with.
pub(crate) fn country_file(wifi: &Wifi) -> File {
    File::public(COUNTRY_FILE, &format!("options cfg80211 ieee80211_regdom={}\n", wifi.country))
}

/// An SSID of plain characters in quotes; any other as hexadecimal bytes.
fn ssid(name: &str) -> String {
    match is_plain(name) {
        true => format!("\"{name}\""),
        false => name.bytes().map(|b| format!("{b:02x}")).collect(),
    }
}

/// Whether an SSID means the same in every file format: letters, digits, `-` and `_`, at least one letter.
pub(crate) fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && name.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn wifi(ssid: &str, security: Security) -> Wifi {
        let password = Some(Secret::new("it's #1 \"\\secret".to_owned()));
        Wifi { ssid: ssid.into(), password, country: "DE".into(), security, hidden: true }
    }

    #[test]
    fn wifi_configuration_word_by_word() {
        let file = file(&wifi("Shop-12", Security::Both), "wlan0");
        assert_eq!((file.path.as_str(), file.mode), ("/etc/wpa_supplicant/wpa_supplicant-wlan0.conf", 0o600));
        assert_eq!(
            *file.text,
            "# Written by firstboot.\ncountry=DE\n\
             # Either way of deriving the password element (WPA3 on 6 GHz has one only).\nsae_pwe=2\n\n\
             network={\n\tssid=\"Shop-12\"\n\t# Hidden networks are found by probe requests.\n\
             \tscan_ssid=1\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\
             \tpsk=\"it's #1 \"\\secret\"\n}\n"
        );
        assert_eq!(interface_of(&file.path), Some("wlan0"));
        assert_eq!(interface_of("/etc/wpa_supplicant/other.conf"), None);
    }

    #[test]
    fn other_ssids_are_written_as_bytes() {
        let text = |name, security| file(&wifi(name, security), "w").text.to_string();
        assert!(text("Café 1", Security::Wpa2).contains("\tssid=436166c3a92031\n"));
        assert!(text("12", Security::Wpa2).contains("\tssid=3132\n"));
        assert!(text("a\"b", Security::Wpa3).contains("\tssid=612262\n"));
        assert!(text("a", Security::Wpa3).contains("\tkey_mgmt=SAE\n\tieee80211w=2\n"));
    }

    #[test]
    fn a_key_and_an_open_network() {
        let key = Wifi {
            password: Some(Secret::new("0123456789abcdef".repeat(4))),
            hidden: false,
            ..wifi("a", Security::Wpa2)
        };
        assert!(file(&key, "w").text.ends_with(
            "network={\n\tssid=\"a\"\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256\n\tieee80211w=1\n\
                 \tpsk=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n}\n"
        ));
        let open = Wifi { password: None, hidden: false, ..wifi("a", Security::Open) };
        let end = "network={\n\tssid=\"a\"\n\tkey_mgmt=NONE\n\tieee80211w=0\n}\n";
        assert!(file(&open, "w").text.ends_with(end));
    }
}
