// SPDX-License-Identifier: Apache-2.0
//! What a column of the table means: a key of the seed, or something for the sheet alone.

use toml::value::{Datetime, Table, Value};

/// Columns for the sheet and for templates: which device it is, where it stands, a remark. Others begin with `x-`.
pub const SHEET: [&str; 4] = ["serial", "mac", "place", "note"];
/// Most edits between a name and the one that may have been meant.
const MOST_EDITS: usize = 3;

/// The type that a seed takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A time with its zone.
    Time,
    /// Strings, separated by semicolons.
    List,
    /// Any name below it, with a string.
    Names,
    /// Any path below it: numbers and truth values as such, all else as strings.
    Fields,
}

/// The type of each key, by table as in [`firstboot::seed::KEYS`], which has no types. A test compares them.
const KINDS: [(&str, &[(&str, Kind)]); 11] = {
    use Kind::{Bool, Fields, Integer, List, Names, Text, Time};
    [
        ("", &[("join", Text), ("reset", Bool)]),
        (
            "cluster",
            &[
                ("apiserver", List),
                ("token", Text),
                ("ca-cert-hashes", List),
                ("ca-cert", Text),
                ("token-expires", Time),
                ("certificate-key", Text),
                ("virtual-ip", Text),
                ("create", Bool),
                ("endpoint", Text),
                ("pod-subnet", List),
                ("service-subnet", List),
                ("cert-sans", List),
                ("admin-request", Text),
                ("join-seed-hours", Integer),
                ("join-control-plane", Bool),
                ("kubeadm", Fields),
            ],
        ),
        (
            "node",
            &[
                ("name", Text),
                ("role", Text),
                ("cni", Text),
                ("labels", Names),
                ("taints", List),
                ("offline", Bool),
                ("offline-secrets", Bool),
            ],
        ),
        (
            "network",
            &[
                ("interface", Text),
                ("dhcp", Bool),
                ("addresses", List),
                ("gateway", List),
                ("dns", List),
                ("vlan", Integer),
                ("proxy", Text),
                ("no-proxy", List),
            ],
        ),
        (
            "network.wifi",
            &[("ssid", Text), ("password", Text), ("country", Text), ("security", Text), ("hidden", Bool)],
        ),
        ("time", &[("servers", List)]),
        ("kubelet", &[("config", Fields)]),
        ("registries", &[("mirrors", List), ("ca", Text), ("username", Text), ("password", Text), ("auth", Text)]),
        ("access", &[("ssh-keys", List), ("ssh-from", List), ("user", Text)]),
        ("owner", &[("keys", List)]),
        (
            "harden",
            &[
                ("open", List),
                ("kubelet-from", List),
                ("egress", List),
                ("forward", Bool),
                ("sysctl", Names),
                ("modules", List),
            ],
        ),
    ]
};

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    /// It is not in the seed.
    Sheet,
    /// A key of the seed: the path to it, and its type.
    Key(Vec<String>, Kind),
}

/// What a column of this name means.
///
/// # Errors
/// When it is no key of a seed and not for the sheet; with a name that may have been meant.
pub fn parse(name: &str) -> Result<Column, String> {
    if SHEET.contains(&name) || name.strip_prefix("x-").is_some_and(|rest| !rest.is_empty()) {
        return Ok(Column::Sheet);
    }
    key(name).map(|(path, kind)| Column::Key(path, kind)).ok_or_else(|| {
        let hint = closest(name).map(|other| format!("; did you mean {other}?")).unwrap_or_default();
        format!("column {name:?} is no key of a seed, and what is for the sheet alone begins with x-{hint}")
    })
}

