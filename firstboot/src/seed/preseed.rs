// SPDX-License-Identifier: Apache-2.0
//! `rpi-preseed.toml`, which Raspberry Pi Imager writes beside a seed: host name, Wi-Fi and SSH keys complete the seed, whose
//! own words take precedence (rpi-preseed's schema, `config_version` 1.0). Accounts' passwords, keyboards and the like are not
//! for a node: those keys are left alone. Pure.
//!
//! Messages say what was expected, never what was found.

use super::access::{self, Access};
use super::text::decode;
use super::wifi::{self, Security, Wifi};
use super::{NodeName, Seed, SshKey};
use crate::fault::{Code, Fault};
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

/// Name of the file, at the top of the boot partition.
pub const PRESEED: &str = "rpi-preseed.toml";

/// What of it concerns a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preseed {
    name: Option<NodeName>,
    wifi: Option<Wifi>,
    access: Option<Access>,
}

impl Preseed {
    /// Reads the file. Keys that are not known are left alone: the file is another program's.
    ///
    /// # Errors
    /// What is wrong with a key that counts, by its table.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let text = decode(bytes).map_err(|error| fault(error.code, &error.text))?;
        let root = DeTable::parse(&text).map_err(|_| fault(Code::SeedSyntax, "it is no TOML"))?;
        let keys = Keys(root.get_ref());
        Ok(Preseed { name: name(&keys)?, wifi: wireless(&keys)?, access: logins(&keys)? })
    }

    /// Adds to `seed` what it does not say itself. Where a seed chooses an interface, the Wi-Fi is not asked for.
    pub fn complete(self, seed: &mut Seed) {
        seed.node.name = seed.node.name.take().or(self.name);
        let network = &mut seed.network;
        if network.interface.is_none() && network.vlan.is_none() {
            network.wifi = network.wifi.take().or(self.wifi);
        }
        if let Some(access) = self.access.filter(|_| seed.access.keys.is_empty()) {
            seed.access = access;
        }
    }
}

fn fault(code: Code, text: &str) -> Fault {
    Fault::new(code, format!("read {PRESEED}: {text}"))
}

/// The keys of the file by table.
struct Keys<'a>(&'a DeTable<'a>);

impl<'a> Keys<'a> {
    fn value(&self, table: &str, key: &str) -> Option<&'a DeValue<'a>> {
        Some(self.0.get(table)?.get_ref().as_table()?.get(key)?.get_ref())
    }

    fn text(&self, table: &str, key: &str) -> Result<Option<&'a str>, Fault> {
        let Some(value) = self.value(table, key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| bad(table, key, "expected a text in quotes"))?;
        // Imager leaves some keys empty.
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn flag(&self, table: &str, key: &str) -> bool {
        self.value(table, key).and_then(DeValue::as_bool).unwrap_or(false)
    }
}

fn bad(table: &str, key: &str, why: &str) -> Fault {
    fault(Code::BadValue, &format!("malformed {key} in [{table}]: {why}"))
}

fn name(keys: &Keys<'_>) -> Result<Option<NodeName>, Fault> {
    let Some(text) = keys.text("system", "hostname")? else { return Ok(None) };
    let name = match text.contains(['{', '}']) {
        true => Err("expected a name without braces".to_owned()),
        false => NodeName::parse(text),
    };
    name.map(Some).map_err(|why| bad("system", "hostname", &why))
}

