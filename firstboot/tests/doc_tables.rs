// SPDX-License-Identifier: Apache-2.0
//! Tables of documents whose rows take several lines: a row with an empty first cell continues the one above.

/// The document with each row of a table on one line. Code that was broken over lines is one piece again.
pub fn joined(document: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in document.lines() {
        let above = lines.last_mut().filter(|above| above.starts_with("| ") && line.starts_with("| | "));
        let Some(above) = above else {
            lines.push(line.to_owned());
            continue;
        };
        let (mut row, more) = (cells(above), cells(line));
        for (cell, more) in row.iter_mut().zip(more).filter(|(_, more)| !more.is_empty()) {
            *cell = format!("{cell} {more}").trim_start().replace("` `", " ");
        }
        *above = format!("| {} |", row.join(" | "));
    }
    lines.join("\n") + "\n"
}

/// Cells of a row. A bar after a backslash belongs to the cell.
fn cells(row: &str) -> Vec<String> {
    let row = row.replace("\\|", "\0");
    let row = row.trim().trim_start_matches('|').trim_end_matches('|');
    row.split('|').map(|cell| cell.trim().replace('\0', "\\|")).collect()
}

#[test]
fn rows_over_several_lines_are_joined() {
    let document = "| a | b |\n|---|---|\n| `x` | one |\n| | two |\n| y | `p` |\n| | `q` |\n\ntext\n| | z |\n";
    let want = "| a | b |\n|---|---|\n| `x` | one two |\n| y | `p q` |\n\ntext\n| | z |\n";
    assert_eq!(joined(document), want);
    assert_eq!(joined("| `\\|/bin` | 1 |\n| | 2 |\n"), "| `\\|/bin` | 1 2 |\n");
}
