// SPDX-License-Identifier: Apache-2.0
//! Holds the imports of `firstboot/src` against the table of floors in docs/architecture.md: nothing imports upwards,
//! rooms of one floor import each other only where the table says so, and no files import each other in a circle.
//!
//! A room is a file or a directory of `firstboot/src`. Tests, and code under `#[cfg(test)]`, may import what they like.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// Head of the table in docs/architecture.md.
const HEAD: &str = "| floor | rooms | may import |";

/// Sources by path below `firstboot/src`.
type Sources = BTreeMap<String, String>;
/// Files, and the files that each of them imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The table of floors.
struct Floors {
    /// Floor of each room, from 1, the lowest.
    of: BTreeMap<String, usize>,
    /// Floors that a floor may import from.
    below: BTreeMap<usize, BTreeSet<usize>>,
    /// Single rooms that a floor may import besides.
    rooms: BTreeMap<usize, BTreeSet<String>>,
    /// Pairs of rooms of one floor: the first may import the second.
    pairs: BTreeSet<(String, String)>,
}

impl Floors {
    /// Reads the table: `| 3 machine | rooms in backquotes | floors 1-2; room → room |`.
    fn read(document: &str) -> Result<Self, String> {
        let table = document.split(HEAD).nth(1).ok_or("the table of floors is missing")?;
        let rows = table.split("\n\n").next().unwrap_or_default().lines().skip(2);
        let mut floors =
            Floors { of: BTreeMap::new(), below: BTreeMap::new(), rooms: BTreeMap::new(), pairs: BTreeSet::new() };
        for row in rows {
            let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
            let [floor, rooms, imports] = cells[..] else { return Err(format!("not three cells: {row}")) };
            let number = floor.split(' ').next().unwrap_or_default();
            let floor: usize = number.parse().map_err(|_| format!("no number of a floor: {row}"))?;
            for room in quoted(rooms) {
                if floors.of.insert(room.to_owned(), floor).is_some() {
                    return Err(format!("room {room} has two floors"));
                }
            }
            floors.allow(floor, imports)?;
        }
        Ok(floors)
    }

    /// One cell of the column "may import".
    fn allow(&mut self, floor: usize, cell: &str) -> Result<(), String> {
        for item in cell.split(';').map(str::trim) {
            let rooms = quoted(item);
            match (item.strip_prefix("floors ").or(item.strip_prefix("floor ")), &rooms[..]) {
                (Some(numbers), []) => {
                    let below = self.below.entry(floor).or_default();
                    for range in numbers.split(',').map(str::trim) {
                        let (first, last) = range.split_once('-').unwrap_or((range, range));
                        let number = |n: &str| n.trim().parse::<usize>().map_err(|_| format!("no floors: {item}"));
                        below.extend(number(first)?..=number(last)?);
                    }
                    if below.iter().any(|below| *below >= floor) {
                        return Err(format!("floor {floor} may import from itself or upwards: {item}"));
                    }
                }
                (None, [from, rest @ ..]) if item.contains('→') && !rest.is_empty() => {
                    self.pairs.extend(rest.iter().map(|to| ((*from).to_owned(), (*to).to_owned())));
                }
                (None, [room]) => drop(self.rooms.entry(floor).or_default().insert((*room).to_owned())),
                (None, []) if item == "nothing" => {}
                _ => return Err(format!("not understood: {item}")),
            }
        }
        Ok(())
    }

