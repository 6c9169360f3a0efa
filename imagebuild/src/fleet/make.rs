// SPDX-License-Identifier: Apache-2.0
//! Devices of a table, each with its seed: the base, its templates filled in, and the values of the row.

use super::column::{self, Column};
use super::sheet_csv;
use crate::cluster::bootstrap_token;
use crate::cluster::table::Cluster;
use crate::seed::token_warning;
use anyhow::{Context, Result, anyhow, ensure};
use firstboot::fault::Code;
use firstboot::seed::SeedRequest;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;
use toml::{Table, Value};

/// Errors that are listed one by one; beyond them their number is.
const MOST_ERRORS: usize = 50;
/// Rows that an error names; it may be that of all rows.
const MOST_ROWS: usize = 8;
/// What the device itself fills in, in the node's name alone.
const OF_THE_DEVICE: [&str; 3] = ["serial", "mac", "machine-id"];

/// What a cluster gives for each device.
const OF_THE_CLUSTER: [&str; 4] = ["token", "token-expires", "ca-cert", "ca-cert-hashes"];
/// Stands for the token that a device will get.
const NO_TOKEN: &str = "000000.0000000000000000";

/// A device of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its row.
    pub line: u64,
    /// Name of its seed's file, without an ending: node name, serial number or MAC address.
    pub id: String,
    /// Node name, where the seed gives one that the device does not complete.
    pub name: Option<String>,
    /// Every column of its row, by name; for the sheet.
    pub columns: BTreeMap<String, String>,
    /// Text of its seed, which the device's parser has accepted.
    pub seed: String,
}

/// Reads a table and makes the seed of each row.
///
/// # Errors
/// Lists everything that is wrong, by row. No value is repeated, but names of devices.
pub fn devices(csv: &Path, base: Option<&Path>) -> Result<Vec<Device>> {
    let bytes = std::fs::read(csv).with_context(|| format!("read {}", csv.display()))?;
    let base = match base {
        None => Table::new(),
        Some(path) => read_base(path)?,
    };
    from(&bytes, &base, false).with_context(|| format!("make seeds from {}", csv.display()))
}

/// [`devices`] of a cluster, whose seeds lack nothing but a token ([`Device::set_token`]). Each has a name, which is that of
/// a node.
///
/// # Errors
/// As [`devices`]; also when base or table have what the cluster gives, or the device completes its name.
pub fn devices_of(csv: &Path, base: Option<&Path>, cluster: &Cluster) -> Result<Vec<Device>> {
    let bytes = std::fs::read(csv).with_context(|| format!("read {}", csv.display()))?;
    let mut seed = base.map_or(Ok(Table::new()), read_base)?;
    let known = toml::to_string(cluster).ok().and_then(|text| text.parse().ok());
    let mut known: Table = known.context("write what the cluster gives as TOML")?;
    known.insert("token".into(), NO_TOKEN.into());
    if let (Some(path), Some(Value::Table(own))) = (base, seed.remove("cluster")) {
        let given: Vec<&str> = OF_THE_CLUSTER.into_iter().filter(|key| own.contains_key(*key)).collect();
        ensure!(
            given.is_empty(),
            "read {}: {} in [cluster]: with --kubeconfig the cluster gives this: remove it",
            path.display(),
            given.join(", ")
        );
        known.extend(own);
    }
    seed.insert("cluster".into(), Value::Table(known));
    from(&bytes, &seed, true).with_context(|| format!("make seeds from {}", csv.display()))
}

impl Device {
    /// Puts its token, `ID.SECRET`, into its seed, and the ports that the cluster's pod network needs open.
    ///
    /// # Errors
    /// When the device's parser does not take it.
    pub fn set_token(&mut self, token: &str, open: &[String]) -> Result<()> {
        let what = || format!("put the token into the seed of {}", self.id);
        let mut seed: Table = self.seed.parse().map_err(|_| anyhow!(what()))?;
        let cluster = seed.get_mut("cluster").and_then(Value::as_table_mut).with_context(what)?;
        cluster.insert("token".into(), token.into());
        if !open.is_empty() {
            let harden = seed.entry("harden").or_insert_with(|| Table::new().into());
            let ports =
                harden.as_table_mut().with_context(what)?.entry("open").or_insert_with(|| Value::Array(Vec::new()));
            // A list, or a single port.
            if let Value::String(port) = ports {
                *ports = vec![std::mem::take(port)].into();
            }
            let ports = ports.as_array_mut().with_context(what)?;
            let missing = open.iter().filter(|port| !ports.iter().any(|own| own.as_str() == Some(port)));
            let missing: Vec<Value> = missing.map(|port| port.as_str().into()).collect();
            ports.extend(missing);
        }
        let text = toml::to_string(&seed).map_err(|_| anyhow!(what()))?;
        firstboot::seed::parse_request(text.as_bytes()).map_err(|error| anyhow!("{}: {}", what(), error.text))?;
        self.seed = text;
        Ok(())
    }
}

