// SPDX-License-Identifier: Apache-2.0
//! YAML as Kubernetes' Go programs read it (sigs.k8s.io/yaml 1.6 over go.yaml.in/yaml/v2, a port of libyaml with YAML
//! 1.1's booleans and octal numbers), and written so that they read the same.
//!
//! The syntax is libyaml's here, too (serde_yaml_ng). What differs is done by [`Visit`]: a key that is given twice, keys
//! that are no text, merge keys (`<<`), and plain words that YAML 1.1 takes for booleans and numbers. Pure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The values of one document, and where they stand.
#[derive(Debug, Default)]
pub struct Document {
    /// The values, as JSON.
    pub value: Value,
    /// Keys that are given again in the same mapping, of which the last counts: path and line.
    pub repeated: Vec<(String, usize)>,
    /// Line of each key, by its path.
    lines: BTreeMap<String, usize>,
}

impl Document {
    /// `line N: `, where the key of this path stands; nothing where that is not known.
    pub fn at(&self, path: &str) -> String {
        self.lines.get(path).map(|line| format!("line {line}: ")).unwrap_or_default()
    }
}

/// Why a text cannot be read, one line that repeats none of the text.
pub type Why = String;

/// Cuts a text into its documents as kubeadm does (YAMLReader of apimachinery's util/yaml): at lines that begin with
/// `---`. Gives each with the number of its first line.
///
/// # Errors
/// When something stands after `---`.
pub fn documents(text: &str) -> Result<Vec<(usize, &str)>, Why> {
    let (mut all, mut start, mut first, mut at) = (Vec::new(), 0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            if !rest.trim().is_empty() && !rest.trim().starts_with('#') {
                return Err(format!("line {}: only a comment may follow ---", index + 1));
            }
            if at > start {
                all.push((first, &text[start..at]));
            }
            // Such a line that follows another one, or begins the text, is part of no document.
            (start, first) = (at + line.len(), index + 2);
        }
        at += line.len();
    }
    if at > start {
        all.push((first, &text[start..]));
    }
    Ok(all)
}

/// Reads one document; `first` is the number of its first line.
///
/// # Errors
/// When it is no YAML, with the line.
pub fn read(text: &str, first: usize) -> Result<Document, Why> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let state = RefCell::new(Document::default());
    let visit = Visit { text, first, path: String::new(), state: &state };
    let mut all = serde_yaml_ng::Deserializer::from_str(text);
    let value = match all.next() {
        // Only the first counts; what follows `...` is not even looked at.
        Some(document) => visit.deserialize(document).map_err(|error| why(text, first, &error))?,
        None => Value::Null,
    };
    Ok(Document { value, ..state.into_inner() })
}

/// Reads one document as apimachinery's universal decoder does: what begins with a brace has to be JSON.
///
/// # Errors
/// When it is neither, with the line.
pub fn read_object(text: &str, first: usize) -> Result<Document, Why> {
    let document = read(text, first)?;
    if text.trim_start().starts_with('{')
        && let Err(error) = serde_json::from_str::<Value>(text)
    {
        return Err(format!("line {}: it begins with a brace, but is no JSON", first + error.line().max(1) - 1));
    }
    Ok(document)
}

/// The line of an error, and what it is.
fn why(text: &str, first: usize, error: &serde_yaml_ng::Error) -> Why {
    let Some(at) = error.location() else { return "it is no YAML".to_owned() };
    let line = text.lines().nth(at.line().saturating_sub(1)).unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let what = if indent.contains('\t') { "a tab indents it, which YAML does not allow" } else { "it is no YAML" };
    format!("line {}: {what}", first + at.line() - 1)
}

/// Reads one value, at `path`.
struct Visit<'a, 'de> {
    text: &'de str,
    first: usize,
    path: String,
    state: &'a RefCell<Document>,
}

impl<'de> Visit<'_, 'de> {
    /// Where a piece of the text stands in it; none for what is not a piece of it.
    fn offset(&self, piece: &'de str) -> Option<usize> {
        let at = (piece.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        (at + piece.len() <= self.text.len()).then_some(at)
    }

    /// Whether a scalar stands there without quotation marks and without a tag.
    fn is_plain(&self, piece: &'de str) -> bool {
        let Some(before) = self.offset(piece).and_then(|at| self.text.get(..at)) else { return false };
        let tagged = || before.split_whitespace().next_back().is_some_and(|word| word.starts_with('!'));
        match before.chars().next_back() {
            Some('"' | '\'') => false,
            Some(' ' | '\t') => !tagged(),
            _ => true,
        }
    }

    fn line(&self, piece: &'de str) -> Option<usize> {
        let before = self.text.get(..self.offset(piece)?)?;
        Some(self.first + before.matches('\n').count())
    }
}

