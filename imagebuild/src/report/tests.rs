// SPDX-License-Identifier: Apache-2.0
//! The page of a small, made-up image, and what refuses an image or its manifest.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::archive::Archive;
use crate::build::manifest::KernelImage;
use crate::disk::{self, Content, Fat, Ids};
use crate::erofs::Mkfs;
use crate::target::{Role, Target};
use crate::{digest, verity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

/// An image for boards with U-Boot, and its manifest, in a directory; none where mkfs.erofs cannot be fetched. The
/// manifest has markup in what it names.
fn made() -> Option<(tempfile::TempDir, PathBuf, Value)> {
    if !crate::cmd::found("apt-get") {
        crate::skip::skip_unless_ci("apt-get is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let (root, path) = (dir.path().join("root"), dir.path().join("board.img"));
    let mut archive = Archive::default();
    let info = json!({ "version": 1, "target": "uboot-arm64", "arch": "arm64", "build_time": 1_700_000_000,
        "build_id": "0123456789abcdef", "boot_label": "BOOT" });
    archive.file("usr/lib/firstboot/image.json", 0o644, info.to_string().into_bytes()).unwrap();
    archive.file("usr/lib/firstboot/bundle/bin/kubelet", 0o755, b"0123456789abcdef".repeat(20_000)).unwrap();
    archive.file("usr/lib/modules/6/a.ko", 0o644, vec![7; 100]).unwrap();
    Mkfs::ensure().unwrap().pack(&archive, uuid::Uuid::nil(), 1_700_000_000, &root).unwrap();
    let tree = verity::tree(&root, uuid::Uuid::nil()).unwrap();
    let content = [fs::read(&root).unwrap(), tree.bytes.clone()].concat();
    fs::write(&root, content).unwrap();
    let line = format!("firstboot.root={}:{}:A firstboot.slot-mib=768 quiet", tree.root_hash, tree.blocks);
    let files = vec![
        ("vmlinuz".to_owned(), b"kernel".to_vec()),
        ("extlinux/extlinux.conf".to_owned(), format!("default a\nlabel a\n  append {line}\n").into_bytes()),
    ];
    let fats = BTreeMap::from([(Role::SystemA, Fat { files, free: 0 })]);
    let target = Target::load("uboot-arm64").unwrap();
    let placed = disk::build(&target, &Ids::new("k"), &Content { fats, root: &root }, &path).unwrap();
    let manifest = json!({
        "version": 1, "target": "uboot-arm64", "arch": "arm64", "build_time": 1_700_000_000,
        "build_id": "0123456789abcdef", "kubernetes": "1.36.3", "kernel": "6.12<b>", "exceptions": ["old-lists"],
        "package_lists": { "fetched": 0, "releases": [{ "suite": "trixie<script>", "date": "\"today\"" }] },
        "packages": { "a<b>": "1:2&3" },
        "components": [{ "component": "kubelet", "version": "1.36.3", "name": "bin/kubelet", "sha256": "c0ffee" }],
        "root": { "hash": tree.root_hash, "file_system": tree.blocks * 4096, "hash_tree": tree.bytes.len() },
        "kernel_image": { "path": "vmlinuz", "size": 6, "sha256": digest::bytes(b"kernel") },
        "partitions": placed,
    });
    write_manifest(&path, &manifest);
    Some((dir, path, manifest))
}

fn write_manifest(image: &Path, manifest: &Value) {
    fs::write(image.with_extension("manifest.json"), manifest.to_string()).unwrap();
}

#[test]
fn a_page_has_what_is_in_the_image_and_no_markup_of_a_value() {
    let Some((dir, path, _)) = made() else { return };
    fs::write(dir.path().join("SHA256SUMS"), format!("{}  board.img\n", "0".repeat(64))).unwrap();
    let before = digest::file(&path).unwrap();
    main(&Args { image: path.clone(), out: None }).unwrap();
    let page = fs::read_to_string(dir.path().join("board.report.html")).unwrap();
    assert_eq!(digest::file(&path).unwrap(), before, "the image is only read");
    let has = |text: &str| assert!(page.contains(text), "{text}:\n{page}");
    has("<h1>board</h1>");
    has("<dt>Linux</dt><dd>6.12&lt;b&gt;</dd>");
    has("<dt>Built</dt><dd>2023-11-14 22:13:20 UTC</dd>");
    has("<td>trixie&lt;script&gt;</td><td data-of=\"of\">&quot;today&quot;</td>");
    has("<li>a&lt;b&gt; <span>1:2&amp;3</span></li>");
    has("<b>Exception <code>old-lists</code></b>: the package lists were old");
    has("<b>board.img</b> was changed since <code>SHA256SUMS</code> was written");
    assert!(!page.contains("<script") && !page.contains("6.12<b>") && !page.contains("http"), "loads and runs nothing");
    // 320 000 bytes of one text, compressed to blocks of 4096 bytes; the module is too short for that.
    has("<b>bin/kubelet</b></td><td>1.36.3</td><td class=\"n\" data-of=\"unpacked\">312.5 KiB</td>");
    let image = image::Image::read(&path, &manifest::Manifest::beside(&path).unwrap()).unwrap();
    let files = &image.space.files;
    let kubelet = files["/usr/lib/firstboot/bundle/bin/kubelet"];
    assert!(kubelet.stored > 0 && kubelet.stored < 40_960 && kubelet.stored.is_multiple_of(4096), "{kubelet:?}");
    assert_eq!(files["/usr/lib/modules/6/a.ko"], space::Bytes { whole: 100, stored: 100 });
    let names: Vec<&str> = image.space.parts().iter().map(|part| part.name).collect();
    assert_eq!(names, ["Kubernetes and container runtime", "firstboot", "Kernel modules"]);
    assert_eq!(image.slot, Some(768 << 20));
    // SYSTEM-B is empty: a FAT of its root directory alone.
    assert!(image.used[1] > image.used[2] && image.used[2] > 0, "{:?}", image.used);
    let again = make(&path).unwrap();
    assert_eq!(again, make(&path).unwrap(), "the same each time");
}

#[test]
fn a_manifest_of_another_image_is_refused() {
    let Some((_dir, path, manifest)) = made() else { return };
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut other = manifest.clone();
        change(&mut other);
        write_manifest(&path, &other);
        format!("{:#}", make(&path).unwrap_err())
    };
    let compare = format!("compare {} with its manifest: ", path.display());
    let expect = |change: &dyn Fn(&mut Value), text: &str| {
        assert_eq!(refused(change), format!("{compare}{text}: get both from one build"));
    };
    expect(&|m| m["build_id"] = json!("fedc"), "build id 0123456789abcdef in the image, fedc in the manifest");
    expect(
        &|m| m["partitions"][0]["label"] = json!("OTHER"),
        "partition 1 is BOOT, 41943040 bytes at 1048576 in the image, OTHER, 41943040 bytes at 1048576 in the manifest",
    );
    let kernel = digest::bytes(b"kernel");
    expect(
        &|m| m["kernel_image"]["sha256"] = json!("00"),
        &format!("vmlinuz has the SHA-256 {kernel} in the image, 00 in the manifest"),
    );
    let hash = manifest["root"]["hash"].as_str().unwrap();
    expect(&|m| m["root"]["hash"] = json!("00"), &format!("root hash {hash} in the image, 00 in the manifest"));
    let version = refused(&|m| m["version"] = json!(2));
    let file = path.with_extension("manifest.json");
    assert_eq!(version, format!("read {}: its version is 2, this imagebuild knows 1", file.display()));
}

#[test]
fn what_is_missing_or_packed_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("board.img");
    let refused = |path: &Path| format!("{:#}", make(path).unwrap_err());
    let packed = dir.path().join("board.img.zst");
    let text = format!("open {}: unpack it first (zstd --decompress --keep)", packed.display());
    assert_eq!(refused(&packed), text);
    assert!(refused(&path).starts_with(&format!("open {}: No such file", path.display())));
    fs::write(&path, [0; 4096]).unwrap();
    let manifest = path.with_extension("manifest.json");
    let none = format!("read {}: there is none; `imagebuild build` writes it beside the image", manifest.display());
    assert_eq!(refused(&path), none);
    fs::write(&manifest, "{}").unwrap();
    assert!(refused(&path).starts_with(&format!("read {}: missing field", manifest.display())));
    // A page that cannot be written leaves nothing behind.
    let out = dir.path().join("no/page.html");
    let error = format!("{:#}", write(&out, "page").unwrap_err());
    assert!(error.starts_with(&format!("write {}: No such file", out.display())), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// The FAT library follows a chain of clusters that leads to itself for ever.
#[test]
fn a_root_directory_without_end_is_an_error() {
    let (target, dir) = (Target::load("generic-amd64").unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("disk");
    let mut place = disk::testing::fats_only(&target, &Ids::new("k"), &path).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, place.offset).unwrap();
    let number = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    // FAT32: cluster 2, which has the root directory, is made to follow itself and to be full of removed files.
    let (table, cluster) = (number(14) * 512, usize::from(boot[13]) * 512);
    let data = table + u64::from(boot[16]) * number(36) * 512;
    file.write_all_at(&2u32.to_le_bytes(), place.offset + table + 2 * 4).unwrap();
    file.write_all_at(&vec![0xe5; cluster], place.offset + data).unwrap();
    // A shorter partition has a lower limit, which is reached sooner.
    place.length = 2 << 20;
    let kernel = KernelImage { path: "vmlinuz".to_owned(), size: 6, sha256: String::new() };
    let error = format!("{:#}", image::command_line(&path, &place, &kernel).unwrap_err());
    assert_eq!(
        error,
        "read vmlinuz on BOOT: open vmlinuz on the boot partition: more was read than it can hold: its allocation \
         table is broken"
    );
}
