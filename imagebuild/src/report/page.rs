// SPDX-License-Identifier: Apache-2.0
//! The page itself (HTML). Every value goes through [`escaped`].

use super::drawing;
use super::image::{Image, SummedFile};
use super::manifest::{Component, Manifest};
use super::space::Bytes;
use super::style::STYLE;
use super::text::{MIB, grouped, share, size};
use crate::disk::Placed;
use crate::target::Role;
use anyhow::Result;
use firstboot::bundle::BUNDLE_DIR;
use firstboot::text::html as escaped;
use firstboot::text::timestamp;
use std::fmt::Write;

/// Files in the table of the largest ones.
const LARGEST: usize = 15;
/// Sections: anchor and heading.
const SECTIONS: [(&str, &str); 6] = [
    ("disk", "Disk"),
    ("space", "What uses the space"),
    ("kubernetes", "Kubernetes and containers"),
    ("packages", "Debian packages"),
    ("files", "Files and digests"),
    ("use", "Flash and start"),
];

/// The page about an image.
pub fn page(manifest: &Manifest, image: &Image) -> Result<String> {
    let name = escaped(&image.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    page += &head(manifest, image);
    let bodies = [
        disk(manifest, image),
        space(manifest, image),
        kubernetes(manifest, image),
        packages(manifest),
        files(manifest, image),
        usage(manifest, image),
    ];
    for ((anchor, heading), body) in SECTIONS.into_iter().zip(bodies) {
        let _ = write!(page, "<section id=\"{anchor}\">\n<h2>{heading}</h2>\n{body}</section>\n");
    }
    let _ = writeln!(
        page,
        "<footer><p>Written by <code>imagebuild report</code> {} from the image and its manifest. Partitions, \
         target, build id, kernel image and root hash are the same in both.</p></footer>\n</body>\n</html>",
        env!("CARGO_PKG_VERSION")
    );
    Ok(page)
}

fn head(manifest: &Manifest, image: &Image) -> String {
    let raw = image.files.first().map_or(0, |file| file.size);
    let packed = image.files.iter().find(|file| file.name.ends_with(".zst"));
    let sizes = match packed {
        Some(packed) => format!("{}; {} compressed", size(raw), size(packed.size)),
        None => size(raw),
    };
    let kubernetes = manifest.kubernetes.as_deref().unwrap_or("none");
    let mut text = format!(
        "<header>\n<h1>{}</h1>\n<p>Image of firstboot for the target {}, {}</p>\n<nav>",
        escaped(&image.name),
        escaped(&manifest.target),
        escaped(&manifest.arch)
    );
    for (anchor, heading) in SECTIONS {
        let _ = write!(text, "<a href=\"#{anchor}\">{heading}</a>");
    }
    text += "</nav>\n</header>\n";
    for exception in &manifest.exceptions {
        let _ = writeln!(
            text,
            "<p class=\"mark\"><b>Exception <code>{}</code></b>: {}</p>",
            escaped(exception),
            escaped(meaning(exception))
        );
    }
    for file in image.files.iter().filter(|file| file.is_as_summed == Some(false)) {
        let _ = writeln!(
            text,
            "<p class=\"mark\"><b>{}</b> was changed since <code>SHA256SUMS</code> was written, as by a seed that was \
             put on it.</p>",
            escaped(&file.name)
        );
    }
    let rows = [
        ("Kubernetes", escaped(kubernetes)),
        ("Linux", escaped(&manifest.kernel)),
        ("Built", timestamp(manifest.build_time).replace('T', " ").replace('Z', " UTC")),
        ("Build id", hex(&manifest.build_id)),
        ("Root hash", hex(&manifest.root.hash)),
        ("Size", sizes),
    ];
    text + &list(&rows)
}

/// What an exception of the package lists means.
fn meaning(exception: &str) -> &'static str {
    match exception {
        "no-security" => "the packages lack Debian's security updates",
        "old-lists" => "the package lists were old, or fetched without a check of their dates",
        _ => "not known to this imagebuild",
    }
}

