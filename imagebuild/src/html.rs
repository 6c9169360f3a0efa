// SPDX-License-Identifier: Apache-2.0
//! Text in HTML pages and in drawings.

/// Text as it stands in an element, or between double quotes in an attribute (HTML, "Serializing HTML fragments").
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_markup_is_left() {
        assert_eq!(escaped("<a href=\"x\">R&D</a>"), "&lt;a href=&quot;x&quot;&gt;R&amp;D&lt;/a&gt;");
    }
}