    /// The room of a file or directory: the longest one whose name its path begins with.
    fn room(&self, path: &str) -> Option<&str> {
        let within = |room: &&String| {
            let rest = path.strip_prefix(room.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
        };
        self.of.keys().filter(within).max_by_key(|room| room.len()).map(String::as_str)
    }

    /// Why one file may not import another; nothing where it may.
    fn refusal(&self, from: &str, to: &str) -> Option<String> {
        let (room, other) = (self.room(from)?, self.room(to)?);
        let (floor, below) = (self.of[room], self.of[other]);
        if room == other {
            return None;
        }
        let text = format!("{from} (floor {floor}) imports {to} (floor {below})");
        let allowed = |floors: &BTreeSet<usize>| floors.contains(&below);
        match floor.cmp(&below) {
            std::cmp::Ordering::Less => Some(format!("upwards: {text}")),
            std::cmp::Ordering::Equal => {
                let pair = (room.to_owned(), other.to_owned());
                (!self.pairs.contains(&pair)).then(|| format!("not in the table: {text}"))
            }
            std::cmp::Ordering::Greater => {
                let room = self.rooms.get(&floor).is_some_and(|rooms| rooms.contains(other));
                let good = room || self.below.get(&floor).is_some_and(allowed);
                (!good).then(|| format!("not in the table: {text}"))
            }
        }
    }
}

/// Texts in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Whether a file below `firstboot/src` is a test alone.
fn is_test(path: &str) -> bool {
    let parts = || path.trim_end_matches(".rs").split('/');
    parts().any(|part| part == "tests" || part.ends_with("_tests") || part.starts_with("test_"))
}

/// The path of the module that a file holds; empty for the crate itself and for the program.
fn module(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    match parts.last().map(String::as_str) {
        Some("mod") => drop(parts.pop()),
        Some("lib" | "main") if parts.len() == 1 => parts.clear(),
        _ => {}
    }
    parts
}

/// Finds every path in one file that begins at the crate, at the module itself, above it, or at one of its children.
struct Paths {
    /// The module that is being read.
    at: Vec<String>,
    /// Modules that the file declares.
    children: BTreeSet<String>,
    /// Whole paths, from the crate on.
    found: BTreeSet<Vec<String>>,
}

impl Paths {
    fn add(&mut self, path: &[String]) {
        let mut rest = path;
        let mut whole = match rest.first().map(String::as_str) {
            Some("crate" | "firstboot") => Vec::new(),
            Some("self" | "super") => self.at.clone(),
            Some(first) if self.children.contains(first) => self.at.clone(),
            _ => return,
        };
        while let Some((first, more)) = rest.split_first() {
            match first.as_str() {
                "crate" | "firstboot" | "self" if whole.is_empty() || first == "self" => {}
                "super" => drop(whole.pop()),
                _ => break,
            }
            rest = more;
        }
        whole.extend_from_slice(rest);
        self.found.insert(whole);
    }

    /// A path within an expression, a type or a macro; one name alone is no module there.
    fn add_inline(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.add(path);
        }
    }

    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.add_tree(before, item)),
        }
    }
}

/// Whether attributes leave something to tests alone.
fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    let is = |attribute: &syn::Attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && list.tokens.to_string() == "test"
    };
    attributes.iter().any(is)
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Const(i) => &i.attrs,
            syn::Item::Fn(i) => &i.attrs,
            syn::Item::Impl(i) => &i.attrs,
            syn::Item::Mod(i) => &i.attrs,
            syn::Item::Static(i) => &i.attrs,
            syn::Item::Struct(i) => &i.attrs,
            syn::Item::Use(i) => &i.attrs,
            _ => &Vec::new(),
        };
        if !only_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !only_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_inline(&path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    /// What stands in a macro is no syntax tree: names that are joined by `::` are taken for a path.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let tokens = item.tokens.to_string();
        for path in tokens.replace(" :: ", "::").split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            self.add_inline(&path.split("::").map(str::to_owned).collect::<Vec<_>>());
        }
    }
}

/// Which file imports which; what cannot be read is an error.
fn imports(sources: &Sources) -> Result<Imports, String> {
    let files: BTreeMap<Vec<String>, &String> =
        sources.keys().filter(|p| p.as_str() != "main.rs").map(|path| (module(path), path)).collect();
    let mut all = Imports::new();
    for (path, text) in sources {
        let file = syn::parse_file(text).map_err(|why| format!("read {path}: {why}"))?;
        let children = file.items.iter().filter_map(|item| match item {
            syn::Item::Mod(child) if child.content.is_none() => Some(child.ident.to_string()),
            _ => None,
        });
        let mut paths = Paths { at: module(path), children: children.collect(), found: BTreeSet::new() };
        paths.visit_file(&file);
        // A path names a module, or something in one.
        let holder = |whole: &Vec<String>| (0..=whole.len()).rev().find_map(|n| files.get(&whole[..n]));
        let found = paths.found.iter().filter_map(holder).filter(|to| **to != path && to.as_str() != "lib.rs");
        all.insert(path.clone(), found.map(|to| (*to).clone()).collect());
    }
    Ok(all)
}