/// The path and type of a key by its dotted name. A label, a kernel setting or a registry may have dots itself.
fn key(name: &str) -> Option<(Vec<String>, Kind)> {
    let kind = |table: &str, key: &str| {
        let (_, keys) = KINDS.iter().find(|(name, _)| *name == table)?;
        keys.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
    };
    let plain = |text: &str| text.trim_matches('"').to_owned();
    let Some((table, rest)) = name.split_once('.') else {
        return Some((vec![name.to_owned()], kind("", name)?));
    };
    let path = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if table == "registries" {
        let (registry, key) = rest.rsplit_once('.')?;
        let registry = plain(registry);
        return (!registry.is_empty()).then_some((vec![table.to_owned(), registry, key.to_owned()], kind(table, key)?));
    }
    if let Some(key) = rest.strip_prefix("wifi.").filter(|_| table == "network") {
        return Some((path(&[table, "wifi", key]), kind("network.wifi", key)?));
    }
    let (key, below) = rest.split_once('.').map_or((rest, None), |(key, below)| (key, Some(below)));
    match (kind(table, key)?, below) {
        (Kind::Names, Some(name)) if !plain(name).is_empty() => {
            Some((vec![table.to_owned(), key.to_owned(), plain(name)], Kind::Text))
        }
        (Kind::Fields, Some(fields)) if !fields.split('.').any(str::is_empty) => {
            let mut whole = path(&[table, key]);
            whole.extend(fields.split('.').map(plain));
            Some((whole, Kind::Fields))
        }
        (Kind::Names | Kind::Fields, _) | (_, Some(_)) => None,
        (kind, None) => Some((path(&[table, key]), kind)),
    }
}

/// The name of a column that is closest to this one.
fn closest(name: &str) -> Option<String> {
    // As it is compared, and as it is shown.
    let keys = KINDS.iter().flat_map(|(table, keys)| {
        keys.iter().map(move |(key, kind)| {
            let dotted = if table.is_empty() { (*key).to_owned() } else { format!("{table}.{key}") };
            let shown = match (*table, kind) {
                ("registries", _) => format!("{table}.NAME.{key}"),
                (_, Kind::Names) => format!("{dotted}.NAME"),
                (_, Kind::Fields) => format!("{dotted}.FIELD"),
                _ => dotted.clone(),
            };
            (dotted, shown)
        })
    });
    let name = name.to_lowercase();
    // The key alone, without its table, where only one table has such a key.
    let alone = |(dotted, shown): (String, String)| (dotted.rsplit('.').next() == Some(name.as_str())).then_some(shown);
    let mut tables = keys.clone().filter_map(alone);
    if let (Some(key), None) = (tables.next(), tables.next()) {
        return Some(key);
    }
    let all = SHEET.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).chain(keys);
    let far = all.map(|(dotted, shown)| (strsim::damerau_levenshtein(&name, &dotted), shown));
    // A short name is far from all others with fewer.
    let most = MOST_EDITS.min(name.len() / 3);
    far.filter(|(edits, _)| *edits <= most).min().map(|(_, shown)| shown)
}

