// SPDX-License-Identifier: Apache-2.0
//! `[kubelet.config]`: fields of KubeletConfiguration, their names and types; [`super::kubelet_values`] has their values.

use crate::fault::Code;
use serde_json::{Map, Number, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use super::kubelet_fields::Kind;
use super::kubelet_fields::{FIELDS, OWNED};
use super::kubelet_values::{self, units::go_duration};
use super::reader::{Reader, misplaced, quoted, without_quotes};
use super::suggest;

/// Keys of `[kubelet]`.
pub(super) const KEYS: [&str; 1] = ["config"];

/// Table `[kubelet]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// Fields of KubeletConfiguration that this node has otherwise than its cluster says; none where it is empty.
    pub config: Map<String, Json>,
}

/// The type of a field that a seed may set; none for others.
#[cfg(feature = "cluster")]
pub(crate) fn kubelet_field(name: &str) -> Option<Kind> {
    FIELDS.iter().find(|(field, _)| *field == name).map(|(_, kind)| *kind)
}

/// Whether a field of this name is not the seed's to set.
#[cfg(feature = "cluster")]
pub(crate) fn is_owned_kubelet_field(name: &str) -> bool {
    OWNED.iter().any(|(owned, _)| *owned == name)
}

/// Whether KubeletConfiguration has a field of this name.
#[cfg(test)]
pub(crate) fn is_kubelet_field(name: &str) -> bool {
    FIELDS.iter().any(|(field, _)| *field == name) || OWNED.iter().any(|(owned, _)| *owned == name)
}

impl Reader {
    pub(super) fn kubelet(&mut self, table: &DeTable<'_>) -> Option<Kubelet> {
        self.unknown_keys("kubelet", table, &KEYS);
        let Some(value) = table.get("config") else { return Some(Kubelet::default()) };
        let Some(fields) = value.get_ref().as_table() else {
            self.error(value.span().start, Code::BadValue, "config in [kubelet] must be a table: [kubelet.config]");
            return None;
        };
        let mut config = Map::new();
        for (key, value) in fields.iter() {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| *owned == name) {
                self.error(at, Code::SettingNotAllowed, format!("{name} in [kubelet.config] is refused: {why}"));
                continue;
            }
            let Some((_, kind)) = FIELDS.iter().find(|(field, _)| *field == name) else {
                let hint = match misplaced(name) {
                    "" => suggest::field(name),
                    top => top.to_owned(),
                };
                self.error(at, Code::UnknownKey, format!("unknown field {} in [kubelet.config]{hint}", quoted(name)));
                continue;
            };
            match self.field(at, "kubelet.config", name, *kind, value) {
                Some(json) if name == "resolvConf" && !is_path(&json) => {
                    self.error(at, Code::BadValue, "resolvConf in [kubelet.config] must be an absolute path");
                }
                Some(json) => {
                    config.insert(name.to_owned(), json);
                }
                None => {}
            }
        }
        let wrong = kubelet_values::wrong(&config);
        let good = wrong.is_empty() && config.len() == fields.len();
        for (field, text) in wrong {
            let at = fields.keys().find(|key| key.get_ref().as_ref() == field).map_or(0, |key| key.span().start);
            self.error(at, Code::BadValue, text);
        }
        good.then_some(Kubelet { config })
    }

    /// The value of a field of this type in a configuration of Kubernetes; another one is an error.
    pub(super) fn field(
        &mut self,
        at: usize,
        table: &str,
        name: &str,
        kind: Kind,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<Json> {
        let found = json(value).filter(|v| kind.fits(v));
        if found.is_none() {
            let plain = matches!(kind, Kind::Bool | Kind::Integer | Kind::Number);
            let hint = if plain { without_quotes(value) } else { "" };
            self.error(at, Code::BadValue, format!("{name} in [{table}] must be {}{hint}", kind.expected()));
        }
        found
    }
}

fn is_path(value: &Json) -> bool {
    value.as_str().is_some_and(|s| s.starts_with('/'))
}

/// The same value in JSON; none for what JSON does not have (times, infinity).
fn json(value: &Spanned<DeValue<'_>>) -> Option<Json> {
    Some(match value.get_ref() {
        DeValue::String(s) => Json::String(s.to_string()),
        DeValue::Boolean(b) => Json::Bool(*b),
        DeValue::Integer(i) => Json::Number(i64::from_str_radix(i.as_str(), i.radix()).ok()?.into()),
        DeValue::Float(f) => Json::Number(Number::from_f64(f.as_str().parse().ok()?)?),
        DeValue::Array(list) => Json::Array(list.iter().map(json).collect::<Option<_>>()?),
        DeValue::Table(table) => {
            let entry = |(k, v): (&Spanned<_>, _)| Some((AsRef::<str>::as_ref(k.get_ref()).to_owned(), json(v)?));
            Json::Object(table.iter().map(entry).collect::<Option<_>>()?)
        }
        DeValue::Datetime(_) => return None,
    })
}

impl Kind {
    /// Whether a value is of this type.
    pub(crate) fn fits(self, value: &Json) -> bool {
        let list = |good: fn(&Json) -> bool| value.as_array().is_some_and(|a| a.iter().all(good));
        let map = |good: fn(&Json) -> bool| value.as_object().is_some_and(|o| o.values().all(good));
        match self {
            Kind::Bool => value.is_boolean(),
            Kind::Integer => value.is_i64(),
            Kind::Number => value.is_number(),
            Kind::String => value.is_string(),
            Kind::Duration => value.as_str().is_some_and(|text| go_duration(text).is_some()),
            Kind::Strings => list(Json::is_string),
            Kind::Integers => list(Json::is_i64),
            Kind::StringMap => map(Json::is_string),
            Kind::BoolMap => map(Json::is_boolean),
            Kind::List => value.is_array(),
            Kind::Table => value.is_object(),
        }
    }

    /// The type in words.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
            Kind::String => "a string in quotes",
            Kind::Duration => "a duration in quotes, as in \"1m30s\"",
            Kind::Strings => "a list of strings in quotes",
            Kind::Integers => "a list of whole numbers",
            Kind::StringMap => "a table of strings in quotes",
            Kind::BoolMap => "a table of true and false",
            Kind::List => "a list",
            Kind::Table => "a table",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_listed_twice() {
        let mut names: Vec<&str> = FIELDS.iter().map(|(n, _)| *n).chain(OWNED.iter().map(|(n, _)| *n)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
