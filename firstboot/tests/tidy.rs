// SPDX-License-Identifier: Apache-2.0
//! What holds of the files in this repository: heads, lengths, links, and that the docs agree with the code.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use firstboot::seed;
use std::fs;
use std::path::PathBuf;

/// Longest source file, lines.
const MAX_LINES: usize = 500;
const SPDX: &str = "// SPDX-License-Identifier: Apache-2.0";

fn root() -> PathBuf {
    PathBuf::from("..")
}

/// Every file of the repository that is text, with its path relative to the root.
fn files() -> Vec<(String, String)> {
    let (root, mut found) = (root(), Vec::new());
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if [".git", "target", "out"].contains(&name.as_str()) {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                dirs.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.push((name, text));
            }
        }
    }
    assert!(found.iter().any(|(name, _)| name == "firstboot/tests/tidy.rs"), "found no files");
    found.sort();
    found
}

fn ending(ending: &str) -> Vec<(String, String)> {
    files().into_iter().filter(|(name, _)| name.ends_with(ending)).collect()
}

fn none(what: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn sources_open_with_licence_and_purpose() {
    let good = |text: &str| {
        let mut lines = text.lines();
        lines.next() == Some(SPDX) && lines.next().is_some_and(|l| l.starts_with("//! "))
    };
    let wrong: Vec<String> = ending(".rs").into_iter().filter(|(_, t)| !good(t)).map(|(n, _)| n).collect();
    none("without SPDX line and //! head", &wrong);
}

#[test]
fn sources_are_short() {
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("{name}: {lines} lines"))
    };
    none("longer than 500 lines", &ending(".rs").into_iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn toml_files_parse() {
    let broken = |(name, text): (String, String)| {
        toml::from_str::<toml::Table>(&text).err().map(|e| format!("{name}: {}", e.message()))
    };
    none("not TOML", &ending(".toml").into_iter().filter_map(broken).collect::<Vec<_>>());
}

/// Hosts of registries and mirrors come from each machine's own settings; paths of one machine help no other.
#[test]
fn no_registry_host_and_no_path_of_one_machine() {
    let words = [
        concat!("index.", "crates.io"),
        concat!("proxy.", "golang.org"),
        concat!("pypi", ".org"),
        concat!("files.", "pythonhosted.org"),
        concat!("deb.", "debian.org"),
        concat!("arti", "factory"),
        concat!("/work", "/"),
        concat!("/root", "/."),
        concat!("/home", "/"),
    ];
    // Go's own default, for a machine without Go.
    let default = |name: &str, line: &str| name == "imagebuild/src/go.rs" && line.starts_with("const DEFAULT_PROXY");
    let mut wrong = Vec::new();
    for (name, text) in files() {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !default(&name, line)) {
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                wrong.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none("names a host or a path", &wrong);
}

#[test]
fn links_in_docs_resolve() {
    let mut wrong = Vec::new();
    for (name, text) in ending(".md") {
        let dir = root().join(&name).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            let file = link.split('#').next().unwrap();
            let elsewhere = link.contains("://") || file.is_empty();
            if !elsewhere && !dir.join(file).exists() {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    none("link to nothing", &wrong);
}

#[test]
fn commands_in_docs_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut wrong = Vec::new();
    for (name, text) in ending(".md") {
        for command in text.split("`make ").skip(1).filter_map(|t| t.split('`').next()) {
            // `make bench` and `make image TARGET=…` are commands; "`make room for …`" is an error message.
            let mut words = command.split_whitespace();
            let word = words.next().unwrap_or_default();
            let is_command = words.all(|w| w.contains('='));
            if is_command && !makefile.lines().any(|l| l.starts_with(&format!("{word}:"))) {
                wrong.push(format!("{name}: make {word}"));
            }
        }
    }
    none("no such make target", &wrong);
}

/// Rows of a table, split at `|`. A row whose first cell is empty continues the one above and is left out.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let rows = table.lines().skip(2).map(|l| l.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|first| !first.is_empty())).collect()
}

/// docs/operations.md lists the phases in the order of the table.
#[test]
fn phases_are_documented() {
    let doc = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table = doc.split("| phase | makes true |").nth(1).unwrap().split("\n\n").next().unwrap();
    let documented: Vec<&str> = rows(table).iter().map(|row| row[1]).collect();
    let phases: Vec<&str> = firstboot::phases::PHASES.iter().map(|p| p.name).collect();
    assert_eq!(documented, phases);
}

/// docs/operations.md lists the preflight checks in their order, and which of them the phase looks at.
#[test]
fn preflight_checks_are_documented() {
    let doc = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let table = doc.split("| check | first |").nth(1).unwrap().split("\n\n").next().unwrap();
    let row = |r: &Vec<&str>| (r[1].trim_matches('`').to_owned(), r[2] == "yes");
    let documented: Vec<(String, bool)> = rows(table).iter().map(row).collect();
    let checks = firstboot::preflight::CHECKS.iter();
    assert_eq!(documented, checks.map(|c| (c.id.to_owned(), c.early)).collect::<Vec<_>>());
}

/// docs/seed.md lists, under a heading for each table, exactly the keys that the parser knows.
#[test]
fn seed_keys_are_documented() {
    let doc = fs::read_to_string(root().join("docs/seed.md")).unwrap();
    for (table, keys) in seed::KEYS {
        let heading = if table.is_empty() { "## Top level".to_owned() } else { format!("## [{table}]") };
        let section = doc.split("\n## ").map(|s| format!("## {s}")).find(|s| s.starts_with(&heading));
        let section = section.unwrap_or_else(|| panic!("docs/seed.md has no heading {heading}"));
        let rows = section.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
        let mut documented: Vec<&str> = rows.collect();
        let mut known = keys.to_vec();
        documented.sort_unstable();
        known.sort_unstable();
        assert_eq!(documented, known, "keys under {heading} in docs/seed.md");
    }
}

/// Examples in docs/seed.md are read by the parser itself; those that open with `# refused: CODE: TEXT` are refused so.
#[test]
fn seed_examples_are_true() {
    let doc = fs::read_to_string(root().join("docs/seed.md")).unwrap();
    let (mut read, mut refused) = (0, 0);
    for block in doc.split("```toml\n").skip(1).map(|b| b.split("```").next().unwrap()) {
        let result = seed::parse_request(block.as_bytes()).map(drop).map_err(|e| format!("{}: {e}", e.code));
        // A long text goes on in lines that are indented.
        let mut lines = block.lines();
        let first = lines.next().and_then(|l| l.strip_prefix("# refused: "));
        match first {
            Some(text) => {
                let more = lines.map_while(|l| l.strip_prefix("#   "));
                let text = std::iter::once(text).chain(more).collect::<Vec<_>>().join(" ");
                assert_eq!(result, Err(text), "{block}");
                refused += 1;
            }
            None => {
                assert_eq!(result, Ok(()), "{block}");
                read += 1;
            }
        }
    }
    assert!(read >= 2 && refused >= 5, "only {read} good and {refused} bad examples in docs/seed.md");
}

/// Longest line of a document, characters.
const MAX_COLUMNS: usize = 100;

/// Words that have a standard term, or that leave open who is meant.
const WORDS: [&str; 11] =
    ["folder", "folders", "nobody", "somebody", "whoever", "wants", "lay", "mend", "mends", "told", "whose move"];

/// What is wrong with the lines of a document, one line each.
///
/// Two things stay in one piece and may be longer: a command to paste in an example, and code in a table.
fn wrong_lines(name: &str, text: &str) -> Vec<String> {
    let (mut wrong, mut fenced) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.starts_with("```");
        let is_command = name == "docs/seed.md" && fenced && line.starts_with("join = ");
        let is_code = name == "docs/hardening.md"
            && line.starts_with('|')
            && line.split('`').skip(1).step_by(2).any(|code| code.chars().count() > 80);
        if is_command || is_code {
            continue;
        }
        let columns = line.chars().count();
        if columns > MAX_COLUMNS {
            wrong.push(format!("{name}:{}: {columns} columns", number + 1));
        }
        if fenced || line.starts_with("    ") {
            continue;
        }
        wrong.extend(words_to_avoid(line).iter().map(|word| format!("{name}:{}: {word}", number + 1)));
    }
    wrong
}

/// The words of [`WORDS`] in a line of prose. Text between code marks is left out.
fn words_to_avoid(line: &str) -> Vec<&'static str> {
    let prose = line.split('`').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase();
    let words: Vec<&str> = prose.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let words = format!(" {} ", words.join(" "));
    WORDS.iter().copied().filter(|word| words.contains(&format!(" {word} "))).collect()
}

