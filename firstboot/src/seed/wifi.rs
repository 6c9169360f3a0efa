// SPDX-License-Identifier: Apache-2.0
//! What `[network.wifi]` may say: one WPA personal network, or an open one.
//!
//! Messages of `parse` say what was expected, never what was found.

use crate::fault::Code;

use super::reader::{OtherKeys, Reader, Value};
use crate::secret::Secret;

/// Keys of `[network.wifi]`.
pub(super) const KEYS: [&str; 5] = ["ssid", "password", "country", "security", "hidden"];

/// Keys of other programs, and what to do instead.
const FOREIGN: [OtherKeys; 1] = [(
    &["identity", "eap", "anonymous-identity", "anonymous_identity", "phase2", "ca-cert", "ca_cert", "client-cert"],
    "WPA enterprise (802.1X) is not supported: use a WPA personal network or a cable",
)];

/// Countries of ISO 3166-1, alpha-2, officially assigned (zone.tab's iso3166.tab, 2025).
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA \
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA \
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP \
    KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS \
    MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS \
    RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW \
    TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

/// Digits of a key that is given itself, without a passphrase.
const KEY_DIGITS: usize = 64;

/// `[network] wifi`. `Debug` leaves the password out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Name of the Wi-Fi network, 1 to 32 bytes.
    pub ssid: String,
    /// WPA passphrase, 8 to 63 printable ASCII characters, or the key that is made of it and of the SSID (IEEE 802.11,
    /// J.4: the PSK of WPA2), 64 hexadecimal digits. None for an open network.
    pub password: Option<Secret<String>>,
    /// Country whose rules for Wi-Fi hold, ISO 3166-1 alpha-2, upper case.
    pub country: String,
    /// Which generations of WPA are accepted.
    pub security: Security,
    /// Whether the network is asked for by name, so that it is found where it does not tell its name.
    pub hidden: bool,
}

/// Which generations of WPA (personal) are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// WPA2 or WPA3, whatever the network offers.
    Both,
    /// WPA2 alone.
    Wpa2,
    /// WPA3 alone: no fallback to WPA2 for an attacker who imitates the network.
    Wpa3,
    /// Neither encryption nor password.
    Open,
}

impl Security {
    /// Reads `wpa2`, `wpa3`, `wpa2+wpa3` or `open`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "wpa2+wpa3" => Ok(Security::Both),
            "wpa2" => Ok(Security::Wpa2),
            "wpa3" => Ok(Security::Wpa3),
            "open" => Ok(Security::Open),
            _ => Err("expected \"wpa2+wpa3\", \"wpa2\", \"wpa3\" or \"open\"".to_owned()),
        }
    }
}

impl Wifi {
    /// Whether the password is the key itself, which is the same for no other SSID.
    pub fn is_key(password: &Secret<String>) -> bool {
        password.expose().len() == KEY_DIGITS
    }
}

/// Reads a network's name: IEEE 802.11, 1 to 32 bytes. A line end or NUL in it would be a mistake, not a name.
pub(super) fn ssid(text: &str) -> Result<String, String> {
    match (1..=32).contains(&text.len()) && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err("expected the network's name, 1 to 32 bytes".to_owned()),
    }
}

/// Reads a passphrase: IEEE 802.11, 8 to 63 printable ASCII characters; or 64 hexadecimal digits, the key.
pub(super) fn password(text: &str) -> Result<Secret<String>, String> {
    let passphrase = (8..KEY_DIGITS).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let key = text.len() == KEY_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text {
        _ if passphrase || key => Ok(Secret::new(text.to_owned())),
        "" => Err("expected a passphrase; a network without one takes security = \"open\" and no password".to_owned()),
        _ if !text.is_ascii() => Err("expected ASCII characters alone, as IEEE 802.11 has it; give this network a \
                                      passphrase without accents and the like, or its key in 64 hexadecimal digits"
            .to_owned()),
        _ => Err("expected a passphrase, 8 to 63 ASCII characters, or a key, 64 hexadecimal digits".to_owned()),
    }
}