fn disk(manifest: &Manifest, image: &Image) -> String {
    let before = drawing::of_image(&image.table);
    let after = drawing::of_device(&image.table, image.slot, drawing::EXAMPLE);
    let mut text = format!("<div class=\"disk\">\n{}<div>\n", drawing::draw(&before, &after));
    text += "<table class=\"wide c3\">\n<thead><tr><th>partition</th><th class=\"n\">in the image</th><th class=\"n\">in use</th>\
             <th class=\"n\">on a device</th></tr></thead>\n<tbody>\n";
    for piece in &after {
        let known = manifest.partitions.iter().zip(&image.used).find(|(placed, _)| placed.label == piece.name);
        let (length, used) = match known {
            Some((placed, used)) => (size(placed.length), size(*used)),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let _ = writeln!(
            text,
            "<tr><td><i class=\"key {}\"></i>{}<br><small>{}</small></td><td class=\"n\">{length}</td><td \
             class=\"n\">{used}</td><td class=\"n\">{}</td></tr>",
            drawing::class(&piece.name),
            escaped(&piece.name),
            purpose(known.map(|(placed, _)| placed), &piece.name),
            size(piece.length)
        );
    }
    let _ = writeln!(
        text,
        "</tbody>\n</table>\n<p>The right column is a disk of 16 GB ({}) after the first boot; dashed partitions are \
         new.</p>",
        size(drawing::EXAMPLE)
    );
    let least = |name: &str| drawing::least(&image.table, image.slot, name).map(|mib| size(mib * MIB));
    if let (Some(both), Some(data)) = (least("root-b"), least("data")) {
        let _ = writeln!(
            text,
            "<p>A disk needs {data} at least. Below {both} it gets no <code>root-b</code>, the place of a later \
             version.</p>"
        );
    }
    text += "</div>\n</div>\n<h3>Partition table</h3>\n<table class=\"stack\">\n<thead><tr><th>label</th><th \
             class=\"n\">first byte</th><th class=\"n\">bytes</th><th>type and identifier</th></tr></thead>\n<tbody>\n";
    for placed in &manifest.partitions {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td class=\"n\" data-of=\"from byte\">{}</td><td class=\"n\" \
             data-of=\"bytes\">{}</td><td>{}<br>{}</td></tr>",
            escaped(&placed.label),
            grouped(placed.offset),
            grouped(placed.length),
            hex(&placed.kind),
            hex(&placed.uuid)
        );
    }
    let in_mbr = match manifest.partitions.iter().any(|placed| placed.in_mbr) {
        true => "; FAT partitions are in the MBR, too",
        false => "",
    };
    let _ = writeln!(text, "</tbody>\n</table>\n<p>GPT{in_mbr}. Disk identifier {}</p>", hex(&image.disk.to_string()));
    text
}

/// What a partition is for.
fn purpose(placed: Option<&Placed>, name: &str) -> &'static str {
    match (placed.map(|placed| placed.role), name) {
        (Some(Role::Boot), _) => "FAT that every desktop shows: the seed and the status",
        (Some(Role::Esp), _) => "EFI system partition: boot loader and kernel",
        (Some(Role::SystemA), _) => "FAT: kernel and initrd of slot A",
        (Some(Role::SystemB), _) => "the same of slot B; empty in an image",
        (Some(Role::RootA), _) => "read-only EROFS, and its dm-verity hash tree",
        (None, "root-b") => "made at the first boot, for a later version",
        (None, "data") => "made at the first boot: <code>/var</code> and changes to <code>/etc</code>",
        (None, _) => "",
    }
}

fn space(manifest: &Manifest, image: &Image) -> String {
    let (sum, total) = (image.space.sum(), manifest.root.file_system);
    let mut text = format!(
        "<p>The root holds {} files. They are {}, and take {} because they are compressed (LZ4).</p>\n<table class=\"wide c4\">\n\
         <thead><tr><th>part</th><th class=\"n\">files</th><th class=\"n\">unpacked</th><th class=\"n\">in the \
         root</th><th class=\"n\">share</th></tr></thead>\n<tbody>\n",
        grouped(image.space.files.len() as u64),
        size(sum.whole),
        size(sum.stored)
    );
    for part in image.space.parts() {
        let percent = share(part.bytes.stored, total);
        let _ = writeln!(
            text,
            "<tr><td>{}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
             class=\"n\">{percent}</td></tr>",
            part.name,
            bar(part.bytes.stored, total),
            grouped(part.files as u64),
            size(part.bytes.whole),
            size(part.bytes.stored)
        );
    }
    let rest = total.saturating_sub(sum.stored);
    let _ = writeln!(
        text,
        "<tr><td>Directories, owners, attributes{}</td><td class=\"n\"></td><td class=\"n\"></td><td \
         class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n</tbody>\n<tfoot><tr><td>File system</td><td></td><td></td>\
         <td class=\"n\">{}</td><td></td></tr></tfoot>\n</table>",
        bar(rest, total),
        size(rest),
        share(rest, total),
        size(total)
    );
    text += "<h3>The largest files</h3>\n<table class=\"wide c2\">\n<thead><tr><th>file</th><th class=\"n\">unpacked</th><th \
             class=\"n\">in the root</th></tr></thead>\n<tbody>\n";
    for (path, bytes) in image.space.largest(LARGEST) {
        let _ = writeln!(text, "<tr><td>{}</td>{}</tr>", hex(path), both(Some(bytes)));
    }
    text + "</tbody>\n</table>\n"
}

