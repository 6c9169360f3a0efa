// SPDX-License-Identifier: Apache-2.0
//! What one value must be, as data, and the words that say so.

use serde_json::Value as Json;

/// What one value must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// What its type allows.
    Any,
    /// `true` or `false`.
    Bool,
    /// A whole number from the first to the second.
    Int(i64, i64),
    /// A whole number that holds what the words say.
    Whole(&'static str, fn(i64) -> bool),
    /// A number that holds what the words say.
    Number(&'static str, fn(f64) -> bool),
    /// One of these strings; the empty one stands for the default.
    OneOf(&'static [&'static str]),
    /// A string that holds what the words say.
    Text(&'static str, fn(&str) -> bool),
    /// A string or a whole number in the same form.
    TextOrInt(&'static str, fn(&str) -> bool),
    /// A list.
    List(&'static Rule),
    /// A list of different values.
    Set(&'static Rule),
    /// A table with any of these keys.
    Map(&'static [&'static str], &'static Rule),
    /// A table whose keys are for people or programs to choose, where they hold what the words say.
    Named(&'static str, fn(&str) -> bool, &'static Rule),
    /// A table of these fields. The second list has those that must be there.
    Table(&'static [(&'static str, Rule)], &'static [&'static str]),
}

/// A value that is wrong: where, as in `reservedMemory[0].numaNode`, and what must be there.
pub(super) type Wrong = (String, String);

impl Rule {
    /// Checks a value at `path`.
    pub(super) fn check(&self, path: &str, value: &Json) -> Result<(), Wrong> {
        let wrong = |must: String| Err((path.to_owned(), must));
        let text = value.as_str();
        match self {
            Rule::Any => Ok(()),
            Rule::Bool if value.is_boolean() => Ok(()),
            Rule::Int(least, most) if value.as_i64().is_some_and(|n| (*least..=*most).contains(&n)) => Ok(()),
            Rule::Whole(_, good) if value.as_i64().is_some_and(good) => Ok(()),
            Rule::Number(_, good) if value.as_f64().is_some_and(good) => Ok(()),
            Rule::OneOf(all) if text.is_some_and(|text| all.contains(&text)) => Ok(()),
            Rule::Text(_, good) | Rule::TextOrInt(_, good) if text.is_some_and(good) => Ok(()),
            Rule::TextOrInt(_, good) if value.as_i64().is_some_and(|n| good(&n.to_string())) => Ok(()),
            Rule::List(rule) | Rule::Set(rule) => {
                let Some(list) = value.as_array() else { return wrong(self.must()) };
                for (number, one) in list.iter().enumerate() {
                    match list[..number].contains(one) && matches!(self, Rule::Set(_)) {
                        true => {
                            return Err((format!("{path}[{number}]"), "another value than those before it".to_owned()));
                        }
                        false => rule.check(&format!("{path}[{number}]"), one)?,
                    }
                }
                Ok(())
            }
            Rule::Map(keys, rule) => {
                let Some(map) = value.as_object() else { return wrong(self.must()) };
                if map.keys().any(|key| !keys.contains(&key.as_str())) {
                    return wrong(self.must());
                }
                map.iter().try_for_each(|(key, one)| rule.check(&inner(path, key), one))
            }
            Rule::Named(_, good, rule) => {
                let Some(map) = value.as_object().filter(|map| map.keys().all(|key| good(key))) else {
                    return wrong(self.must());
                };
                map.iter().try_for_each(|(key, one)| rule.check(&inner(path, key), one))
            }
            Rule::Table(fields, required) => {
                let Some(table) = value.as_object().filter(|t| required.iter().all(|name| t.contains_key(*name)))
                else {
                    return wrong(self.must());
                };
                for (key, one) in table {
                    match fields.iter().find(|(name, _)| name == key) {
                        Some((name, rule)) => rule.check(&format!("{path}.{name}"), one)?,
                        None => return wrong(self.must()),
                    }
                }
                Ok(())
            }
            _ => wrong(self.must()),
        }
    }

    /// What goes after "must be".
    fn must(&self) -> String {
        match self {
            Rule::Any => "a value".to_owned(),
            Rule::Bool => "true or false".to_owned(),
            Rule::Int(least, most) if *most == i64::from(i32::MAX) || *most == i64::MAX => match *least {
                least if least == i64::from(i32::MIN) || least == i64::MIN => "a smaller whole number".to_owned(),
                least => format!("a whole number, {least} or more"),
            },
            Rule::Int(least, most) => format!("a whole number from {least} to {most}"),
            Rule::Whole(words, _) => (*words).to_owned(),
            Rule::Number(words, _) | Rule::Text(words, _) | Rule::TextOrInt(words, _) => (*words).to_owned(),
            Rule::OneOf(all) => {
                let all: Vec<String> =
                    all.iter().filter(|text| !text.is_empty()).map(|text| format!("\"{text}\"")).collect();
                either(&all)
            }
            Rule::List(rule) | Rule::Set(rule) => format!("a list; each one must be {}", rule.must()),
            Rule::Map(keys, _) => {
                format!("a table with the keys {}", either(&keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>()))
            }
            Rule::Named(words, _, _) => format!("a table {words}"),
            Rule::Table(fields, []) => {
                let names: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
                format!("a table of {}", either(&names))
            }
            Rule::Table(fields, required) => {
                let names: Vec<String> = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
                format!("a table of {}, with {}", either(&names), required.join(" and "))
            }
        }
    }
}

/// `a, b or c`
fn either(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The path of a key, which is in quotes where TOML needs them; a key that may be a secret is left out.
fn inner(path: &str, key: &str) -> String {
    let bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match crate::seed::types::may_show(key) {
        true if bare => format!("{path}.{key}"),
        true => format!("{path}.\"{key}\""),
        false => path.to_owned(),
    }
}