fn wireless(keys: &Keys<'_>) -> Result<Option<Wifi>, Fault> {
    const TABLE: &str = "wlan";
    let ssid = match (keys.text(TABLE, "ssid")?, keys.text(TABLE, "ssid_hex")?) {
        (Some(text), _) => wifi::ssid(text).map_err(|why| bad(TABLE, "ssid", &why))?,
        (None, Some(digits)) => {
            let text =
                from_hex(digits).ok_or_else(|| bad(TABLE, "ssid_hex", "expected UTF-8 in hexadecimal digits"))?;
            wifi::ssid(&text).map_err(|why| bad(TABLE, "ssid_hex", &why))?
        }
        (None, None) => return Ok(None),
    };
    let password = keys.text(TABLE, "password")?.map(wifi::password).transpose();
    let password = password.map_err(|why| bad(TABLE, "password", &why))?;
    let is_key = password.as_ref().is_some_and(Wifi::is_key);
    if keys.flag(TABLE, "password_encrypted") && !is_key {
        return Err(bad(TABLE, "password", "expected a key of 64 hexadecimal digits, as password_encrypted says"));
    }
    let security = match &password {
        None => Security::Open,
        Some(_) if is_key => Security::Wpa2,
        Some(_) => Security::Both,
    };
    let missing = || fault(Code::MissingKey, &format!("country is missing in [{TABLE}]"));
    let country = keys.text(TABLE, "country")?.ok_or_else(missing)?;
    let country = wifi::country(country).map_err(|why| bad(TABLE, "country", &why))?;
    Ok(Some(Wifi { ssid, password, country, security, hidden: true }))
}

fn logins(keys: &Keys<'_>) -> Result<Option<Access>, Fault> {
    const TABLE: &str = "ssh";
    let listed = keys.value(TABLE, "authorized_keys").filter(|_| keys.flag(TABLE, "enabled"));
    let Some(listed) = listed else { return Ok(None) };
    let no_list = || "expected a list of texts".to_owned();
    let parsed: Result<Vec<SshKey>, String> = listed.as_array().ok_or_else(no_list).and_then(|list| {
        list.iter().map(|key| SshKey::parse(key.get_ref().as_str().ok_or_else(no_list)?.trim())).collect()
    });
    let parsed = parsed.map_err(|why| bad(TABLE, "authorized_keys", &why))?;
    if parsed.is_empty() {
        return Ok(None);
    }
    let user = keys.text("user", "name")?.map(access::user).transpose();
    let user = user.map_err(|why| bad("user", "name", &why))?.unwrap_or_else(|| Access::default().user);
    Ok(Some(Access { user, keys: parsed, from: Vec::new() }))
}

