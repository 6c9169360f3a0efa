// SPDX-License-Identifier: Apache-2.0
//! The sheet of labels as one HTML page, for a screen and for A4 paper; it loads nothing.

use super::label::{Label, runs};
use firstboot::text::html as escaped;
use std::fmt::Write;

/// Blank modules around a QR code (ISO/IEC 18004, §5.3.8).
const QUIET: usize = 4;
const STYLE: &str = "\
@page { size: A4; margin: 5mm }
body { font: 3mm/1.3 sans-serif; margin: 0; color: #000; background: #fff }
ol { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, 65mm); gap: 1mm }
li { box-sizing: border-box; width: 65mm; min-height: 34mm; padding: 1.5mm; border: .2mm dashed #888; display: flex;
  gap: 1.5mm; break-inside: avoid }
svg { width: 27mm; height: 27mm; flex: none }
b { font-size: 3.6mm; overflow-wrap: anywhere }
div { min-width: 0 }
p { margin: 0; overflow-wrap: anywhere }
";

/// The page.
pub fn page(labels: &[Label]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{} devices</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<ol>\n",
        labels.len()
    );
    for label in labels {
        let _ = writeln!(page, "<li>{}<div><b>{}</b>", code(label), escaped(&label.title));
        for line in &label.lines {
            let _ = writeln!(page, "<p>{}</p>", escaped(line));
        }
        page.push_str("</div></li>\n");
    }
    page.push_str("</ol>\n</body>\n</html>\n");
    page
}

fn code(label: &Label) -> String {
    let modules = label.modules();
    let size = modules.len() + 2 * QUIET;
    let mut path = String::new();
    for (y, row) in modules.iter().enumerate() {
        for (x, count) in runs(row) {
            let _ = write!(path, "M{} {}h{count}v1h-{count}z", x + QUIET, y + QUIET);
        }
    }
    format!(
        "<svg viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\" role=\"img\" aria-label=\"QR code: {}\">\
         <path d=\"{path}\"/></svg>",
        escaped(&label.code)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::label::testing::device;

    #[test]
    fn a_page_has_every_device_and_no_markup_of_a_value() {
        let labels: Vec<Label> =
            [device(1, "<b>Łódź</b>"), device(2, "a \"b\"")].iter().map(|d| Label::new(d, false)).collect();
        let page = page(&labels);
        assert_eq!((page.matches("<li>").count(), page.matches("<svg").count()), (2, 2));
        assert!(
            page.contains("<b>edge-1</b>\n<p>&lt;b&gt;Łódź&lt;/b&gt;</p>\n<p>serial 10000000a3f2b101</p>\n"),
            "{page}"
        );
        assert!(page.contains("<p>a &quot;b&quot;</p>") && page.contains("rack 7 &amp; 8"), "{page}");
        assert!(!page.contains("0123456789abcdef") && !page.contains("http"), "no secret, and nothing is loaded");
    }
}