/// The comment of a source line: after `//`, at the start of the line or after a space. A `//` in a URL is none.
fn comment(line: &str) -> Option<&str> {
    let start = if line.trim_start().starts_with("//") { line.find("//") } else { line.find(" // ") };
    start.map(|start| &line[start..])
}

#[test]
fn comments_use_standard_words() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for (name, text) in ending(".rs") {
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = comment(line) else { continue };
            checked += 1;
            wrong.extend(words_to_avoid(comment).iter().map(|word| format!("{name}:{}: {word}", number + 1)));
        }
    }
    assert!(checked > 1000, "only {checked} lines with a comment");
    none("a word to avoid in a comment", &wrong);
}

#[test]
fn only_words_in_comments_are_found() {
    let found = |line: &str| comment(line).map(words_to_avoid).unwrap_or_default();
    assert_eq!(found("    /// A folder that Nobody reads."), ["folder", "nobody"]);
    assert_eq!(found(concat!("let a = 1; /", "/ as told")), ["told"]);
    assert_eq!(found("let folder = \"https://folder\";"), [""; 0]);
    assert_eq!(found("/// On Debian: `nobody`."), [""; 0]);
}

#[test]
fn documents_are_narrow_and_use_standard_words() {
    let files = files();
    // Drawings are made by `make compare`, and are not read as text.
    let is_document = |name: &str| name == "README.md" || name.starts_with("docs/") && !name.ends_with(".svg");
    let documents = files.iter().filter(|(name, _)| is_document(name));
    let wrong: Vec<String> = documents.flat_map(|(name, text)| wrong_lines(name, text)).collect();
    none("longer than 100 columns, or a word to avoid", &wrong);
}