/// Puts a value, given as text, into a seed. Nothing for an empty one: what the seed has stays.
///
/// # Errors
/// When the text is not of the type, without repeating it.
pub fn set(seed: &mut Table, path: &[String], kind: Kind, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let wants = |what: &str| format!("{} must be {what}", path.join("."));
    let value = match kind {
        Kind::Text | Kind::Names => Value::String(text.to_owned()),
        // Spreadsheets write it in capitals.
        Kind::Bool => Value::Boolean(text.to_lowercase().parse().map_err(|_| wants("true or false"))?),
        Kind::Integer => Value::Integer(text.parse().map_err(|_| wants("a whole number"))?),
        Kind::Time => {
            let time = text.parse::<Datetime>().map_err(|_| wants("a time, as in 2026-11-23T12:00:00Z"))?;
            Value::Datetime(time)
        }
        Kind::List => {
            let items = text.split(';').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        Kind::Fields => match (text.parse::<i64>(), text.to_lowercase().parse::<bool>()) {
            (Ok(number), _) => Value::Integer(number),
            (_, Ok(truth)) => Value::Boolean(truth),
            _ => Value::String(text.to_owned()),
        },
    };
    let Some((last, tables)) = path.split_last() else { return Ok(()) };
    let mut table = seed;
    for name in tables {
        let below = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = below.as_table_mut().ok_or_else(|| format!("{name} in the base is no table"))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_seed_has_a_type() {
        // The version is the base's, and wifi is a table of its own.
        let named = |tables: &mut dyn Iterator<Item = (&str, Vec<&str>)>| {
            let mut names: Vec<String> =
                tables.flat_map(|(table, keys)| keys.into_iter().map(move |key| format!("{table}.{key}"))).collect();
            names.retain(|name| name != ".version" && name != "network.wifi");
            names.sort();
            names
        };
        let seeds = named(&mut firstboot::seed::KEYS.iter().map(|(table, keys)| (*table, keys.to_vec())));
        let ours = named(&mut KINDS.iter().map(|(t, keys)| (*t, keys.iter().map(|(key, _)| *key).collect())));
        assert_eq!(ours, seeds);
    }

    #[test]
    fn names_with_dots_have_their_place() {
        let path = |name: &str| match parse(name) {
            Ok(Column::Key(path, kind)) => (path.join(" / "), Some(kind)),
            Ok(Column::Sheet) => ("the sheet".to_owned(), None),
            Err(text) => (text, None),
        };
        let key = |path: &str, kind| (path.to_owned(), Some(kind));
        assert_eq!(
            path("node.labels.topology.kubernetes.io/zone"),
            key("node / labels / topology.kubernetes.io/zone", Kind::Text)
        );
        assert_eq!(path("node.labels.\"a.b\""), key("node / labels / a.b", Kind::Text));
        assert_eq!(path("registries.docker.io.mirrors"), key("registries / docker.io / mirrors", Kind::List));
        assert_eq!(path("kubelet.config.maxPods"), key("kubelet / config / maxPods", Kind::Fields));
        assert_eq!(path("network.wifi.hidden"), key("network / wifi / hidden", Kind::Bool));
        assert_eq!(path("reset"), key("reset", Kind::Bool));
        for sheet in ["serial", "mac", "place", "note", "x-rack"] {
            assert_eq!(path(sheet).0, "the sheet");
        }
        let unknown =
            |name: &str| format!("column {name:?} is no key of a seed, and what is for the sheet alone begins with x-");
        for (name, hint) in [
            ("node.nmae", "; did you mean node.name?"),
            ("name", "; did you mean node.name?"),
            ("Name", "; did you mean node.name?"),
            ("Place", "; did you mean place?"),
            ("network.address", "; did you mean network.addresses?"),
            ("location", ""),
            ("node.labels", "; did you mean node.labels.NAME?"),
            ("node.name.x", "; did you mean node.name?"),
            ("x-", ""),
            ("registries..mirrors", "; did you mean registries.NAME.mirrors?"),
        ] {
            assert_eq!(path(name).0, format!("{}{hint}", unknown(name)));
        }
    }

    #[test]
    fn values_have_the_type_of_their_key() {
        let made = |name: &str, text: &str| {
            let mut seed = Table::new();
            let Ok(Column::Key(path, kind)) = parse(name) else { panic!("{name}") };
            set(&mut seed, &path, kind, text).map(|()| toml::to_string(&seed).unwrap())
        };
        let good = |text: &str| Ok(text.to_owned());
        assert_eq!(made("network.dhcp", "FALSE"), good("[network]\ndhcp = false\n"));
        assert_eq!(made("network.vlan", "42"), good("[network]\nvlan = 42\n"));
        assert_eq!(made("network.dns", "10.0.0.1; 10.0.0.2;"), good("[network]\ndns = [\"10.0.0.1\", \"10.0.0.2\"]\n"));
        assert_eq!(made("node.name", "42"), good("[node]\nname = \"42\"\n"));
        assert_eq!(made("kubelet.config.maxPods", "60"), good("[kubelet.config]\nmaxPods = 60\n"));
        assert_eq!(
            made("cluster.token-expires", "2026-11-23T12:00:00Z"),
            good("[cluster]\ntoken-expires = 2026-11-23T12:00:00Z\n")
        );
        assert_eq!(made("network.vlan", ""), good(""));
        assert_eq!(made("network.vlan", "secret"), Err("network.vlan must be a whole number".into()));
        assert_eq!(made("network.dhcp", "x"), Err("network.dhcp must be true or false".into()));
        let time = "cluster.token-expires must be a time, as in 2026-11-23T12:00:00Z";
        assert_eq!(made("cluster.token-expires", "23.11.2026"), Err(time.into()));
    }
}