/// What is no error of the table, but seldom meant: one line each, with the rows. Sites may have the same addresses.
pub fn warnings(devices: &[Device], now: SystemTime) -> Vec<String> {
    let (mut rows, mut addresses) = (Errors::default(), BTreeMap::<String, Vec<u64>>::new());
    let mut creators = Vec::new();
    for device in devices {
        let Ok(SeedRequest::Join(seed)) = firstboot::seed::parse_request(device.seed.as_bytes()) else { continue };
        if let Some(text) = token_warning(&seed, now) {
            rows.add(device.line, text);
        }
        creators.extend(seed.create().map(|_| device.line));
        for address in &seed.network.addresses {
            addresses.entry(address.addr().to_string()).or_default().push(device.line);
        }
    }
    for line in creators.iter().filter(|_| creators.len() > 1) {
        rows.add(*line, "each of them creates a cluster of its own".to_owned());
    }
    for (address, lines) in addresses.into_iter().filter(|(_, lines)| lines.len() > 1) {
        lines.into_iter().for_each(|line| rows.add(line, format!("they have the same address, {address}")));
    }
    rows.lines()
}

/// A seed that need not be whole: rows may have what it lacks.
fn read_base(path: &Path) -> Result<Table> {
    let what = || format!("read {}", path.display());
    let bytes = std::fs::read(path).with_context(what)?;
    let text = firstboot::seed::decode(&bytes).map_err(|why| anyhow!("{}: {}", what(), why.text))?;
    // Not the error's own text: it repeats the line, which may hold the token.
    let base = text.parse::<Table>().map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        anyhow!("{}: line {line}: {}", what(), error.message().lines().next().unwrap_or_default())
    })?;
    // Rows may have what is missing, and fill in what is not complete; a key that no seed has stays wrong.
    if let Err(error) = firstboot::seed::parse_request(&bytes)
        && error.code == Code::UnknownKey
    {
        let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        return Err(anyhow!("{}: {line}{}", what(), error.text));
    }
    Ok(base)
}

/// `bound`: the cluster gives each device a token for its node alone.
fn from(csv: &[u8], base: &Table, bound: bool) -> Result<Vec<Device>> {
    let table = sheet_csv::read(csv)?;
    let mut errors = Errors::default();
    let mut columns = Vec::new();
    for (index, name) in table.header.iter().enumerate() {
        match column::parse(name) {
            Err(text) => errors.add(1, text),
            Ok(_) if table.header[..index].contains(name) => errors.add(1, format!("column {name:?} is there twice")),
            Ok(_) if bound && name.strip_prefix("cluster.").is_some_and(|key| OF_THE_CLUSTER.contains(&key)) => {
                errors.add(1, format!("column {name:?}: with --kubeconfig the cluster gives this: remove it"));
            }
            Ok(column) => columns.push(column),
        }
    }
    errors.none()?;
    let mut devices = Vec::new();
    let mut taken: BTreeMap<(&str, String), u64> = BTreeMap::new();
    for row in table.rows {
        let values: BTreeMap<String, String> = table.header.iter().cloned().zip(row.values).collect();
        let device = match device(row.line, &columns, &table.header, values, base) {
            Ok(device) => device,
            Err(texts) => {
                texts.into_iter().for_each(|text| errors.add(row.line, text));
                continue;
            }
        };
        if bound && device.name.as_deref().is_none_or(|name| bootstrap_token::node_name(name).is_err()) {
            errors.add(row.line, "node.name must be whole: its token is for the node of this name alone".to_owned());
        }
        let column = |name: &str| device.columns.get(name).filter(|v| !v.is_empty()).map(|v| v.to_lowercase());
        let id = Some(device.id.to_lowercase());
        for (what, value) in [("serial", column("serial")), ("mac", column("mac")), ("name", id)] {
            let Some(value) = value else { continue };
            match taken.get(&(what, value.clone())) {
                Some(first) => errors.add(row.line, format!("{what} {value:?} is that of row {first}, too")),
                None => drop(taken.insert((what, value), row.line)),
            }
        }
        devices.push(device);
    }
    errors.none()?;
    Ok(devices)
}