/// Files that import each other in a circle: the strongly connected components of more than one file (Tarjan 1972).
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    struct Search<'a> {
        imports: &'a Imports,
        index: BTreeMap<&'a str, usize>,
        low: BTreeMap<&'a str, usize>,
        stack: Vec<&'a str>,
        circles: Vec<Vec<String>>,
    }
    impl<'a> Search<'a> {
        fn visit(&mut self, at: &'a str) {
            let number = self.index.len();
            self.index.insert(at, number);
            self.low.insert(at, number);
            self.stack.push(at);
            for next in self.imports.get(at).into_iter().flatten() {
                if !self.index.contains_key(next.as_str()) {
                    self.visit(next);
                }
                if self.stack.contains(&next.as_str()) {
                    let low = self.low[at].min(self.low[next.as_str()]);
                    self.low.insert(at, low);
                }
            }
            if self.low[at] == number {
                let from = self.stack.iter().position(|file| *file == at).unwrap();
                let mut circle: Vec<String> = self.stack.drain(from..).map(str::to_owned).collect();
                circle.sort();
                self.circles.extend((circle.len() > 1).then_some(circle));
            }
        }
    }
    let mut search =
        Search { imports, index: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), circles: Vec::new() };
    for file in imports.keys() {
        if !search.index.contains_key(file.as_str()) {
            search.visit(file);
        }
    }
    search.circles
}

/// Everything that is wrong, one line each.
fn wrong(document: &str, sources: &Sources, others: &[String]) -> Vec<String> {
    let floors = match Floors::read(document) {
        Ok(floors) => floors,
        Err(why) => return vec![why],
    };
    let imports = match imports(sources) {
        Ok(imports) => imports,
        Err(why) => return vec![why],
    };
    let paths = || sources.keys().chain(others);
    let mut wrong: Vec<String> = paths()
        .filter(|path| floors.room(path).is_none())
        .map(|path| format!("no floor: {path} is in no room of the table"))
        .collect();
    let empty = |room: &&String| !paths().any(|path| floors.room(path) == Some(room.as_str()));
    wrong.extend(floors.of.keys().filter(empty).map(|room| format!("no such room: {room}")));
    let named = floors.pairs.iter().flat_map(|(from, to)| [from, to]).chain(floors.rooms.values().flatten());
    wrong.extend(named.filter(|room| !floors.of.contains_key(*room)).map(|room| format!("no such room: {room}")));
    for (from, to) in imports.iter().flat_map(|(from, all)| all.iter().map(move |to| (from, to))) {
        wrong.extend(floors.refusal(from, to));
    }
    wrong.extend(circles(&imports).iter().map(|circle| format!("circle: {}", circle.join(", "))));
    wrong
}

/// Files below `firstboot/src` that are no tests: sources, and the paths of all others.
fn files() -> (Sources, Vec<String>) {
    let src = PathBuf::from("src");
    let (mut sources, mut others, mut directories) = (Sources::new(), Vec::new(), vec![src.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(&src).unwrap().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
            } else if is_test(&name) {
            } else if name.ends_with(".rs") {
                sources.insert(name, fs::read_to_string(path).unwrap());
            } else {
                others.push(name);
            }
        }
    }
    (sources, others)
}

#[test]
fn every_import_leads_down() {
    let document = Path::new("../docs/architecture.md");
    let (sources, others) = files();
    assert!(sources.len() > 100, "found only {} files", sources.len());
    let wrong = wrong(&fs::read_to_string(document).unwrap(), &sources, &others);
    assert!(wrong.is_empty(), "docs/architecture.md, table of floors:\n{}", wrong.join("\n"));
}

/// A table of three floors.
const TABLE: &str = "# Made up\n\n| floor | rooms | may import |\n|---|---|---|\n| 1 ground | `text` `names` | nothing |\n\
                     | 2 middle | `left` `right` `other` | floor 1; `left` → `right` |\n\
                     | 3 top | `top` `lib` | floors 1-1; `left` |\n\nMore.\n";

/// What is wrong with sources beside a whole set of good ones.
fn wrong_with(files: &[(&str, &str)]) -> Vec<String> {
    let good = [
        ("lib.rs", "mod left;\nmod names;\nmod other;\nmod right;\nmod text;\nmod top;\n"),
        ("text.rs", "pub fn one() {}\n"),
        ("names.rs", ""),
        ("left/mod.rs", "pub mod inner;\nuse crate::right::R;\n#[cfg(test)]\nmod tests { use crate::top::T; }\n"),
        ("left/inner.rs", "use crate::{text, right};\npub(super) fn x() {}\n"),
        ("right.rs", "use crate::text::one;\npub struct R;\n"),
        ("other.rs", ""),
        ("top.rs", "pub use crate::left::inner;\nfn f() { crate::text::one() }\n"),
    ];
    let all = good.iter().chain(files).map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    wrong(TABLE, &all.collect(), &[])
}

