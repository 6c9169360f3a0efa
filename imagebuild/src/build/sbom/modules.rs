// SPDX-License-Identifier: Apache-2.0
//! The Go modules that a go.mod names (Go Modules Reference, "go.mod files").

use super::document::{Component, Kind, encoded};
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// Modules and their versions, with the leading `v`: those that are required, and where one is replaced by another, that.
/// One that a directory of the wrapper replaces is left out: nothing of it is in the program.
///
/// # Errors
/// When a line of `require` or `replace` has another form; a directory outside the wrapper as a replacement is one.
pub fn required(go_mod: &str) -> Result<Vec<(String, String)>> {
    let (mut required, mut replaced) = (Vec::new(), BTreeMap::new());
    let mut block = None;
    for line in go_mod.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let directive = match (block, words.as_slice()) {
            (_, []) => continue,
            (Some(_), [")"]) => {
                block = None;
                continue;
            }
            (None, [directive, "("]) => {
                block = Some(*directive);
                continue;
            }
            (Some(directive), _) => directive,
            (None, _) => words.remove(0),
        };
        let broken = || format!("the line `{line}` of {directive} is not understood");
        match directive {
            "require" => match words.as_slice() {
                [module, version] => required.push(((*module).to_owned(), (*version).to_owned())),
                _ => return Err(anyhow::anyhow!(broken())),
            },
            "replace" => {
                let (old, new) = line.trim_start_matches("replace ").split_once(" => ").with_context(broken)?;
                let old = old.split_whitespace().next().with_context(broken)?;
                let new = match new.trim().split_once(' ') {
                    Some((new, version)) => Some((new.to_owned(), version.trim().to_owned())),
                    None if new.starts_with("./") => None,
                    None => return Err(anyhow::anyhow!(broken())),
                };
                replaced.insert(old.to_owned(), new);
            }
            _ => {}
        }
    }
    let found = required.into_iter();
    Ok(found.filter_map(|found| replaced.get(&found.0).cloned().unwrap_or(Some(found))).collect())
}

/// A module as a component: `pkg:golang/k8s.io/kubernetes@v1.36.3`. In a package URL its name is in lower case.
pub fn component(module: &str, version: &str) -> Component {
    let path: Vec<String> = module.to_lowercase().split('/').map(encoded).collect();
    let purl = format!("pkg:golang/{}@{}", path.join("/"), encoded(version));
    Component::new(Kind::Library, module, version, Some(purl))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_read_in_both_forms_and_replaced() {
        let text = "module m\n\ngo 1.26\n\nrequire example.com/A v1.0.0\n// no\nrequire (\n\tb.org/c/v2 v2.1.0 // indirect\n\
                    \tk8s.io/api v0.0.0\n\td.org/e v1.0.0\n)\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.36.3\n)\n\n\
                    replace d.org/e => ./e\n\ntool b.org/c/v2/cmd\n";
        let found = required(text).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(m, v)| (m.as_str(), v.as_str())).collect();
        assert_eq!(found, [("example.com/A", "v1.0.0"), ("b.org/c/v2", "v2.1.0"), ("k8s.io/api", "v0.36.3")]);
        assert_eq!(component("example.com/A", "v1.0.0+x").reference, "pkg:golang/example.com/a@v1.0.0%2Bx");
        for (text, line) in [("require a", "require a"), ("replace a => ../a", "replace a => ../a")] {
            let directive = line.split(' ').next().unwrap();
            let error = required(text).unwrap_err().to_string();
            assert_eq!(error, format!("the line `{line}` of {directive} is not understood"));
        }
    }

    #[test]
    fn every_wrapper_is_understood() {
        let lock = crate::lock::Lock::find().unwrap();
        for (name, wrapper) in &lock.wrapper {
            let text = std::fs::read_to_string(lock.wrapper_dir(name).join("go.mod")).unwrap();
            let own = (wrapper.module.clone(), format!("v{}", wrapper.version));
            assert!(required(&text).unwrap().contains(&own), "{name} requires {own:?}");
        }
    }
}