/// The device of one row.
fn device(
    line: u64,
    columns: &[Column],
    header: &[String],
    values: BTreeMap<String, String>,
    base: &Table,
) -> Result<Device, Vec<String>> {
    let mut errors = Vec::new();
    let mut seed = Value::Table(base.clone());
    fill(&mut seed, "", &values, &mut errors);
    let Value::Table(mut seed) = seed else { return Err(errors) };
    seed.entry("version").or_insert(Value::Integer(1));
    for (column, name) in columns.iter().zip(header) {
        if let (Column::Key(path, kind), Some(text)) = (column, values.get(name)) {
            errors.extend(column::set(&mut seed, path, *kind, text).err());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let text = toml::to_string(&seed).map_err(|_| vec!["the seed cannot be written as TOML".to_owned()])?;
    let request = firstboot::seed::parse_request(text.as_bytes()).and_then(|request| {
        if let SeedRequest::Join(seed) = &request {
            seed.check_dates(SystemTime::now())?;
        }
        Ok(request)
    });
    // Without the line: it is one of the text that was made here.
    request.map_err(|error| {
        let hint = if error.code == Code::MissingKey { ": in the base (--base FILE), or in a column" } else { "" };
        vec![format!("{}: {}{hint}", error.code, error.text)]
    })?;
    let name = seed.get("node").and_then(|node| node.get("name")).and_then(Value::as_str);
    let name = name.filter(|name| !name.contains('{')).map(str::to_owned);
    let column = |name: &str| values.get(name).filter(|value| !value.is_empty()).cloned();
    let id = name.clone().or_else(|| column("serial")).or_else(|| column("mac"));
    let id =
        id.ok_or_else(|| vec!["it has neither node.name nor serial nor mac: its seed could not be named".to_owned()])?;
    // A file name on every system.
    let id = id.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    Ok(Device { line, id, name, columns: values, seed: text })
}

/// Fills `{column}` in the strings of a seed; `{{` stands for a brace.
fn fill(value: &mut Value, path: &str, columns: &BTreeMap<String, String>, errors: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains('{') => match filled(text, path, columns) {
            Ok(new) => *text = new,
            Err(error) => errors.push(error),
        },
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, path, columns, errors)),
        Value::Table(table) => {
            for (name, value) in table.iter_mut() {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                fill(value, &path, columns, errors);
            }
        }
        _ => {}
    }
}

fn filled(text: &str, path: &str, columns: &BTreeMap<String, String>) -> Result<String, String> {
    let mut new = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        new.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            new.push('{');
            rest = after;
            continue;
        }
        let unclosed = || format!("{path} in the base has a brace that is not closed: write {{{{ for a brace");
        let end = rest.find('}').ok_or_else(unclosed)?;
        let name = &rest[..end];
        match columns.get(name) {
            Some(value) if value.is_empty() => {
                return Err(format!("column {name:?} is empty, and {path} in the base uses it"));
            }
            Some(value) => new.push_str(value),
            None if path == "node.name" && OF_THE_DEVICE.contains(&name) => new.push_str(&format!("{{{name}}}")),
            // Not the text between the braces: it may be a part of a password.
            None => return Err(format!("{path} in the base has braces with no column's name: write {{{{ for a brace")),
        }
        rest = &rest[end + 1..];
    }
    new.push_str(rest);
    Ok(new)
}

/// Everything that is wrong, with the rows in which it is, in the order of the first ones.
#[derive(Debug, Default)]
struct Errors {
    texts: Vec<String>,
    rows: BTreeMap<String, Vec<u64>>,
}

impl Errors {
    fn add(&mut self, row: u64, text: String) {
        let rows = self.rows.entry(text.clone()).or_insert_with(|| {
            self.texts.push(text);
            Vec::new()
        });
        rows.push(row);
    }

    fn none(&self) -> Result<()> {
        match self.texts.is_empty() {
            true => Ok(()),
            false => Err(anyhow!("nothing was written\n{}", self.lines().join("\n"))),
        }
    }

    fn lines(&self) -> Vec<String> {
        let line = |text: &String| {
            let rows = &self.rows[text];
            let named: Vec<String> = rows.iter().take(MOST_ROWS).map(u64::to_string).collect();
            let others =
                if rows.len() > MOST_ROWS { format!(" and {} more", rows.len() - MOST_ROWS) } else { String::new() };
            format!("row{} {}{others}: {text}", if rows.len() > 1 { "s" } else { "" }, named.join(", "))
        };
        let mut lines: Vec<String> = self.texts.iter().take(MOST_ERRORS).map(line).collect();
        if self.texts.len() > MOST_ERRORS {
            lines.push(format!("and {} other errors", self.texts.len() - MOST_ERRORS));
        }
        lines
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "make_tests.rs"]
mod tests;