/// A part of a whole as a bar. The number is beside it.
fn bar(part: u64, whole: u64) -> String {
    let width = 100.0 * part as f64 / whole.max(1) as f64;
    format!("<span class=\"bar\"><i style=\"width:{:.1}%\"></i></span>", width.min(100.0))
}

/// Two cells: unpacked, and in the root.
fn both(bytes: Option<Bytes>) -> String {
    let cell = |of: &str, value: Option<u64>| {
        format!("<td class=\"n\" data-of=\"{of}\">{}</td>", value.map_or("–".to_owned(), size))
    };
    cell("unpacked", bytes.map(|b| b.whole)) + &cell("in the root", bytes.map(|b| b.stored))
}

fn kubernetes(manifest: &Manifest, image: &Image) -> String {
    if manifest.components.is_empty() {
        return "<p>The image has no bundle: it boots, and joins no cluster.</p>\n".to_owned();
    }
    let images = image.bundle.as_ref().map_or(&[][..], |bundle| &bundle.images);
    let is_image = |component: &&Component| images.iter().any(|image| image.name == component.name);
    let head = |name: &str, digest: &str| {
        format!(
            "<h3>{name}</h3>\n<table class=\"stack\">\n<thead><tr><th>name</th><th>version</th><th \
             class=\"n\">unpacked</th><th class=\"n\">in the root</th><th>{digest}</th></tr></thead>\n<tbody>\n"
        )
    };
    let row = |text: &mut String, component: &Component, bytes: Option<Bytes>| {
        let _ = writeln!(
            text,
            "<tr><td><b>{}</b></td><td>{}</td>{}<td>{}</td></tr>",
            escaped(&component.name),
            escaped(&component.version),
            both(bytes),
            hex(&component.sha256)
        );
    };
    let mut text = head("Programs", "SHA-256");
    for component in manifest.components.iter().filter(|c| !is_image(c)) {
        row(&mut text, component, image.space.files.get(&format!("{BUNDLE_DIR}/{}", component.name)).copied());
    }
    text += "</tbody>\n</table>\n";
    text += &head("Container images", "digest of the manifest (SHA-256)");
    for component in manifest.components.iter().filter(is_image) {
        let layers = images.iter().filter(|image| image.name == component.name).flat_map(|image| &image.layers);
        let bytes = layers.fold(Bytes::default(), |sum, layer| {
            let more = image.space.below(&format!("{BUNDLE_DIR}/layers/{layer}/"));
            Bytes { whole: sum.whole + more.whole, stored: sum.stored + more.stored }
        });
        row(&mut text, component, Some(bytes));
    }
    text + "</tbody>\n</table>\n<p>Images are unpacked in the root, and mounted where they are. Nothing is pulled at a \
            join.</p>\n"
}

fn packages(manifest: &Manifest) -> String {
    let lists = &manifest.package_lists;
    let fetched = match lists.fetched {
        0 => "at a time that is not known".to_owned(),
        seconds => timestamp(seconds).replace('T', " ").replace('Z', " UTC"),
    };
    let mut text = format!(
        "<p>{} packages. The package lists were fetched {fetched}.</p>\n<table class=\"stack\">\n<thead><tr>\
         <th>suite</th><th>of the archive's date</th><th>valid until</th></tr></thead>\n<tbody>\n",
        manifest.packages.len()
    );
    for release in &lists.releases {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td data-of=\"of\">{}</td><td data-of=\"valid until\">{}</td></tr>",
            escaped(&release.suite),
            escaped(&release.date),
            escaped(release.valid_until.as_deref().unwrap_or("not stated"))
        );
    }
    let exceptions = match manifest.exceptions.is_empty() {
        true => "none".to_owned(),
        false => escaped(&manifest.exceptions.join(", ")),
    };
    let _ = write!(text, "</tbody>\n</table>\n<p>Exceptions: {exceptions}</p>\n<ul class=\"packages\">\n");
    for (name, version) in &manifest.packages {
        let _ = writeln!(text, "<li>{} <span>{}</span></li>", escaped(name), escaped(version));
    }
    text + "</ul>\n"
}

