// SPDX-License-Identifier: Apache-2.0
//! The sheet of labels as PDF: A4, 3 by 8 labels of 70 by 37 mm, as sheets of stickers have them (Avery L3474).
//!
//! The font is Helvetica, which every reader has (ISO 32000-1, §9.6.2.2). It covers Western European letters; others are
//! printed as `?`, and the HTML page has them.

use super::label::{Label, runs};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str};
use std::io::{self, Write};

/// Points in a millimetre.
const MM: f32 = 72.0 / 25.4;
const PAGE: (f32, f32) = (210.0 * MM, 297.0 * MM);
const LABEL: (f32, f32) = (70.0 * MM, 37.0 * MM);
const COLUMNS: usize = 3;
const ROWS: usize = 8;
/// What printers leave white at the edges, and stickers too.
const MARGIN: f32 = 4.0 * MM;
const CODE: f32 = 26.0 * MM;
/// Heights of title and text, points.
const TITLE: f32 = 9.0;
const TEXT: f32 = 7.5;
/// Width of a letter as a part of its height, on average and a little more: lines are broken before the edge.
const WIDTH: f32 = 0.56;
const REGULAR: Name<'static> = Name(b"F1");
const BOLD: Name<'static> = Name(b"F2");

/// The document.
///
/// # Errors
/// When a page cannot be compressed.
pub fn document(labels: &[Label]) -> io::Result<Vec<u8>> {
    let mut pdf = Pdf::new();
    let (catalog, tree, regular, bold) = (Ref::new(1), Ref::new(2), Ref::new(3), Ref::new(4));
    let pages: Vec<&[Label]> = labels.chunks(COLUMNS * ROWS).collect();
    let page_ref = |index: usize| Ref::new(5 + 2 * index as i32);
    let content_ref = |index: usize| Ref::new(6 + 2 * index as i32);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids((0..pages.len()).map(page_ref)).count(pages.len() as i32);
    for (font, name) in [(regular, &b"Helvetica"[..]), (bold, b"Helvetica-Bold")] {
        pdf.type1_font(font).base_font(Name(name)).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for (index, labels) in pages.into_iter().enumerate() {
        let mut page = pdf.page(page_ref(index));
        page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1)).parent(tree).contents(content_ref(index));
        page.resources().fonts().pair(REGULAR, regular).pair(BOLD, bold);
        page.finish();
        pdf.stream(content_ref(index), &packed(&content(labels))?).filter(Filter::FlateDecode);
    }
    Ok(pdf.finish())
}

/// What a page is drawn by.
fn content(labels: &[Label]) -> Vec<u8> {
    let mut content = Content::new();
    for (place, label) in labels.iter().enumerate() {
        draw(&mut content, label, place);
    }
    content.finish().to_vec()
}

fn packed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Draws a label at its place on the page, counted by rows.
fn draw(content: &mut Content, label: &Label, place: usize) {
    let left = (place % COLUMNS) as f32 * LABEL.0;
    let top = PAGE.1 - (PAGE.1 - ROWS as f32 * LABEL.1) / 2.0 - (place / COLUMNS) as f32 * LABEL.1;
    content.save_state();
    // A label ends where the next one begins, however much stands on it.
    content.rect(left, top - LABEL.1, LABEL.0, LABEL.1).clip_nonzero().end_path();
    let modules = label.modules();
    let module = CODE / modules.len().max(1) as f32;
    for (y, row) in modules.iter().enumerate() {
        for (x, count) in runs(row) {
            let (x, y) = (left + MARGIN + x as f32 * module, top - MARGIN - (y + 1) as f32 * module);
            content.rect(x, y, module * count as f32, module);
        }
    }
    content.fill_nonzero();
    let x = left + MARGIN + CODE + 2.5 * MM;
    let width = left + LABEL.0 - MARGIN / 2.0 - x;
    let mut y = top - MARGIN;
    let title = std::iter::once((BOLD, TITLE, &label.title));
    for (font, size, text) in title.chain(label.lines.iter().map(|line| (REGULAR, TEXT, line))) {
        for line in broken(text, (width / (size * WIDTH)) as usize) {
            y -= size * 1.15;
            content.begin_text().set_font(font, size).next_line(x, y).show(Str(&line)).end_text();
        }
    }
    content.restore_state();
}

/// Lines of at most `most` letters, in WinAnsiEncoding, which is Latin-1 for letters.
fn broken(text: &str, most: usize) -> Vec<Vec<u8>> {
    let byte =
        |c: char| u8::try_from(u32::from(c)).ok().filter(|b| (0x20..0x7f).contains(b) || *b >= 0xa0).unwrap_or(b'?');
    let letters: Vec<u8> = text.chars().map(byte).collect();
    letters.chunks(most.max(1)).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fleet::label::testing::device;

    #[test]
    fn a_document_has_a_page_for_each_24_labels() {
        let labels: Vec<Label> = (0..50).map(|n| Label::new(&device(n, "Café"), false)).collect();
        let document = document(&labels).unwrap();
        let text = String::from_utf8_lossy(&document);
        assert!(text.starts_with("%PDF-1.7") && text.trim_end().ends_with("%%EOF"));
        assert!(text.contains("/Count 3") && text.matches("/FlateDecode").count() == 3, "three pages");
        let pages: String = labels.chunks(24).map(|labels| String::from_utf8(content(labels)).unwrap()).collect();
        assert_eq!(pages.matches("(edge-7)").count(), 1);
        assert!(pages.to_uppercase().contains("<436166E9>"), "Café");
        assert!(!pages.contains("0123456789abcdef"));
    }

    #[test]
    fn long_texts_are_broken_and_foreign_letters_are_marked() {
        assert_eq!(broken("abcdefg", 3), [&b"abc"[..], b"def", b"g"]);
        assert_eq!(broken("Łódź\n", 9), [b"?\xf3d??"]);
    }
}
