// SPDX-License-Identifier: Apache-2.0
//! The layout of a disk as a drawing (SVG 2), to scale: the image at the left, and at the right what a device makes of it
//! at its first boot. The page's style has the colours.

use super::text::{MIB, size};
use firstboot::text::html as escaped;
use initrd::layout;
use initrd::table::{Numbered, SECTOR};
use std::collections::BTreeMap;
use std::fmt::Write;
use uuid::Uuid;

/// Bytes of the disk in the drawing: what is sold as 16 GB.
pub const EXAMPLE: u64 = 16_000_000_000;
/// Largest disk that is tried for [`least`], MiB.
const LARGEST: u64 = 1 << 20;

/// Units of the drawing; on a phone one is a pixel or a little less.
const WIDTH: f64 = 340.0;
const COLUMN: f64 = 140.0;
const RIGHT: f64 = WIDTH - COLUMN - 1.0;
const TOP: f64 = 22.0;
/// What a line of text needs.
const LINE: f64 = 15.0;
/// Height of the slots of a device, at most: a drawing that is higher does not fit a screen.
const MOST: f64 = 640.0;
/// Height of data, whose end is cut off.
const DATA: f64 = 64.0;

/// A partition in the drawing, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

fn piece(entry: &initrd::table::Entry) -> Piece {
    let (offset, end) = (entry.first * SECTOR, (entry.last + 1) * SECTOR);
    Piece { name: entry.name.clone(), offset, length: end - offset }
}

/// The partitions of an image.
pub fn of_image(table: &[Numbered]) -> Vec<Piece> {
    table.iter().map(|(_, entry)| piece(entry)).collect()
}

/// The partitions of a device with a disk of so many bytes, after its first boot: by the initrd's own rules.
pub fn of_device(table: &[Numbered], slot: Option<u64>, disk: u64) -> Vec<Piece> {
    let mut all: BTreeMap<u32, Piece> = table.iter().map(|(number, entry)| (*number, piece(entry))).collect();
    let planned = layout::plan(table, disk / SECTOR, slot, Uuid::nil());
    all.extend(planned.iter().map(|(number, entry)| (*number, piece(entry))));
    all.into_values().collect()
}

/// MiB of the smallest disk on which the partition `name` is made; none when no disk has it.
pub fn least(table: &[Numbered], slot: Option<u64>, name: &str) -> Option<u64> {
    let has = |mib: u64| of_device(table, slot, mib * MIB).iter().any(|piece| piece.name == name);
    if !has(LARGEST) {
        return None;
    }
    let (mut without, mut with) = (0, LARGEST);
    while with - without > 1 {
        let middle = without.midpoint(with);
        if has(middle) { with = middle } else { without = middle }
    }
    Some(with)
}

/// The drawing. Partitions of both sides have one scale, except data, whose end is cut off.
pub fn draw(image: &[Piece], device: &[Piece]) -> String {
    let end = |pieces: &[Piece]| pieces.iter().map(|p| p.offset + p.length).max().unwrap_or(MIB);
    let scaled: Vec<Piece> = device.iter().filter(|p| p.name != layout::DATA).cloned().collect();
    let most = end(&scaled).max(end(image)) as f64;
    let smallest = image.iter().map(|p| p.length).min().unwrap_or(MIB).max(1) as f64;
    // As large as the smallest partition needs for its line of text.
    let scale = (LINE / smallest).min(MOST / most);
    let y = |byte: u64| TOP + byte as f64 * scale;
    let has_data = scaled.len() < device.len();
    let height = y(most as u64) + if has_data { DATA + 12.0 } else { 2.0 };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" role=\"img\" aria-label=\"Partitions of the image, and of a device \
         after its first boot\">\n<text class=\"head\" x=\"0\" y=\"13\">image</text>\n\
         <text class=\"head\" x=\"{RIGHT}\" y=\"13\">device</text>\n"
    );
    // Which partition of the image becomes which one of the device.
    for from in image {
        if let Some(to) = scaled.iter().find(|to| to.name == from.name) {
            let (a, b, c, d) = (y(from.offset), y(from.offset + from.length), y(to.offset + to.length), y(to.offset));
            let _ = writeln!(svg, "<path class=\"link\" d=\"M{COLUMN} {a:.1}V{b:.1}L{RIGHT} {c:.1}V{d:.1}z\"/>");
        }
    }
    let mut put = |x: f64, at: &Piece, is_new: bool| {
        let (top, high) = (y(at.offset), at.length as f64 * scale);
        let class = format!("{} {}", class(&at.name), if is_new { "new" } else { "" });
        let (name, length) = (escaped(&at.name), size(at.length));
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x}\" y=\"{top:.1}\" width=\"{COLUMN}\" height=\"{high:.1}\"><title>{name} \
             {length}</title></rect>",
            class.trim_end()
        );
        // A line that does not fit is left to the table beside the drawing.
        if high + 0.01 >= LINE * 0.8 {
            let middle = top + high / 2.0 + 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{middle:.1}\">{name}</text><text class=\"size\" x=\"{:.1}\" \
                 y=\"{middle:.1}\">{length}</text>",
                x + 7.0,
                x + COLUMN - 7.0
            );
        }
    };
    image.iter().for_each(|at| put(0.5, at, false));
    for at in &scaled {
        put(RIGHT, at, image.iter().all(|other| other.name != at.name));
    }
    if let Some(data) = device.iter().find(|p| p.name == layout::DATA) {
        let (top, right) = (y(data.offset), RIGHT + COLUMN);
        let bottom = top + DATA;
        let teeth: String =
            (0..10).map(|n| format!("l{} {}", -COLUMN / 10.0, if n % 2 == 0 { 8 } else { -8 })).collect();
        let _ = writeln!(
            svg,
            "<path class=\"data new\" d=\"M{RIGHT} {top:.1}H{right}V{bottom:.1}{teeth}z\"><title>data {0}</title></path>\n\
             <text x=\"{1:.1}\" y=\"{2:.1}\">data</text><text class=\"size\" x=\"{3:.1}\" y=\"{2:.1}\">the rest</text>",
            size(data.length),
            RIGHT + 7.0,
            top + DATA / 2.0,
            right - 7.0
        );
    }
    svg + "</svg>\n"
}