fn files(manifest: &Manifest, image: &Image) -> String {
    let mut text = "<table class=\"stack\">\n<thead><tr><th>file</th><th class=\"n\">bytes</th><th>SHA-256</th><th>in \
                    SHA256SUMS</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for SummedFile { name, size, sha256, is_as_summed } in &image.files {
        let summed = match is_as_summed {
            Some(true) => "the same",
            Some(false) => "<b>another</b>",
            None => "no line",
        };
        let _ = writeln!(
            text,
            "<tr><td><b>{}</b></td><td class=\"n\" data-of=\"bytes\">{}</td><td>{}</td><td \
             data-of=\"in SHA256SUMS\">{summed}</td></tr>",
            escaped(name),
            grouped(*size),
            hex(sha256)
        );
    }
    text += "</tbody>\n</table>\n";
    text += &signature(image);
    let kernel = &manifest.kernel_image;
    let rows = [
        ("Root hash", hex(&manifest.root.hash)),
        ("File system", format!("{} bytes, in blocks of 4096", grouped(manifest.root.file_system))),
        ("Hash tree", format!("{} bytes, dm-verity with SHA-256", grouped(manifest.root.hash_tree))),
        ("Kernel image", format!("<code>{}</code>, {} bytes", escaped(&kernel.path), grouped(kernel.size))),
        ("Its SHA-256", hex(&kernel.sha256)),
    ];
    text += "<h3>What is started</h3>\n";
    text + &list(&rows)
}

/// By which key the digests are signed, and where it says how the files were made.
fn signature(image: &Image) -> String {
    let by = match &image.signed {
        Some(key) => format!(
            "<p>SHA256SUMS is signed by this key. Compare it with the one that you were given: <code>imagebuild verify {}.img \
             --key FILE</code> does.</p>\n<p><code>{}</code></p>\n",
            escaped(&image.name),
            escaped(&format!("{} {}", key.algorithm, key.key))
        ),
        None => "<p>SHA256SUMS has no signature, or one that does not belong to it.</p>\n".to_owned(),
    };
    let inside = match image.device_keys.as_slice() {
        [] => "<p>The device verifies no signature: the image was built without a key of its own.</p>\n".to_owned(),
        keys => format!(
            "<p>The device uses its bundle only if this key signed it:</p>\n<p><code>{}</code></p>\n",
            escaped(&keys.join("\n"))
        ),
    };
    let made = image.files.iter().find(|file| file.name.ends_with(".provenance.json"));
    let made = made.map(|file| {
        let name = escaped(&file.name);
        format!(
            "<p><code>{name}</code> says from which commit, locks and packages the files were made (SLSA v1).</p>\n"
        )
    });
    by + &inside + &made.unwrap_or_default()
}

fn usage(manifest: &Manifest, image: &Image) -> String {
    let packed = image.files.iter().find(|file| file.name.ends_with(".zst"));
    let name = escaped(packed.map_or_else(|| format!("{}.img", image.name), |file| file.name.clone()).as_str());
    let boot = manifest.partitions.iter().find(|placed| placed.role == Role::Boot);
    let boot = escaped(boot.map_or("BOOT", |placed| placed.label.as_str()));
    let raw = escaped(&format!("{}.img", image.name));
    format!(
        "<h3>1. Write the image</h3>\n<pre>imagebuild flash                  # lists the removable disks\n\
         imagebuild flash {name} /dev/sdX</pre>\n<p><code>flash</code> compares the digest, asks, writes, and reads \
         back. It takes several disks at once; <code>--seeds DIR</code> gives each one its own seed \
         (<code>docs/fleets.md</code>).</p>\n\
         <h3>2. Put a seed on it</h3>\n<pre>kubeadm token create --print-join-command |\n  imagebuild seed new --join - \
         --out seed.toml\nimagebuild seed put seed.toml /dev/sdX</pre>\n<p>Or by hand: the card shows a drive called \
         <code>{boot}</code>. Copy <code>seed.toml.example</code> on it to <code>seed.toml</code>, and fill in the three \
         values that kubeadm prints. <code>docs/seed.md</code> lists every key. <code>seed put</code> also accepts the \
         raw image, <code>{raw}</code>; every card of it then has that seed.</p>\n\
         <h3>3. Switch the device on</h3>\n<p><code>firstboot-status.txt</code> on the same drive says how far it came, \
         and who must act if something is wrong.</p>\n"
    )
}

/// Names and values. The values are markup already.
fn list(rows: &[(&str, String)]) -> String {
    let mut text = "<dl>\n".to_owned();
    for (name, value) in rows {
        let _ = writeln!(text, "<dt>{name}</dt><dd>{value}</dd>");
    }
    text + "</dl>\n"
}

/// A digest, an identifier or a path: of one width, broken where the line ends; a digest rather in its middle.
fn hex(text: &str) -> String {
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let shown = if is_digest { format!("{}<wbr>{}", &text[..32], &text[32..]) } else { escaped(text) };
    format!("<span class=\"hex\">{shown}</span>")
}
