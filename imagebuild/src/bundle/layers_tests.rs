// SPDX-License-Identifier: Apache-2.0
//! Tests of layers: tars as image builders write them, and what becomes of them in the bundle's tar.
#![allow(clippy::unwrap_used)]

use super::super::pack::Packer;
use super::*;
use std::io::Write;

/// A layer's tar; `write` adds its entries.
fn tar(dir: &Path, write: impl FnOnce(&mut tar::Builder<File>)) -> std::path::PathBuf {
    let path = tempfile::NamedTempFile::new_in(dir).unwrap().into_temp_path().keep().unwrap();
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    write(&mut builder);
    builder.finish().unwrap();
    path
}

fn header(kind: EntryType, mode: u32, uid: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(uid);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}

fn put(to: &mut tar::Builder<File>, path: &str, kind: EntryType, mode: u32, uid: u64) {
    to.append_data(&mut header(kind, mode, uid), path, &[][..]).unwrap();
}

fn file(to: &mut tar::Builder<File>, path: &str, bytes: &[u8]) {
    let mut header = header(EntryType::Regular, 0o644, 0);
    header.set_size(bytes.len() as u64);
    to.append_data(&mut header, path, bytes).unwrap();
}

fn link(to: &mut tar::Builder<File>, kind: EntryType, path: &str, target: &str) {
    to.append_link(&mut header(kind, 0o777, 0), path, target).unwrap();
}

fn kinds(layer: &Layer) -> Vec<(&str, String)> {
    let of = |inode: &Inode| match &inode.kind {
        Kind::Directory if inode.attributes.contains_key(OPAQUE_ATTRIBUTE) => "opaque".to_owned(),
        Kind::Directory => "directory".to_owned(),
        Kind::File(_, size) => format!("file {size}"),
        Kind::Link(target) => format!("link {target}"),
        Kind::Special(EntryType::Char, 0, 0) => "whiteout".to_owned(),
        Kind::Special(..) => "special".to_owned(),
    };
    layer.paths.iter().map(|(path, index)| (path.as_str(), of(&layer.inodes[*index]))).collect()
}

fn lowest(dir: &Path) -> Layer {
    let tar = tar(dir, |to| {
        put(to, "./", EntryType::Directory, 0o755, 0);
        put(to, "./etc/", EntryType::Directory, 0o750, 7);
        file(to, "./etc/a", b"a");
        file(to, "./etc/b", b"b");
        put(to, "./old/", EntryType::Directory, 0o755, 0);
        file(to, "./old/x", b"x");
        put(to, "./again/", EntryType::Directory, 0o755, 0);
        file(to, "./again/x", b"x");
        link(to, EntryType::Symlink, "./sbin", "usr/sbin");
        // Hides nothing: there is nothing below.
        file(to, "./etc/.wh.none", b"");
    });
    read(&tar, &[]).unwrap()
}

#[test]
fn removals_become_overlayfs_own() {
    let dir = tempfile::tempdir().unwrap();
    let below = lowest(dir.path());
    assert!(!kinds(&below).iter().any(|(_, kind)| kind == "whiteout"));
    let upper = tar(dir.path(), |to| {
        file(to, "etc/.wh.a", b"");
        file(to, "etc/.wh.never-there", b"");
        file(to, ".wh..wh.plnk", b"");
        file(to, ".wh.sbin", b"");
        file(to, "old/.wh..wh..opq", b"");
        file(to, "old/y", b"yy");
        // Removed, and there again: nothing of the old one is seen.
        file(to, ".wh.again", b"");
        put(to, "again", EntryType::Directory, 0o700, 0);
        file(to, "new/.wh..wh..opq", b"");
    });
    let upper = read(&upper, &[&below]).unwrap();
    let expected = [
        ("", "directory"),
        ("again", "opaque"),
        ("etc", "directory"),
        ("etc/a", "whiteout"),
        ("new", "directory"),
        ("old", "opaque"),
        ("old/y", "file 2"),
        ("sbin", "whiteout"),
    ];
    assert_eq!(kinds(&upper), expected.map(|(path, kind)| (path, kind.to_owned())));
    // A directory that only names removals keeps what it was.
    let etc = upper.get("etc").unwrap();
    assert_eq!((etc.mode, etc.uid), (0o750, 7));
    // On top of both, what was removed is gone and comes anew.
    let top = tar(dir.path(), |to| {
        file(to, "etc/.wh.a", b"");
        file(to, "old/.wh.x", b"");
        file(to, "sbin/tool", b"t");
    });
    let top = read(&top, &[&below, &upper]).unwrap();
    let expected = [("", "directory"), ("etc", "directory"), ("old", "directory"), ("sbin", "directory")];
    assert_eq!(kinds(&top)[..4], expected.map(|(path, kind)| (path, kind.to_owned())));
    assert_eq!(kinds(&top)[4], ("sbin/tool", "file 1".to_owned()));
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let tar = tar(dir.path(), |to| {
        file(to, "a/x", b"1");
        put(to, "a", EntryType::Directory, 0o700, 3);
        file(to, "b/x", b"1");
        file(to, "b", b"22");
        link(to, EntryType::Symlink, "c", "b");
        put(to, "c", EntryType::Directory, 0o755, 0);
        file(to, "first", b"333");
        link(to, EntryType::Link, "second", "./first");
        file(to, "first", b"4444");
    });
    let layer = read(&tar, &[]).unwrap();
    let expected = [
        ("", "directory"),
        ("a", "directory"),
        ("a/x", "file 1"),
        ("b", "file 2"),
        ("c", "directory"),
        ("first", "file 4"),
        ("second", "file 3"),
    ];
    assert_eq!(kinds(&layer), expected.map(|(path, kind)| (path, kind.to_owned())));
    assert_eq!((layer.get("a").unwrap().mode, layer.get("a").unwrap().uid), (0o700, 3));
}

