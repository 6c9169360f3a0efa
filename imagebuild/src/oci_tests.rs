// SPDX-License-Identifier: Apache-2.0
//! Tests of the OCI writer: read back what was written, as a container runtime does.
#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Read;

fn file(bytes: &[u8], net_bind_service: bool) -> Entry {
    Entry::File { bytes: bytes.to_vec(), mode: 0o755, net_bind_service }
}

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.insert("/usr/sbin/nft".to_owned(), file(b"program", false));
    tree.insert("/coredns".to_owned(), file(b"dns", true));
    tree.insert("/sbin".to_owned(), Entry::Link("usr/sbin".to_owned()));
    tree
}

fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(archive);
    let mut files = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

fn written(tree: &Tree, run: &Run) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("image.tar");
    write(&image(tree, run, Arch::Arm64).unwrap(), "example.org/a/b:v1", Arch::Arm64, &to).unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn an_archive_leads_from_name_to_files_by_digests() {
    let run = Run {
        entrypoint: vec!["/coredns".to_owned()],
        user: Some("65532:65532".to_owned()),
        path: Some("/usr/sbin".to_owned()),
    };
    let files = read(&written(&tree(), &run));
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = files[&format!("blobs/sha256/{digest}")].clone();
        assert_eq!(crate::digest::bytes(&bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    };
    let index = json(&files["index.json"]);
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "example.org/a/b:v1");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "v1");
    assert_eq!(entry["platform"], json!({ "architecture": "arm64", "os": "linux" }));
    let manifest = json(&blob(entry));
    let config = json(&blob(&manifest["config"]));
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(
        config["config"],
        json!({ "Entrypoint": ["/coredns"], "User": "65532:65532", "Env": ["PATH=/usr/sbin"], "WorkingDir": "/" })
    );
    let layer = blob(&manifest["layers"][0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let names: Vec<String> = read(&layer).into_keys().collect();
    assert_eq!(names, ["coredns", "sbin", "usr/", "usr/sbin/", "usr/sbin/nft"]);
    assert_eq!(files.len(), 5);
}

#[test]
fn an_archive_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let one = image(&tree(), &Run::default(), Arch::Amd64).unwrap();
    write(&one, "example.org/a:1", Arch::Amd64, &path).unwrap();
    let found = super::read(&path).unwrap();
    assert_eq!((found.media_type.as_str(), &found.manifest), (MANIFEST, &one.manifest));
    let layer = layer(&tree()).unwrap();
    let [of] = found.layers.as_slice() else { panic!("{found:?}") };
    assert_eq!(of.diff_id, digest::bytes(&layer));
    assert_eq!(found.chain_ids(), [format!("sha256:{}", of.diff_id)]);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes[of.at as usize..(of.at + of.size) as usize], layer);
    std::fs::write(&path, "no archive").unwrap();
    assert!(super::read(&path).unwrap_err().to_string().starts_with("read image archive "));
}

/// As OCI image-spec's config.md defines it, in its own words.
#[test]
fn a_chain_has_each_layer_on_those_below() {
    let layer = |diff_id: &str| ArchivedLayer { diff_id: diff_id.to_owned(), at: 0, size: 0 };
    let layers = vec![layer("aa"), layer("bb"), layer("cc")];
    let image = Archived { media_type: String::new(), manifest: Vec::new(), config: Vec::new(), layers };
    let two = format!("sha256:{}", digest::bytes("sha256:aa sha256:bb"));
    let three = format!("sha256:{}", digest::bytes(format!("{two} sha256:cc")));
    assert_eq!(image.chain_ids(), ["sha256:aa".to_owned(), two, three]);
}

/// A digest is the name of a directory later.
#[test]
fn a_digest_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    for diff_id in ["sha256:../../x", "sha512:aa", "sha256:aa"] {
        let config = json!({ "rootfs": { "type": "layers", "diff_ids": [diff_id] } }).to_string();
        let config_digest = digest::bytes(&config);
        let layer = format!("sha256:{config_digest}");
        let manifest = json!({ "config": { "digest": layer }, "layers": [{ "digest": layer }] }).to_string();
        let blobs = BTreeMap::from([(config_digest, Content::Bytes(config.into()))]);
        let image = Image { media_type: MANIFEST.to_owned(), manifest: manifest.into(), blobs };
        write(&image, "example.org/b:1", Arch::Amd64, &path).unwrap();
        assert!(format!("{:#}", super::read(&path).unwrap_err()).ends_with(": read a digest"));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    assert_eq!(written(&tree(), &Run::default()), written(&tree(), &Run::default()));
}

#[test]
fn the_capability_is_an_extended_attribute_of_that_file_only() {
    let layer = layer(&tree()).unwrap();
    let mut tar = tar::Archive::new(layer.as_slice());
    let mut found = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            found.push((path.clone(), extension.key().unwrap().to_owned(), extension.value_bytes().to_vec()));
        }
    }
    // CAP_NET_BIND_SERVICE is number 10: bit 10 of the permitted word.
    let value = NET_BIND_SERVICE.to_vec();
    assert_eq!(u32::from_le_bytes(value[4..8].try_into().unwrap()), 1 << 10);
    assert_eq!(found, [("coredns".to_owned(), "SCHILY.xattr.security.capability".to_owned(), value)]);
}

#[test]
fn paths_that_leave_the_image_are_refused() {
    for path in ["relative", "/../up", "/"] {
        let tree = Tree::from([(path.to_owned(), file(b"", false))]);
        let error = layer(&tree).unwrap_err().to_string();
        assert_eq!(error, format!("write image layer: {path} is no absolute path"));
    }
    let tree = Tree::from([("/a".to_owned(), file(b"", false)), ("/a/b".to_owned(), file(b"", false))]);
    assert_eq!(layer(&tree).unwrap_err().to_string(), "write image layer: /a is both a directory and not");
}