fn from_hex(digits: &str) -> Option<Zeroizing<String>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let whole = digits.is_ascii() && digits.len().is_multiple_of(2);
    let bytes = whole.then(|| digits.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>())??;
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Raspberry Pi Imager writes it.
    const FULL: &str = "config_version = \"1.0\"\n\n[system]\nhostname = \"shop-7\"\n\n[user]\nname = \"pia\"\n\
        password = \"$5$salt$hash\"\npassword_encrypted = true\n\n[ssh]\nenabled = true\npassword_authentication = false\n\
        authorized_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl2Vb5d7bGm3mzS1mUvU1RtO1QkGq0pQZ5r0n7yq1aB pia\"]\n\n\
        [wlan]\nssid = \"Shop\"\npassword = \"eight characters\"\nhidden = false\ncountry = \"de\"\n\n\
        [locale]\nkeymap = \"de\"\ntimezone = \"Europe/Berlin\"\n";

    fn seed(more: &str) -> Seed {
        let pin = "0".repeat(64);
        let text = format!(
            "version = 1\n[cluster]\napiserver = \"10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
             ca-cert-hashes = \"sha256:{pin}\"\n{more}"
        );
        crate::seed::parse(text.as_bytes()).unwrap()
    }

    fn completed(preseed: &str, more: &str) -> Seed {
        let mut seed = seed(more);
        Preseed::parse(preseed.as_bytes()).unwrap().complete(&mut seed);
        seed
    }

    #[test]
    fn what_a_seed_does_not_say_comes_from_imager() {
        let seed = completed(FULL, "");
        assert_eq!(seed.node.name.as_ref().map(NodeName::as_str), Some("shop-7"));
        let wifi = seed.network.wifi.unwrap();
        assert_eq!((wifi.ssid.as_str(), wifi.country.as_str(), wifi.security), ("Shop", "DE", Security::Both));
        assert_eq!(wifi.password.unwrap().expose(), "eight characters");
        assert_eq!((seed.access.user.as_str(), seed.access.keys[0].comment.as_str()), ("pia", "pia"));
    }

    #[test]
    fn what_a_seed_says_stays() {
        let own = "[node]\nname = \"own\"\n[network]\nwifi = { ssid = \"Own\", password = \"other words\", country = \"FR\" }\n\
                   [access]\nssh-keys = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl2Vb5d7bGm3mzS1mUvU1RtO1QkGq0pQZ5r0n7yq1aB me\"\n";
        assert_eq!(completed(FULL, own), seed(own));
        let cable = "[network]\ninterface = \"eth0\"\n";
        assert_eq!(completed(FULL, cable).network, seed(cable).network);
    }

    #[test]
    fn keys_and_names_come_in_other_forms_and_may_be_missing() {
        assert_eq!(completed("config_version = \"1.0\"\n[system]\nhostname = \"\"\n", ""), seed(""));
        let off = "[ssh]\nenabled = false\nauthorized_keys = [\"x\"]\n";
        assert_eq!(completed(off, ""), seed(""));
        let key = "a".repeat(64);
        let hex = format!(
            "[wlan]\nssid_hex = \"4c61646e\"\npassword = \"{key}\"\npassword_encrypted = true\ncountry = \"DE\"\n"
        );
        let wifi = completed(&hex, "").network.wifi.unwrap();
        assert_eq!((wifi.ssid.as_str(), wifi.security), ("Ladn", Security::Wpa2));
        let open = completed("[wlan]\nssid = \"Cafe\"\ncountry = \"DE\"\n", "").network.wifi.unwrap();
        assert_eq!((open.password, open.security), (None, Security::Open));
    }

    #[test]
    fn mistakes_are_named_without_their_values() {
        let error = |text: &str| {
            let fault = Preseed::parse(text.as_bytes()).unwrap_err();
            (fault.code, fault.to_string())
        };
        let wlan = |more: &str| error(&format!("[wlan]\nssid = \"Shop\"\n{more}"));
        for (found, code, text) in [
            (error("[system\n"), Code::SeedSyntax, "read rpi-preseed.toml: it is no TOML"),
            (
                wlan("password = \"geheimnis\"\n"),
                Code::MissingKey,
                "read rpi-preseed.toml: country is missing in [wlan]",
            ),
            (
                wlan("password = \"geheimnis\"\npassword_encrypted = true\ncountry = \"DE\"\n"),
                Code::BadValue,
                "read rpi-preseed.toml: malformed password in [wlan]: expected a key of 64 hexadecimal digits, as \
                 password_encrypted says",
            ),
            (
                error("[wlan]\nssid_hex = \"4c6\"\ncountry = \"DE\"\n"),
                Code::BadValue,
                "read rpi-preseed.toml: malformed ssid_hex in [wlan]: expected UTF-8 in hexadecimal digits",
            ),
            (
                error("[system]\nhostname = \"{serial}\"\n"),
                Code::BadValue,
                "read rpi-preseed.toml: malformed hostname in [system]: expected a name without braces",
            ),
            (
                error("[system]\nhostname = 7\n"),
                Code::BadValue,
                "read rpi-preseed.toml: malformed hostname in [system]: expected a text in quotes",
            ),
        ] {
            assert_eq!(found, (code, text.to_owned()));
        }
        let keys = error("[ssh]\nenabled = true\nauthorized_keys = [\"no key\"]\n").1;
        assert!(
            keys.starts_with("read rpi-preseed.toml: malformed authorized_keys in [ssh]: expected a line"),
            "{keys}"
        );
        let user = error(&FULL.replace("\"pia\"", "\"root\"")).1;
        assert!(user.starts_with("read rpi-preseed.toml: malformed name in [user]: "), "{user}");
    }
}
