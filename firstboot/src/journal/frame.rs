// SPDX-License-Identifier: Apache-2.0
//! Lines of the journal: how a record is written so that any changed byte is noticed, and how two copies become one.
//!
//! A line is `[NUMBER,"CRC",RECORD]` and an end of line: the record's number (1, 2, 3 …, never used again), the CRC-32
//! (ISO-HDLC, as in gzip) of `NUMBER,RECORD` in eight hexadecimal digits, and the record as JSON. A CRC-32 finds every
//! error of up to 32 adjacent bits, so a flipped bit, byte or pair of bytes never passes for another record.

use super::record::Record;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// One copy of the journal, as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Records by number.
    pub(super) records: BTreeMap<u64, Record>,
    /// Whole lines that are no record.
    pub(super) damaged: usize,
    /// Length of the whole lines in bytes. What follows is a record whose write was cut off.
    pub(super) whole: u64,
}

/// The line of a record.
///
/// # Errors
/// Never in practice: every record has a JSON text.
pub(super) fn encode(number: u64, record: &Record) -> Result<String> {
    let json = serde_json::to_string(record).context("encode a journal record")?;
    Ok(format!("[{number},\"{}\",{json}]\n", checksum(number, &json)))
}

fn checksum(number: u64, json: &str) -> String {
    format!("{:08x}", crc32fast::hash(format!("{number},{json}").as_bytes()))
}

/// A record and its number; none when any byte of the line (without its end) is not as it was written.
fn decode(line: &[u8]) -> Option<(u64, Record)> {
    let line = std::str::from_utf8(line).ok()?;
    let (number, rest) = line.strip_prefix('[')?.strip_suffix(']')?.split_once(",\"")?;
    let (crc, json) = rest.split_once("\",")?;
    let number = number.parse().ok().filter(|n: &u64| n.to_string() == number)?;
    if crc != checksum(number, json) {
        return None;
    }
    Some((number, serde_json::from_str(json).ok()?))
}

/// Reads one copy.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        match decode(&bytes[start..end]) {
            Some((number, record)) => {
                parsed.records.insert(number, record);
            }
            None => parsed.damaged += 1,
        }
        start = end + 1;
    }
    parsed.whole = start as u64;
    parsed
}

/// All records of both copies, and how many numbers between the first and the last are in neither. What stands before the
/// last [`Record::Restarted`] was replaced: a copy that is older than that may still hold it.
pub(super) fn merge(first: &Parsed, second: &Parsed) -> (BTreeMap<u64, Record>, u64) {
    let mut all = second.records.clone();
    all.extend(first.records.iter().map(|(number, record)| (*number, record.clone())));
    if let Some(start) = all.iter().rev().find(|(_, record)| **record == Record::Restarted).map(|(number, _)| *number) {
        all = all.split_off(&start);
    }
    let between = all.first_key_value().zip(all.last_key_value()).map_or(0, |((first, _), (last, _))| last - first + 1);
    let missing = between - all.len() as u64;
    (all, missing)
}

#[cfg(test)]
mod tests {
    use super::super::facts::Fact;
    use super::*;

    fn fact(value: &str) -> Record {
        Record::Fact { name: Fact::Node, value: value.into() }
    }

    #[test]
    fn a_line_is_json_and_comes_back() {
        let line = encode(7, &fact("edge \u{e9} \",\" 1")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json[0], &json[2]["fact"]["name"]), (&7.into(), &"node".into()));
        assert_eq!(decode(line.trim_end().as_bytes()), Some((7, fact("edge \u{e9} \",\" 1"))));
    }

    #[test]
    fn a_fact_of_a_later_version_is_no_damage() {
        let json = r#"{"fact":{"name":"from-a-later-version","value":"x"}}"#;
        let parsed = parse(format!("[1,\"{}\",{json}]\n", checksum(1, json)).as_bytes());
        let record = Record::Fact { name: Fact::Other("from-a-later-version".into()), value: "x".into() };
        assert_eq!((parsed.damaged, &parsed.records[&1]), (0, &record));
        assert_eq!(
            encode(1, &record).unwrap().as_bytes(),
            format!("[1,\"{}\",{json}]\n", checksum(1, json)).as_bytes()
        );
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let line = encode(12, &fact("edge-1")).unwrap();
        let good = line.trim_end().as_bytes();
        for at in 0..good.len() {
            for byte in 0..=u8::MAX {
                let mut bad = good.to_vec();
                bad[at] = byte;
                assert_eq!(decode(&bad).is_some(), byte == good[at], "byte {at} as {byte}");
            }
        }
        for (bad, why) in [("[+7,", "number"), ("[07,", "number"), (" [7,", "blank"), ("[7, ", "blank")] {
            let line = encode(7, &Record::Sealed).unwrap().trim_end().replacen("[7,", bad, 1);
            assert_eq!(decode(line.as_bytes()), None, "{why}: {line}");
        }
    }

    #[test]
    fn what_one_copy_lacks_the_other_has_and_a_restart_ends_what_was_before() {
        let lines: Vec<String> = (1..=4).map(|n| encode(n, &fact(&n.to_string())).unwrap()).collect();
        let whole = lines.concat();
        let damaged = parse([&lines[0], "rubbish\n", &lines[2], &lines[3][..9]].concat().as_bytes());
        assert_eq!((damaged.records.len(), damaged.damaged), (2, 1));
        assert_eq!(damaged.whole, (lines[0].len() + 8 + lines[2].len()) as u64);
        let (all, missing) = merge(&damaged, &parse(whole.as_bytes()));
        assert_eq!((all.len(), missing), (4, 0));
        let (all, missing) = merge(&damaged, &parse(b""));
        assert_eq!((all.keys().copied().collect::<Vec<_>>(), missing), (vec![1, 3], 1));
        let restarted = encode(5, &Record::Restarted).unwrap() + &encode(6, &fact("new")).unwrap();
        let (all, missing) = merge(&parse(restarted.as_bytes()), &parse(whole.as_bytes()));
        assert_eq!((all.keys().copied().collect::<Vec<_>>(), missing), (vec![5, 6], 0));
        assert_eq!(merge(&Parsed::default(), &Parsed::default()), (BTreeMap::new(), 0));
    }
}
