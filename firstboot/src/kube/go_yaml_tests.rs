// SPDX-License-Identifier: Apache-2.0
//! Values as sigs.k8s.io/yaml 1.6.0 converts them to JSON.

use super::*;
use serde_json::json;

fn value(text: &str) -> Value {
    read(text, 1).unwrap().value
}

#[test]
fn plain_words_are_what_yaml_1_1_takes_them_for() {
    for (text, want) in [
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("y", json!(true)),
        ("\"yes\"", json!("yes")),
        ("'no'", json!("no")),
        ("!!str on", json!("on")),
        ("yES", json!("yES")),
        ("0x40", json!(64)),
        ("0X40", json!(64)),
        ("1_0", json!(10)),
        ("'1_0'", json!("1_0")),
        ("017", json!(15)),
        ("-017", json!(-15)),
        ("0o17", json!(15)),
        ("089", json!(89)),
        ("0b11", json!(3)),
        ("1:30", json!("1:30")),
        ("1e3", json!(1000)),
        ("1_000.5", json!(1000.5)),
        ("2026-11-22", json!("2026-11-22")),
        ("10.96.0.0/12", json!("10.96.0.0/12")),
        ("1.36.3", json!("1.36.3")),
        ("1.36", json!(1.36)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
        ("-", json!([null])),
        ("~", json!(null)),
        ("", json!(null)),
        ("<<", json!("<<")),
        ("|-\n  yes", json!("yes")),
        ("!own yes", json!("yes")),
    ] {
        let found = if text == "-" { value(text) } else { value(&format!("a: {text}\n"))["a"].clone() };
        assert_eq!(found, want, "{text}");
    }
    assert_eq!(value("[yes, \"no\", {on: off}]"), json!([true, "no", {"true": false}]));
    assert!(read("a: .inf\n", 1).is_err());
}

#[test]
fn of_a_key_that_is_given_twice_the_last_counts() {
    let document = read("a: 1\nb:\n  c: 2\n  \"c\": 3\na: 4\n", 10).unwrap();
    assert_eq!(document.value, json!({"a": 4, "b": {"c": 3}}));
    assert_eq!(document.repeated, [("b.c".to_owned(), 13), ("a".to_owned(), 14)]);
    assert_eq!((document.at("b.c").as_str(), document.at("x").as_str()), ("line 13: ", ""));
}

#[test]
fn merge_keys_and_anchors() {
    let text = "x: &a {m: 1, o: 2}\nv: &b {m: 3}\nz:\n  m: 0\n  <<: [*a, *b]\n  o: 4\nw: *b\n\"<<\": {q: 1}\n";
    let want = json!({"x": {"m": 1, "o": 2}, "v": {"m": 3}, "z": {"m": 1, "o": 4}, "w": {"m": 3}, "<<": {"q": 1}});
    assert_eq!(value(text), want);
    assert!(read("<<: 1\n", 1).is_err());
}

#[test]
fn documents_end_at_lines_of_three_dashes() {
    assert_eq!(documents("a\n---\nb\n").unwrap(), [(1, "a\n"), (3, "b\n")]);
    assert_eq!(documents("---\n---  # c\r\nb").unwrap(), [(3, "b")]);
    assert_eq!(documents("# c\n---\nb\n---\n").unwrap(), [(1, "# c\n"), (3, "b\n")]);
    assert_eq!(documents("").unwrap(), []);
    assert_eq!(documents("a\n--- b\n"), Err("line 2: only a comment may follow ---".to_owned()));
}

#[test]
fn an_error_names_the_line() {
    let why = |text: &str| read(text, 5).unwrap_err();
    assert_eq!(why("a:\n\tb: 1\n"), "line 6: a tab indents it, which YAML does not allow");
    assert_eq!(why("a: 1\nb: [\n"), "line 7: it is no YAML");
    assert_eq!(read_object("{a: b}\n", 5).unwrap_err(), "line 5: it begins with a brace, but is no JSON");
    assert_eq!(read_object("{\"a\": 1}", 5).unwrap().value, json!({"a": 1}));
    assert_eq!(value("\u{feff}a: yes\r\nb: no\r\n"), json!({"a": true, "b": false}));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let all = json!({
        "a": ["yes", "0x40", "1:30", "a: b", "", " x", "#", "10.96.0.10", "unix:///run/x.sock", "é", "a\nb", "~", "12"],
        "b": {"c": {}, "d": [], "on": true, "e": null, "f": [[1, 2], [{"g": 1.5, "h": {"i": "j"}}]]},
        "<<": "x", "z": -3
    });
    let text = write(&all);
    assert_eq!(value(&text), all, "{text}");
    let others: Value = serde_yaml_ng::from_str(&text).unwrap();
    assert_eq!(others, all, "{text}");
    let want = "a:\n- b: 1\n  c: 2\nd: unix:///run/x.sock\ne: \"10.96.0.10\"\nf:\n  g: cluster.local\n";
    assert_eq!(
        write(
            &json!({"a": [{"b": 1, "c": 2}], "d": "unix:///run/x.sock", "e": "10.96.0.10", "f": {"g": "cluster.local"}})
        ),
        want
    );
}