#[test]
fn what_the_table_allows_is_right() {
    assert_eq!(wrong_with(&[]), [""; 0]);
}

#[test]
fn an_import_upwards_is_found_however_it_is_written() {
    for text in [
        "use crate::left::inner::X;",
        "use crate::{names, left::inner};",
        "use super::left::inner as other;",
        "pub(crate) use crate::left::inner::*;",
        "fn f() { crate::left::inner::x() }",
        "fn f() -> String { format!(\"{}\", crate::left::inner::x()) }",
        "mod part { use super::super::left::inner::X; }",
    ] {
        let expected = "upwards: text.rs (floor 1) imports left/inner.rs (floor 2)";
        assert_eq!(wrong_with(&[("text.rs", text)]).first().map(String::as_str), Some(expected), "{text}");
    }
}

#[test]
fn an_import_that_is_not_in_the_table_is_found() {
    let right = "not in the table: right.rs (floor 2) imports other.rs (floor 2)";
    assert_eq!(wrong_with(&[("right.rs", "use crate::other::X;")]), [right]);
    let text = "not in the table: text.rs (floor 1) imports names.rs (floor 1)";
    assert_eq!(wrong_with(&[("text.rs", "use crate::names::X;")]), [text]);
    let top = "not in the table: top.rs (floor 3) imports right.rs (floor 2)";
    assert_eq!(wrong_with(&[("top.rs", "use crate::right::R;")]), [top]);
}

#[test]
fn a_circle_is_found_within_a_room_and_over_a_re_export() {
    let circle = ["circle: left/inner.rs, left/mod.rs"];
    let module = "mod inner;\npub use inner::X;\n";
    assert_eq!(wrong_with(&[("left/mod.rs", module), ("left/inner.rs", "use super::Y;")]), circle);
    let module = "mod inner;\nfn f() { inner::x() }\n";
    assert_eq!(wrong_with(&[("left/mod.rs", module), ("left/inner.rs", "use crate::left::Y;")]), circle);
    // To declare a child is no import, and neither is a name like its own.
    let module = "mod inner;\nfn f() { let inner = 1; g(inner, format!(\"inner {inner}\")) }\n";
    assert_eq!(wrong_with(&[("left/mod.rs", module), ("left/inner.rs", "use super::Y;")]), [""; 0]);
    assert_eq!(wrong_with(&[("left/inner.rs", "use super::Y;")]), [""; 0]);
    let three = [("left/a.rs", "use super::b;"), ("left/b.rs", "use super::c;"), ("left/c.rs", "use super::a;")];
    assert_eq!(wrong_with(&three), ["circle: left/a.rs, left/b.rs, left/c.rs"]);
}

#[test]
fn a_file_without_a_floor_and_a_room_without_a_file_are_found() {
    assert_eq!(wrong_with(&[("new.rs", "")]), ["no floor: new.rs is in no room of the table"]);
    assert_eq!(wrong_with(&[("new/mod.rs", "")]), ["no floor: new/mod.rs is in no room of the table"]);
    let sources = Sources::from([("text.rs".to_owned(), String::new())]);
    let missing = ["left", "lib", "names", "other", "right", "top"].map(|room| format!("no such room: {room}"));
    assert_eq!(wrong(TABLE, &sources, &[]), missing);
    let pair = TABLE.replace("`left` → `right`", "`left` → `rigth`");
    assert!(wrong(&pair, &sources, &[]).contains(&"no such room: rigth".to_owned()));
}

#[test]
fn a_table_that_cannot_be_read_is_an_error() {
    let read = |from: &str, to: &str| Floors::read(&TABLE.replace(from, to)).err().unwrap_or_default();
    assert_eq!(read(HEAD, ""), "the table of floors is missing");
    assert_eq!(read("floor 1;", "floors 1-2;"), "floor 2 may import from itself or upwards: floors 1-2");
    assert_eq!(read("nothing", "what it likes"), "not understood: what it likes");
    assert_eq!(read("`names`", "`names` `left`"), "room left has two floors");
}
