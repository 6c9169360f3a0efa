// SPDX-License-Identifier: Apache-2.0
//! A table of devices as spreadsheets export it: CSV (RFC 4180) with commas, semicolons or tabs.
//!
//! The crate `csv` accepts quotation marks anywhere, which turns a forgotten one into a table without its last rows. So
//! the quoting is checked first.

use super::column;
use anyhow::{Result, anyhow, bail, ensure};
use csv::{ReaderBuilder, Trim};

/// What separates values, the most usual first.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// A table: its columns, and its rows with as many values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Names of the columns.
    pub header: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its line in the file, from 1, as spreadsheets number rows too.
    pub line: u64,
    /// Its values, without blanks around them.
    pub values: Vec<String>,
}

/// Reads a table in UTF-8 or UTF-16, with or without byte-order mark.
///
/// # Errors
/// When it is no text, a quotation mark is out of place, a row has other than the header's number of values, or there
/// are no devices. No value is repeated: it may be a token.
pub fn read(bytes: &[u8]) -> Result<Table> {
    let text = firstboot::seed::decode(bytes).map_err(|why| anyhow!("{}", why.text))?;
    // Excel's own line, which says what separates values.
    let (named, text, skipped) = match text.strip_prefix("sep=").and_then(|rest| rest.split_once('\n')) {
        Some((separator, rest)) => (separator.trim_end_matches('\r').bytes().next(), rest, 1),
        None => (None, text.as_str(), 0),
    };
    let separator = named.unwrap_or_else(|| separator(text));
    quoting(text, separator, 1 + skipped)?;
    let mut reader = ReaderBuilder::new();
    let reader = reader.delimiter(separator).flexible(true).has_headers(false).trim(Trim::All);
    let mut records = reader.from_reader(text.as_bytes()).into_records();
    let fields = |record: csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
    let header = fields(records.next().ok_or_else(|| anyhow!("it is empty"))??);
    let mut rows = Vec::new();
    for record in records {
        let record = record?;
        let line = record.position().map_or(0, |at| line(text, at)) + skipped;
        let values = fields(record);
        // Spreadsheets export rows that were emptied.
        if values.iter().all(String::is_empty) {
            continue;
        }
        let (found, wanted) = (values.len(), header.len());
        ensure!(found == wanted, "row {line}: it has {found} values, and there are {wanted} columns");
        rows.push(Row { line, values });
    }
    ensure!(!rows.is_empty(), "it has no devices: the first row names the columns, each further one is a device");
    Ok(Table { header, rows })
}

/// The line on which a record begins: its position is before the empty lines that were skipped.
fn line(text: &str, position: &csv::Position) -> u64 {
    let rest = text.as_bytes().get(position.byte() as usize..).unwrap_or_default();
    let skipped = rest.iter().take_while(|byte| b"\r\n".contains(byte)).filter(|byte| **byte == b'\n');
    position.line() + skipped.count() as u64
}

/// The separator by which the first line has the most names of columns.
fn separator(text: &str) -> u8 {
    let line = text.lines().next().unwrap_or_default();
    let known = |separator: &u8| {
        let names = line.split(char::from(*separator)).map(|name| name.trim().trim_matches('"'));
        names.filter(|name| column::parse(name).is_ok()).count()
    };
    // Of equal ones the first.
    SEPARATORS.into_iter().rev().max_by_key(known).unwrap_or(b',')
}

/// Whether every quotation mark begins or ends a value, or is doubled inside one.
fn quoting(text: &str, separator: u8, first: u64) -> Result<()> {
    let (mut line, mut opened, mut start) = (first, None, true);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        line += u64::from(byte == b'\n');
        match (byte, opened) {
            (b'"', None) if start => opened = Some(line),
            (b'"', None) => {
                bail!("row {line}: a quotation mark inside a value: put the value in quotation marks, and double it")
            }
            (b'"', Some(_)) if bytes.peek() == Some(&b'"') => {
                bytes.next();
            }
            (b'"', Some(_)) => {
                opened = None;
                // Blanks before the separator are as good as none.
                while bytes.peek() == Some(&b' ') {
                    bytes.next();
                }
                let ends = bytes.peek().is_none_or(|next| *next == separator || b"\r\n".contains(next));
                ensure!(ends, "row {line}: text after the quotation mark that ends a value");
            }
            (_, Some(_)) => {}
            // A blank before a quotation mark is trimmed.
            (byte, None) => start = byte == separator || b"\r\n".contains(&byte) || start && byte == b' ',
        }
    }
    match opened {
        Some(line) => bail!("row {line}: a quotation mark is not closed"),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values(bytes: &[u8]) -> Vec<Vec<String>> {
        read(bytes).unwrap().rows.into_iter().map(|row| row.values).collect()
    }

    #[test]
    fn exports_of_spreadsheets_are_one_table() {
        let plain = "node.name,place,network.addresses\na,Shop 1,10.0.0.1/24\nb,\"Shop \"\"2\"\", back\",\n";
        let wanted = vec![vec!["a", "Shop 1", "10.0.0.1/24"], vec!["b", "Shop \"2\", back", ""]];
        let semicolons =
            "node.name;place;network.addresses\r\na; Shop 1 ;10.0.0.1/24\r\nb;\"Shop \"\"2\"\", back\";\r\n";
        let utf16: Vec<u8> = format!("\u{feff}{plain}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [
            plain.as_bytes().to_vec(),
            format!("\u{feff}{plain}").into_bytes(),
            utf16,
            semicolons.into(),
            format!("sep=;\r\n{semicolons}").into(),
            "node.name\tplace\tnetwork.addresses\na\tShop 1\t10.0.0.1/24\n\t\t\nb\t\"Shop \"\"2\"\", back\"\t\n".into(),
        ] {
            assert_eq!(values(&bytes), wanted);
        }
        let rows = read(b"place\n\nx\n\"y\nz\"\nw\n").unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4, 6]);
    }

    #[test]
    fn what_is_no_table_is_one_line_with_the_row() {
        let error = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("place,serial\na,b\n\"a,b\nc,d\n"), "row 3: a quotation mark is not closed");
        assert_eq!(error("place,serial\n\"a\"x,b\n"), "row 2: text after the quotation mark that ends a value");
        assert_eq!(
            error("place,serial\na,5\" disk\n"),
            "row 2: a quotation mark inside a value: put the value in quotation marks, and double it"
        );
        assert_eq!(error("place,serial\na,b\nc\n"), "row 3: it has 1 values, and there are 2 columns");
        let none = "it has no devices: the first row names the columns, each further one is a device";
        assert_eq!(error("place,serial\n,\n"), none);
        assert_eq!(read(b"").unwrap_err().to_string(), "it is empty");
    }
}