/// What the page's style knows a partition by.
pub fn class(name: &str) -> &'static str {
    match name {
        "root-a" | "root-b" => "root",
        layout::DATA => "data",
        "BOOT" => "boot",
        _ => "system",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use initrd::table::Entry;

    /// BOOT of 40 MiB, ESP of 96 MiB, a root of 300 MiB.
    pub fn table() -> Vec<Numbered> {
        let entry = |kind: Uuid, name: &str, first: u64, mib: u64| {
            let (first, last) = (first * MIB / SECTOR, (first + mib) * MIB / SECTOR - 1);
            Entry { kind, id: Uuid::nil(), first, last, flags: 0, name: name.to_owned() }
        };
        let other = Uuid::from_u128(1);
        vec![
            (1, entry(other, "BOOT", 1, 40)),
            (2, entry(other, "ESP", 41, 96)),
            (3, entry(layout::ROOT_X86_64, "root-a", 137, 300)),
        ]
    }

    const SLOT: Option<u64> = Some(768 << 20);

    #[test]
    fn a_device_has_what_the_initrd_makes() {
        let names = |disk: u64| {
            let pieces = of_device(&table(), SLOT, disk);
            pieces.into_iter().map(|p| format!("{} {}", p.name, size(p.length))).collect::<Vec<_>>()
        };
        let whole = ["BOOT 40 MiB", "ESP 96 MiB", "root-a 768 MiB", "root-b 768 MiB", "data 13.3 GiB"];
        assert_eq!(names(EXAMPLE), whole);
        assert_eq!(names(1 << 29), ["BOOT 40 MiB", "ESP 96 MiB", "root-a 300 MiB"]);
        // One MiB before the first partition, one for the backup table.
        assert_eq!(least(&table(), SLOT, "root-b"), Some(1 + 40 + 96 + 2 * 768 + 1024 + 1));
        assert_eq!(least(&table(), SLOT, "data"), Some(1 + 40 + 96 + 300 + 128 + 1));
        assert_eq!(least(&table(), None, "root-b"), None);
    }

    #[test]
    fn lengths_are_to_scale() {
        let svg = draw(&of_image(&table()), &of_device(&table(), SLOT, EXAMPLE));
        let height = |title: &str| -> f64 {
            let line = svg.lines().find(|line| line.contains(&format!("<title>{title}</title>"))).unwrap();
            line.split("height=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert_eq!((height("BOOT 40 MiB"), height("ESP 96 MiB")), (15.0, 36.0));
        assert_eq!(
            (height("root-a 300 MiB"), height("root-a 768 MiB"), height("root-b 768 MiB")),
            (112.5, 288.0, 288.0)
        );
        // What the device adds, and no other, is marked as new.
        assert_eq!((svg.matches("class=\"root new\"").count(), svg.matches(" new\"").count()), (1, 2), "{svg}");
        assert_eq!((svg.matches("class=\"link\"").count(), svg.matches(">the rest<").count()), (3, 1));
    }

    #[test]
    fn names_are_escaped_and_thin_partitions_have_no_text() {
        let at = |name: &str, offset, length| Piece { name: name.to_owned(), offset, length };
        let svg = draw(&[at("<i>", MIB, 2 * MIB), at("large", 3 * MIB, 1 << 30)], &[]);
        assert!(svg.contains("<title>&lt;i&gt; 2 MiB</title>") && !svg.contains("<i>"), "{svg}");
        assert!(!svg.contains(">&lt;i&gt;</text>") && svg.contains(">large</text>"), "{svg}");
    }
}
