// SPDX-License-Identifier: Apache-2.0
//! Field and label selectors, as far as an object's metadata decides them.
//!
//! Labels: `k8s.io/apimachinery/pkg/labels/selector.go`. Fields: `metadata.name` and `metadata.namespace`, which every
//! type has; others (`spec.nodeName`) are only compared as text with what the API server has evaluated before.

use std::collections::BTreeSet;

use crate::object::Meta;

/// A set of requirements, all of which an object has to meet. Each is one text, `f:` or `l:` before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector(BTreeSet<String>);

impl Selector {
    /// Of the two parameters of a request, decoded.
    pub fn new(fields: &str, labels: &str) -> Self {
        let fields = split(fields).map(|r| format!("f:{}", r.replacen("==", "=", 1)));
        let labels = split(labels).map(|r| format!("l:{}", r.replacen("==", "=", 1)));
        Selector(fields.chain(labels).collect())
    }

    /// As it is kept.
    pub fn text(&self) -> String {
        self.0.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// As [`Selector::text`] wrote it.
    pub fn parse(text: &str) -> Self {
        Selector(text.lines().map(str::to_owned).collect())
    }

    /// How many requirements there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this asks beyond `wider`; none where `wider` asks for something that this does not.
    pub fn beyond(&self, wider: &Selector) -> Option<Selector> {
        wider.0.is_subset(&self.0).then(|| Selector(&self.0 - &wider.0))
    }

    /// Whether an object meets all requirements. None where its metadata cannot decide one of them.
    pub fn selects(&self, meta: &Meta) -> Option<bool> {
        self.0.iter().try_fold(true, |all, requirement| Some(all & meets(requirement, meta)?))
    }
}

/// At commas that are not between parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|r| !r.is_empty())
}

fn meets(requirement: &str, meta: &Meta) -> Option<bool> {
    let (scope, rest) = requirement.split_once(':')?;
    let equality = rest.split_once("!=").map(|(k, v)| (k, v, false)).or_else(|| {
        let (key, value) = rest.split_once('=')?;
        Some((key, value, true))
    });
    let equality = equality.map(|(key, value, equal)| (key.trim(), value.trim(), equal));
    if scope == "f" {
        let (key, wanted, equal) = equality?;
        let value = match key {
            "metadata.name" => &meta.name,
            "metadata.namespace" => &meta.namespace,
            _ => return None,
        };
        return Some((value == wanted) == equal);
    }
    let label = |key: &str| meta.labels.get(key).map(String::as_str);
    if let Some((key, wanted, equal)) = equality {
        // As in Kubernetes: an object without the label is not equal.
        return Some((label(key) == Some(wanted)) == equal);
    }
    if let Some((head, values)) = rest.strip_suffix(')').and_then(|r| r.split_once('(')) {
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        let value = label(key.trim());
        let listed = values.split(',').map(str::trim).any(|v| value == Some(v));
        return match operator {
            "in" => Some(listed),
            "notin" => Some(!listed),
            _ => None,
        };
    }
    let known = |key: &str| (!key.contains(['>', '<', ' '])).then(|| label(key).is_some());
    match rest.strip_prefix('!') {
        Some(key) => known(key.trim()).map(|there| !there),
        None => known(rest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requirements() {
        let labels = [("app", "web"), ("tier", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let meta = Meta { name: "a".into(), namespace: "ns".into(), labels, ..Meta::default() };
        for (fields, labels, want) in [
            ("", "", Some(true)),
            ("metadata.name=a,metadata.namespace!=kube-system", "", Some(true)),
            ("metadata.name==b", "", Some(false)),
            ("spec.nodeName=n", "", None),
            ("", "app=web, tier", Some(true)),
            ("", "app!=web", Some(false)),
            ("", "other!=web", Some(true)),
            ("", "app in (web,db),tier notin (x)", Some(true)),
            ("", "app notin (web, db)", Some(false)),
            ("", "other notin (web)", Some(true)),
            ("", "!other,!app", Some(false)),
            ("", "n>5", None),
        ] {
            assert_eq!(Selector::new(fields, labels).selects(&meta), want, "{fields} {labels}");
        }
    }

    #[test]
    fn narrower_than_what_is_known() {
        let node = Selector::new("spec.nodeName=n", "");
        let both = Selector::new("spec.nodeName=n,metadata.name=a", "");
        assert_eq!(both.beyond(&node), Some(Selector::new("metadata.name=a", "")));
        assert_eq!(node.beyond(&both), None);
        assert_eq!(Selector::parse(&both.text()), both);
        assert_eq!(Selector::parse(""), Selector::default());
        assert_eq!(Selector::new("a=1,b=2", ""), Selector::new("b==2,a=1", ""));
    }
}
