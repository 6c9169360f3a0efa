// SPDX-License-Identifier: Apache-2.0
//! Serial numbers and MAC addresses by which one device differs from another: which of them are no placeholders.
//!
//! The device and the build machine have the same rules, so that a card has no seed that its device would not look for.

/// Placeholders of vendors and emulators in the serial number field: lower case, letters and digits only.
#[rustfmt::skip]
const JUNK_SERIALS: &[&str] = &[
    "baseboardserialnumber", "chassisserialnumber", "default", "defaultstring", "dummy", "empty", "invalid",
    "invalidserialnumber", "na", "nil", "none", "noserial", "noserialnumber", "notapplicable", "notavailable",
    "notdefined", "notpresent", "notset", "notspecified", "null", "oem", "serial", "serialnumber", "sn",
    "ssn12345678901234567", "string", "systemserialnumber", "tbd", "test", "tobefilled", "tobefilledbyoem", "todo",
    "undefined", "unknown", "unspecified",
];
/// Sequences of digits: a serial number that is a prefix of one of these is a placeholder.
const COUNTING: &[&str] = &["01234567890123456789", "0123456789abcdef", "12345678901234567890", "123456789abcdef"];
/// Example addresses that makers of boards left in.
const JUNK_MACS: &[&str] = &["000000000001", "001122334455", "00123456789a", "001234567890"];

/// A raw serial number in the characters of a DNS-1123 label, unless it is a placeholder.
pub fn usable_serial(raw: &str) -> Option<String> {
    let raw = raw.trim().to_ascii_lowercase();
    let plain: String = raw.chars().filter(char::is_ascii_alphanumeric).collect();
    let one_character = plain.bytes().all(|b| Some(b) == plain.bytes().next());
    let counted = plain.len() >= 4 && COUNTING.iter().any(|c| c.starts_with(&plain));
    if one_character || counted || JUNK_SERIALS.contains(&plain.as_str()) {
        return None;
    }
    let mapped: String = raw.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let label = mapped.trim_matches('-').to_owned();
    // With the prefix "edge-" the whole name has at most 63 characters.
    (!label.is_empty() && label.len() <= 58).then_some(label)
}

/// A unicast MAC address as 12 hexadecimal digits without separators, unless it is an example. An address that was assigned
/// locally is one, too: virtual machines have those.
pub fn usable_mac(text: &str) -> Option<String> {
    let hex: String = text.trim().chars().filter(|c| !":-. ".contains(*c)).collect::<String>().to_ascii_lowercase();
    let octet = u8::from_str_radix(hex.get(..2)?, 16).ok()?;
    let digits = hex.len() == 12 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    (digits && octet & 1 == 0 && hex.bytes().any(|b| b != b'0') && !JUNK_MACS.contains(&hex.as_str())).then_some(hex)
}

/// The same for an address that its manufacturer assigned, which no other device has.
///
/// IEEE 802: bit 1 of the first octet marks a locally administered address, bit 0 a group address.
pub fn universal_mac(text: &str) -> Option<String> {
    usable_mac(text).filter(|hex| u8::from_str_radix(&hex[..2], 16).is_ok_and(|octet| octet & 0b10 == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_serial_numbers() {
        for junk in [
            "",
            " ",
            "0",
            "00000000",
            "0000000000000000",
            "FFFFFFFF",
            "xxxx",
            "---",
            "...",
            "Default string",
            "DEFAULT_STRING",
            "To be filled by O.E.M.",
            "To Be Filled By O.E.M",
            "System Serial Number",
            "Chassis Serial Number",
            "Serial Number",
            "0123456789",
            "123456789",
            "1234567890",
            "12345678",
            "1234",
            "0123456789ABCDEF",
            "01234567",
            " None ",
            "N/A",
            "Not Specified",
            "Not Applicable",
            "Not Available",
            "Not Present",
            "INVALID",
            "Unknown",
            "Undefined",
            "NULL",
            "OEM",
            "TBD",
            "empty",
            "SSN12345678901234567",
        ] {
            assert_eq!(usable_serial(junk), None, "{junk}");
        }
        // Similar to a placeholder, but distinct.
        for (good, label) in
            [("0001", "0001"), ("12345679", "12345679"), ("OEM-7", "oem-7"), ("1234567890X", "1234567890x")]
        {
            assert_eq!(usable_serial(good).as_deref(), Some(label));
        }
        assert_eq!(usable_serial("10000000A3F2B1C0").as_deref(), Some("10000000a3f2b1c0"));
        assert_eq!(usable_serial("PF-3X/7 9_").as_deref(), Some("pf-3x-7-9"));
    }

    #[test]
    fn only_universal_unicast_addresses_are_used() {
        assert_eq!(universal_mac("dc:a6:32:01:02:03").as_deref(), Some("dca632010203"));
        assert_eq!(universal_mac("52:54:00:12:34:56"), None);
        assert_eq!(universal_mac("01:00:5e:00:00:01"), None);
        assert_eq!(universal_mac("00:00:00:00:00:00"), None);
        assert_eq!(universal_mac("ff:ff:ff:ff:ff:ff"), None);
        assert_eq!(universal_mac("00:11:22:33:44:55"), None);
        assert_eq!(universal_mac("dc:a6:32:01:02"), None);
        assert_eq!(universal_mac(""), None);
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for text in ["dc:a6:32:01:02:03", "DC-A6-32-01-02-03", "dca6.3201.0203", " dca632010203 "] {
            assert_eq!(usable_mac(text).as_deref(), Some("dca632010203"), "{text}");
        }
        assert_eq!(usable_mac("52:54:00:12:34:56").as_deref(), Some("525400123456"));
        for text in ["", "dc", "dc:a6:32:01:02", "dc:a6:32:01:02:0g", "dc:a6:32:01:02:03:04", "01:00:5e:00:00:01"] {
            assert_eq!(usable_mac(text), None, "{text}");
        }
    }
}
