// SPDX-License-Identifier: Apache-2.0
//! The status as a page: the facts of the text file for people who double-click. Without a script and without anything that
//! is loaded from elsewhere (HTML Living Standard).

use crate::status::{State, Status};
use crate::text::html as escaped;
use std::fmt::Write;

/// Name of the page on the boot partition.
pub const HTML_NAME: &str = "firstboot-status.html";

/// Size of the page in bytes: fixed, so that it is overwritten in place and no directory entry changes.
pub const HTML_SIZE: usize = 16384;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:1.5rem auto;padding:0 1rem;color:#1c2430;background:#fff}\
h1{font-size:1.4rem;margin:0 0 1rem;padding:.6rem .9rem;border-left:.5rem solid var(--c);background:#f2f4f7}\
h2{font-size:1rem;margin:1.5rem 0 .3rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #d9dee5}\
th{font-weight:600;white-space:nowrap}td{overflow-wrap:anywhere}\
.bar{width:40%}.bar i{display:block;height:.7rem;background:#5b7fb5}.n{text-align:right;font-variant-numeric:tabular-nums}\
@media(prefers-color-scheme:dark){body{color:#e4e8ee;background:#14181e}h1{background:#1f2630}\
th,td{border-color:#333c48}}";

/// The page of a status, cut or filled up with blank lines to its fixed size.
pub fn html_file(status: &Status) -> Vec<u8> {
    let mut bytes = page(status).into_bytes();
    bytes.resize(HTML_SIZE, b'\n');
    bytes
}

/// The page, not filled up.
fn page(status: &Status) -> String {
    let title = match &status.node {
        Some(node) => format!("{node}: {}", status.state),
        None => format!("Device: {}", status.state),
    };
    let (title, colour) = (escaped(&title), colour(status.state));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>:root{{--c:{colour}}}{STYLE}</style>\n<h1>{title}</h1>\n<table>\n"
    );
    let text = status.text();
    let facts = text.lines().take_while(|line| !line.starts_with("phases"));
    for (key, value) in facts.filter_map(|line| line.split_once(": ")) {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "<tr><th>{}<td>{}", escaped(key), escaped(value));
    }
    page.push_str("</table>\n");
    let longest = status.phases.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    if longest > 0.0 {
        page.push_str("<h2>Phases, with seconds</h2>\n<table>\n");
        for (name, seconds) in &status.phases {
            let (name, part) = (escaped(name), seconds / longest * 100.0);
            let _ = writeln!(
                page,
                "<tr><td>{name}<td class=\"n\">{seconds:.2}<td class=\"bar\"><i style=\"width:{part:.1}%\"></i>"
            );
        }
        page.push_str("</table>\n");
    }
    page + "</html>\n"
}

/// Blue while it works, green as a node, amber when it needs a person or tries again, red when it stopped.
fn colour(state: State) -> &'static str {
    match state {
        State::Joined => "#2e8b57",
        State::Working | State::Resetting => "#3b6fb6",
        State::Waiting | State::Retrying => "#c98a1b",
        State::Stopped => "#b3362b",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Owner;

    fn status() -> Status {
        Status {
            state: State::Retrying,
            node: Some("edge-1".into()),
            owner: Some(Owner::Cluster),
            error: Some("ask https://a/<script>alert(1)</script> & more: refused".into()),
            phases: vec![("preflight".into(), 0.5), ("join".into(), 2.0)],
            ..Status::default()
        }
    }

    #[test]
    fn the_page_has_every_line_of_the_text() {
        let (page, text) = (page(&status()), status().text());
        let facts = text.lines().take_while(|line| !line.starts_with("phases"));
        for (key, value) in facts.map(|line| line.split_once(": ").unwrap()) {
            assert!(page.contains(&format!("<tr><th>{key}<td>{}\n", escaped(value))), "{key}");
        }
        assert!(page.contains("<title>edge-1: retrying</title>"));
        assert!(page.contains("<td>join<td class=\"n\">2.00<td class=\"bar\"><i style=\"width:100.0%\"></i>"));
        assert!(page.contains("width:25.0%"));
    }

    #[test]
    fn nothing_of_a_value_becomes_markup() {
        let page = page(&status());
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; more"));
        for foreign in ["http-equiv", " src=", " href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_file_has_one_size() {
        for status in [Status::default(), status()] {
            let bytes = html_file(&status);
            assert_eq!(bytes.len(), HTML_SIZE);
            assert!(String::from_utf8(bytes).unwrap().trim_end().ends_with("</html>"));
        }
        let long = Status { error: Some("x".repeat(2 * HTML_SIZE)), ..Status::default() };
        assert_eq!(html_file(&long).len(), HTML_SIZE);
    }
}