impl<'de> DeserializeSeed<'de> for Visit<'_, 'de> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Visit<'_, 'de> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        float(value).ok_or_else(|| E::custom("no number of JSON"))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Value, E> {
        Ok(if self.is_plain(value) { resolve(value) } else { value.into() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = {
            let path = format!("{}[{}]", self.path, list.len());
            seq.next_element_seed(Visit { path, ..self })?
        } {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut own = Vec::new();
        while let Some(Key { name, line, merge }) = entries.next_key_seed(KeySeed(&self))? {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            if let (Some(line), false) = (line, merge) {
                self.state.borrow_mut().lines.insert(path.clone(), line);
            }
            let value = entries.next_value_seed(Visit { path: path.clone(), ..self })?;
            if merge {
                // In go-yaml v2 what comes later counts, be it merged or not.
                let sources = if let Value::Array(list) = value { list } else { vec![value] };
                for source in sources.into_iter().rev() {
                    let Value::Object(source) = source else { return Err(A::Error::custom("no mapping to merge")) };
                    map.extend(source);
                }
                continue;
            }
            if own.contains(&name) {
                self.state.borrow_mut().repeated.push((path, line.unwrap_or(self.first)));
            } else {
                own.push(name.clone());
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }

    /// A private tag: it means nothing to Go.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        let (_, value) = data.variant::<String>()?;
        value.newtype_variant_seed(self)
    }
}

/// A key of a mapping.
struct Key {
    name: String,
    line: Option<usize>,
    /// It is a plain `<<`.
    merge: bool,
}

/// Reads a key of the mapping that is being read.
struct KeySeed<'v, 'a, 'de>(&'v Visit<'a, 'de>);

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_, 'de> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_, '_, 'de> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Key, E> {
        Ok(Key { name: value.to_string(), line: None, merge: false })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Key, E> {
        Ok(Key { name: value.to_string(), line: None, merge: false })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Key, E> {
        Ok(Key { name: value.to_string(), line: None, merge: false })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Key, E> {
        Ok(Key { name: value.to_string(), line: None, merge: false })
    }

    fn visit_str<E>(self, value: &str) -> Result<Key, E> {
        Ok(Key { name: value.to_owned(), line: None, merge: false })
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, value: &'de str) -> Result<Key, E> {
        let (line, plain) = (self.0.line(value), self.0.is_plain(value));
        let name = match resolve(value) {
            Value::Bool(yes) if plain => yes.to_string(),
            Value::Number(number) if plain => number.to_string(),
            _ => value.to_owned(),
        };
        Ok(Key { name, line, merge: plain && value == "<<" })
    }
}

/// What a plain scalar is that YAML 1.2 takes for text (resolve.go of go-yaml v2).
fn resolve(text: &str) -> Value {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            number(text).unwrap_or_else(|| text.into())
        }
        _ => text.into(),
    }
}

/// A number as Go's `strconv.ParseInt(text, 0, 64)` reads it, underscores left out; else a fraction.
fn number(text: &str) -> Option<Value> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let prefixed = |prefixes: [&str; 2]| prefixes.iter().find_map(|p| digits.strip_prefix(p));
    let (radix, rest) = match (prefixed(["0x", "0X"]), prefixed(["0o", "0O"]), prefixed(["0b", "0B"])) {
        (Some(rest), ..) => (16, rest),
        (_, Some(rest), _) => (8, rest),
        (.., Some(rest)) => (2, rest),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        if let Ok(value) = i64::from_str_radix(&format!("{sign}{rest}"), radix) {
            return Some(value.into());
        }
        if let (Ok(value), "") = (u64::from_str_radix(rest, radix), sign) {
            return Some(value.into());
        }
    }
    let is_float = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b))
        && digits.bytes().any(|b| b.is_ascii_digit());
    float(plain.parse::<f64>().ok().filter(|_| is_float)?)
}

/// Go writes a whole number without a fraction into JSON.
fn float(value: f64) -> Option<Value> {
    const WHOLE: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() < WHOLE {
        return format!("{value:.0}").parse::<i64>().ok().map(Value::from);
    }
    Number::from_f64(value).map(Value::Number)
}

/// Writes a value as YAML that Go and every other reader take for the same: text that some of them could take for
/// something else is quoted. Keys are sorted.
pub fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, into: &mut String) {
    let margin = "  ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                into.push_str(&format!("{margin}{}:", scalar(key)));
                nested(value, indent + usize::from(!value.is_array()), into);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                into.push_str(&format!("{margin}-"));
                match value {
                    // The first key stands beside the dash.
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(value, indent + 1, &mut inner);
                        into.push_str(&inner[margin.len() + 1..]);
                    }
                    _ => nested(value, indent + 1, into),
                }
            }
        }
        other => into.push_str(&format!("{margin}{}\n", inline(other))),
    }
}

/// A value after its key or dash.
fn nested(value: &Value, indent: usize, into: &mut String) {
    let holds_more =
        value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|list| !list.is_empty());
    if holds_more {
        into.push('\n');
        block(value, indent, into);
    } else {
        into.push_str(&format!(" {}\n", inline(value)));
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Text, plain where no reader can take it for anything else. In quotation marks it is a string of JSON.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan", "infinity"];
    let safe = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().enumerate().all(|(at, c)| safe(c) || (c == ':' && text[at + 1..].starts_with('/')))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word));
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
#[path = "go_yaml_tests.rs"]
mod tests;