#[test]
fn a_long_line_and_a_word_to_avoid_are_found() {
    let long = "x".repeat(101);
    assert_eq!(wrong_lines("README.md", &format!("{}ü\n{long}\n", "x".repeat(99))), ["README.md:2: 101 columns"]);
    let text =
        "The overlay and `somebody`.\nNobody: look\nit is\nwhose move?\n\n    told\n```\ntold\n```\nWho told it\n";
    let found = ["README.md:2: nobody", "README.md:4: whose move", "README.md:10: told"];
    assert_eq!(wrong_lines("README.md", text), found);
    let code = |length: usize| format!("| `{}` | {} |", "x".repeat(length), "y".repeat(90));
    assert_eq!(
        (wrong_lines("docs/hardening.md", &code(81)).len(), wrong_lines("docs/hardening.md", &code(80)).len()),
        (0, 1)
    );
    let example = |line: &str| format!("```toml\n{line}\n```\n");
    let (command, other) = (example(&format!("join = {long}")), example(&long));
    assert_eq!((wrong_lines("docs/seed.md", &command).len(), wrong_lines("docs/seed.md", &other).len()), (0, 1));
    assert_eq!((wrong_lines("README.md", &code(81)).len(), wrong_lines("README.md", &command).len()), (1, 1));
}

#[test]
fn each_shared_path_stands_once() {
    let list = fs::read_to_string(root().join("firstboot/src/paths.rs")).unwrap();
    let shared: Vec<&str> = list
        .lines()
        .filter_map(|l| l.strip_prefix("pub const ")?.split_once("= "))
        .map(|(_, p)| p.trim_end_matches(';'))
        .collect();
    assert!(shared.len() > 20 && shared.iter().all(|path| path.starts_with("\"/")), "{shared:?}");
    let is_test = |name: &str| name.contains("/tests") || name.contains("_tests") || name.contains("/test_");
    let mut wrong = Vec::new();
    for (name, text) in ending(".rs") {
        if !name.starts_with("firstboot/src/") || name == "firstboot/src/paths.rs" || is_test(&name) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
            wrong.extend(
                shared.iter().filter(|path| line.contains(**path)).map(|path| format!("{name}:{}: {path}", number + 1)),
            );
        }
    }
    none("use the constant of paths.rs", &wrong);
}

/// Clones share what cargo built (`imagebuild/tools/share-build-directory`), and cargo builds nothing again because it is
/// in another directory: a program that knows where it was built would read the files of another clone.
#[test]
fn programs_do_not_know_where_they_were_built() {
    let variable = ["env!(\"CARGO_", "MANIFEST_DIR\")"].concat();
    let wrong: Vec<String> =
        ending(".rs").into_iter().filter(|(_, text)| text.contains(&variable)).map(|(name, _)| name).collect();
    none("contains the directory of a clone; tests run in their package's directory", &wrong);
}