/// Reads a country code, in either case.
pub(super) fn country(text: &str) -> Result<String, String> {
    let code = text.to_ascii_uppercase();
    match code.as_str() {
        "UK" => Err("expected a country's code of ISO 3166-1, as in DE; the United Kingdom is GB".to_owned()),
        "EU" => Err("expected a country's code of ISO 3166-1, as in DE; the European Union is none".to_owned()),
        _ if code.len() == 2 && COUNTRIES.split(' ').any(|c| c == code) => Ok(code),
        _ => Err("expected a country's code of ISO 3166-1, two letters, as in DE".to_owned()),
    }
}

impl Reader {
    pub(super) fn wifi(&mut self, value: &Value<'_>) -> Option<Wifi> {
        let Some(table) = value.get_ref().as_table() else {
            let text = "wifi in [network] must be a table: wifi = { ssid = \"…\", password = \"…\", country = \"DE\" }";
            self.error(value.span().start, Code::BadValue, text);
            return None;
        };
        let before = self.errors.len();
        self.unknown_keys_but("network.wifi", table, &KEYS, &FOREIGN);
        let at = value.span().start;
        let place = "network.wifi";
        let open = table.get("security").is_some_and(|v| v.get_ref().as_str() == Some("open"));
        for missing in ["ssid", "country"].into_iter().filter(|key| !table.contains_key(*key)) {
            self.error(at, Code::MissingKey, format!("{missing} is missing in [network.wifi]"));
        }
        match table.get("password") {
            None if !open && self.errors.len() == before => {
                let text = "password is missing in [network.wifi]; a network without one takes security = \"open\"";
                self.error(at, Code::MissingKey, text);
            }
            Some(password) => self.secrets.push(password.span()),
            None => {}
        }
        let mut text = |key: &str, read: fn(&str) -> Result<String, String>| {
            table.get(key).and_then(|v| self.string(v, key, place, read))
        };
        let (ssid, country) = (text("ssid", ssid), text("country", country));
        let given = match table.get_key_value("password") {
            Some((key, _)) if open => {
                let text = "password in [network.wifi] says nothing with security = \"open\": keep one of them";
                self.error(key.span().start, Code::ConflictingKeys, text);
                None
            }
            Some((_, v)) => self.string(v, "password", place, password),
            None => None,
        };
        let security = match table.get("security") {
            Some(v) => self.string(v, "security", place, Security::parse),
            None => Some(Security::Both),
        };
        let security = match (&given, security, table.get_key_value("security")) {
            (Some(password), Some(Security::Wpa3), Some((key, _))) if Wifi::is_key(password) => {
                let text = "security in [network.wifi] is wpa3, and password is a key of 64 digits, which is WPA2's alone: \
                            give the passphrase, or security = \"wpa2\"";
                self.error(key.span().start, Code::ConflictingKeys, text);
                None
            }
            (Some(password), Some(Security::Both), _) if Wifi::is_key(password) => Some(Security::Wpa2),
            (_, security, _) => security,
        };
        let hidden = table.get("hidden").map_or(Some(true), |v| self.boolean(v, "hidden", place));
        let wifi = Wifi { ssid: ssid?, password: given, country: country?, security: security?, hidden: hidden? };
        (self.errors.len() == before).then_some(wifi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_those_of_iso_3166() {
        let all: Vec<&str> = COUNTRIES.split(' ').collect();
        assert_eq!((all.len(), all.is_sorted()), (249, true));
        for (text, code) in [("de", "DE"), ("US", "US"), ("gb", "GB")] {
            assert_eq!(country(text).unwrap(), code);
        }
        for bad in ["UK", "EU", "XX", "00", "A ", "  ", "", "D", "DEU", "D\u{c9}"] {
            assert!(country(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_passphrases_or_keys() {
        let (digits, mixed) = ("0".repeat(64), "aF".repeat(32));
        for good in ["12345678", " eight  ", &"~".repeat(63), &digits, &mixed] {
            assert!(password(good).is_ok(), "{good}");
        }
        for bad in ["", "1234567", "pässword", "a\tb 1234", &"g".repeat(64), &"0".repeat(65)] {
            assert!(password(bad).is_err(), "{bad}");
        }
    }
}