/// Each would show something else on the device than containerd does, or reach out of the layer.
#[test]
fn what_cannot_be_shown_truly_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let below = lowest(dir.path());
    let refused = |write: &dyn Fn(&mut tar::Builder<File>)| {
        let tar = tar(dir.path(), |to| write(to));
        format!("{:#}", read(&tar, &[&below]).unwrap_err())
    };
    assert_eq!(
        refused(&|to| file(to, "sbin/x", b"")),
        "read sbin/x of the layer: sbin, above it, is no directory in the layers below"
    );
    assert_eq!(
        refused(&|to| {
            link(to, EntryType::Symlink, "l", "/etc");
            file(to, "l/x", b"");
        }),
        "read l/x of the layer: l, above it, is no directory"
    );
    assert_eq!(
        refused(&|to| link(to, EntryType::Link, "h", "etc/a")),
        "read h of the layer: find etc/a, of which it is a link"
    );
    assert_eq!(refused(&|to| link(to, EntryType::Link, "h", "../a")), "read h of the layer: its name has ..");
    assert_eq!(refused(&|to| file(to, ".wh...", b"")), "read .wh... of the layer: find what it removes");
    let attribute = |to: &mut tar::Builder<File>| {
        to.append_pax_extensions([("SCHILY.xattr.trusted.overlay.redirect", &b"/etc"[..])]).unwrap();
        put(to, "d", EntryType::Directory, 0o755, 0);
    };
    let error = refused(&attribute);
    assert!(error.ends_with("trusted.overlay.redirect is not an image's to set"), "{error}");
    let mut up = header(EntryType::Regular, 0o644, 0);
    up.as_gnu_mut().unwrap().name[..4].copy_from_slice(b"../x");
    up.set_cksum();
    assert_eq!(refused(&|to| to.append(&up, &[][..]).unwrap()), "read ../x of the layer: its name has ..");
}

#[test]
fn a_compressed_layer_is_unpacked_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let plain = b"the layer".repeat(1000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for stored in [plain.clone(), gzip.finish().unwrap(), zstd] {
        let archive = dir.path().join("archive");
        std::fs::write(&archive, [b"before", stored.as_slice(), b"after"].concat()).unwrap();
        let mut layer = ArchivedLayer { diff_id: digest::bytes(&plain), at: 6, size: stored.len() as u64 };
        let to = dir.path().join("layer.tar");
        extract(&archive, &layer, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), plain);
        layer.diff_id = digest::bytes(b"another");
        let error = extract(&archive, &layer, &to).unwrap_err().to_string();
        assert_eq!(error, format!("verify layer {}: found {}", layer.diff_id, digest::bytes(&plain)));
    }
}

/// Written as the bundle's tar and read again, a layer is the same.
#[test]
fn nothing_is_lost_on_the_way_into_the_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    let target = "t".repeat(150);
    let from = tar(dir.path(), |to| {
        put(to, "./", EntryType::Directory, 0o711, 5);
        to.append_pax_extensions([("SCHILY.xattr.security.capability", &[1, 0, 0, 2, 0, 4, 0, 0][..])]).unwrap();
        file(to, "z-program", b"content");
        link(to, EntryType::Link, "a-link", "z-program");
        file(to, &long, b"long");
        link(to, EntryType::Symlink, "far", &target);
        let mut device = header(EntryType::Char, 0o666, 0);
        device.set_device_major(1).unwrap();
        device.set_device_minor(3).unwrap();
        to.append_data(&mut device, "null", &[][..]).unwrap();
        put(to, "pipe", EntryType::Fifo, 0o600, 1 << 22);
        put(to, "set-user", EntryType::Regular, 0o4755, 0);
    });
    let layer = read(&from, &[]).unwrap();
    let written = dir.path().join("bundle.tar");
    let mut packer = Packer::create(&written).unwrap();
    packer.layer("layers/x", &layer, &from).unwrap();
    packer.finish().unwrap();
    // Only the place of the content is another.
    let found = read(&written, &[]).unwrap();
    let bytes = std::fs::read(&written).unwrap();
    let original = std::fs::read(&from).unwrap();
    let below: Vec<&String> = found.paths.keys().filter(|path| path.starts_with("layers/x")).collect();
    assert_eq!(below.len(), layer.paths.len());
    for (path, index) in &layer.paths {
        let expected = &layer.inodes[*index];
        let at = if path.is_empty() { "layers/x".to_owned() } else { format!("layers/x/{path}") };
        let mut inode = found.get(&at).unwrap_or_else(|| panic!("{at} is missing")).clone();
        if let (Kind::File(to, size), Kind::File(from, _)) = (&inode.kind, &expected.kind) {
            let range = |at: u64| at as usize..(at + size) as usize;
            assert_eq!(bytes[range(*to)], original[range(*from)], "{path}");
            inode.kind = Kind::File(*from, *size);
        }
        assert_eq!(inode, *expected, "{path}");
    }
    assert_eq!(found.paths["layers/x/a-link"], found.paths["layers/x/z-program"]);
    let mut archive = tar::Archive::new(bytes.as_slice());
    assert!(archive.entries().unwrap().all(|entry| entry.unwrap().header().mtime().unwrap() == 0));
}
