// SPDX-License-Identifier: Apache-2.0
//! Walks tables of TOML: typed values out of known keys, errors with a line for everything else.

use super::advice;
use super::character;
use super::error::Error;
use super::suggest::{self, Keys};
use super::types::may_show;
use crate::fault::Code;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys before any table.
pub(super) const TOP_KEYS: [&str; 3] = ["version", "join", "reset"];

/// Line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

/// Keys of other programs, and what to do instead.
pub(super) type OtherKeys = (&'static [&'static str], &'static str);

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Walks the parsed tables and collects what is wrong, so that the first line can be reported, not the first key.
pub(super) struct Reader {
    /// Where lines end; counting them anew for each of thousands of errors would take seconds.
    pub(super) ends: Vec<usize>,
    pub(super) errors: Vec<Error>,
    pub(super) secrets: Vec<Range<usize>>,
    /// Every key that there is, by table.
    pub(super) keys: &'static Keys,
}

impl Reader {
    /// Line of a byte offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.ends.partition_point(|end| *end < offset)
    }

    pub(super) fn error(&mut self, offset: usize, code: Code, text: impl Into<String>) {
        let line = self.line(offset);
        self.errors.push(Error { code, line: Some(line), text: text.into() });
    }

    pub(super) fn unknown_keys(&mut self, name: &str, table: &DeTable<'_>, known: &[&str]) {
        self.unknown_keys_but(name, table, known, &[]);
    }

    /// Unknown keys; for some keys of other programs with what to do instead.
    pub(super) fn unknown_keys_but(&mut self, name: &str, table: &DeTable<'_>, known: &[&str], others: &[OtherKeys]) {
        for key in table.keys().filter(|k| !known.contains(&k.get_ref().as_ref())) {
            let other = others.iter().find(|(names, _)| names.contains(&key.get_ref().as_ref()));
            let hint = match other {
                Some((_, text)) => format!(": {text}"),
                None => self.hint(key.get_ref(), name, known),
            };
            let text = format!("unknown key {} in [{name}]{hint}", quoted(key.get_ref()));
            self.error(key.span().start, Code::UnknownKey, text);
        }
    }

    /// What to add to a message about an unknown key of a table (`""`: before any).
    pub(super) fn hint(&self, key: &str, table: &str, known: &[&str]) -> String {
        suggest::key(key, table, known, self.keys)
    }

    /// One string, checked by `parse`.
    pub(super) fn string<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.error(value.span().start, Code::BadValue, format!("{key} in [{table}] must be a string in quotes"));
            return None;
        };
        advice::read(text, parse)
            .map_err(|why| {
                self.error(value.span().start, Code::BadValue, format!("malformed {key} in [{table}]: {why}"))
            })
            .ok()
    }

    /// A list of strings, or one string that stands for a list of one. An empty list is refused where something is
    /// required.
    pub(super) fn strings<T>(
        &mut self,
        value: &Value<'_>,
        key: &str,
        table: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(array) = value.get_ref().as_array() else {
            return self.string(value, key, table, parse).map(|one| vec![one]);
        };
        if array.is_empty() && table == "cluster" {
            self.error(value.span().start, Code::BadValue, format!("{key} in [{table}] is empty"));
            return None;
        }
        let all: Vec<Option<T>> = array.iter().map(|v| self.string(v, key, table, &parse)).collect();
        all.into_iter().collect()
    }
}

/// What to add to a message about a value that is no string, where a string was found.
pub(super) fn without_quotes(value: &Value<'_>) -> &'static str {
    match value.get_ref().is_str() {
        true => ", without quotes",
        false => "",
    }
}

/// What to add to a message about a key that stands in a table but belongs before any.
pub(super) fn misplaced(key: &str) -> &'static str {
    match TOP_KEYS.contains(&key) {
        true => "; it belongs at the top, before any table",
        false => "",
    }
}

/// A key in quotes when it may be repeated; otherwise its length, and the character in it that is easily mistaken.
pub(super) fn quoted(key: &str) -> String {
    let count = key.chars().count();
    match (may_show(key), character::in_value(key)) {
        (true, _) => format!("\"{key}\""),
        (false, Some(odd)) => format!("of {count} characters ({odd})"),
        (false, None) => format!("of {count} characters"),
    }
}
