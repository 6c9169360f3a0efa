// SPDX-License-Identifier: Apache-2.0
//! Tests of the bundle: a small one is made and read back.
#![allow(clippy::unwrap_used)]

use super::*;
use std::collections::BTreeMap;
use std::io::Read;

/// A lock in `dir` whose components are local files, so that nothing is built or downloaded. What would write containerd's
/// state keeps the request instead.
fn lock(dir: &Path, flip: bool) -> Lock {
    let mut text = "version = 1\nkubernetes = \"1.36\"\n".to_owned();
    let large = vec![b'k'; 5 << 20];
    let state =
        b"#!/bin/sh\nmkdir \"$1/a\" && cat >\"$1/a/request\" && ln -s ../x \"$1/link\" && chmod 700 \"$1\"\n".to_vec();
    for (name, version, install, content) in [
        ("kubelet", "1.36.3", "install = \"bin/kubelet\"\nkubernetes = \"1.36\"", large),
        ("bridge", "1.9.1", "install = \"cni/bridge\"\nmode = 0o700", b"bridge".to_vec()),
        ("containerd-state", "1", "", state),
        ("pause", "3.10.2", "", b"pause".to_vec()),
    ] {
        let mut sha256 = digest::bytes(&content);
        if flip && name == "bridge" {
            sha256 = digest::bytes(b"another");
        }
        fs::write(dir.join(name), content).unwrap();
        text += &format!(
            "[[component]]\nname = \"{name}\"\nversion = \"{version}\"\n{install}\n\
             source.file = {{ path = {{ arm64 = \"{name}\", amd64 = \"{name}\" }}, \
             sha256 = {{ arm64 = \"{sha256}\", amd64 = \"{sha256}\" }} }}\n"
        );
    }
    text += "[[image]]\nname = \"pause\"\nreference = \"example.org/pause:3.10.2\"\nversion = \"3.10.2\"\n\
             sandbox = true\n[image.from.build]\nfiles = { \"/pause\" = { component = \"pause\", net-bind-service = true } }\n\
             entrypoint = [\"/pause\"]\n";
    text += "[[image]]\nname = \"etcd\"\nreference = \"example.org/etcd:3\"\nversion = \"3\"\ncontrol-plane = true\n\
             kubernetes = \"1.36\"\n[image.from.build]\nfiles = { \"/etcd\" = { component = \"bridge\" } }\n\
             entrypoint = [\"/etcd\"]\n";
    Lock::parse(&text, dir).unwrap()
}

/// A bundle of that lock in `dir`, built again, because the cache may hold a result of older code.
fn made(dir: &Path, flip: bool) -> Result<Bundle> {
    let to = tempfile::tempdir_in(dir).unwrap().keep();
    build(&lock(dir, flip), Arch::Arm64, &to)?;
    Bundle::read(&to)
}

/// Type, mode, target and content of each member, and the name of its extended attribute.
fn members(tar: &Path) -> BTreeMap<String, (u8, u32, String, Vec<u8>, String)> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let mut members = BTreeMap::new();
    let mut order = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        order.push(path.clone());
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0), "{path}");
        let (kind, mode) = (header.entry_type().as_byte(), header.mode().unwrap());
        let target = entry.link_name().unwrap().map(|t| t.to_str().unwrap().to_owned()).unwrap_or_default();
        let attribute = entry.pax_extensions().unwrap().into_iter().flatten();
        let attribute =
            attribute.map(|e| e.unwrap().key().unwrap().to_owned()).filter(|key| key.starts_with("SCHILY")).collect();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(members.insert(path, (kind, mode, target, bytes, attribute)).is_none());
    }
    assert!(order.is_sorted(), "{order:?}");
    members
}

#[test]
fn the_tar_has_what_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = made(dir.path(), false).unwrap();
    let manifest = &bundle.manifest;
    assert_eq!((manifest.version, manifest.arch.as_str(), manifest.kubernetes.as_str()), (2, "arm64", "1.36.3"));
    assert_eq!(manifest.sandbox_image, "example.org/pause:3.10.2");
    let paths: Vec<(&str, u32)> = manifest.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
    assert_eq!(paths, [("bin/kubelet", 0o755), ("cni/bridge", 0o700)]);

    let members = members(&bundle.tar());
    let root = "usr/lib/firstboot/bundle";
    for file in &manifest.files {
        let (kind, mode, _, bytes, _) = &members[&format!("{root}/{}", file.path)];
        assert_eq!((*kind, *mode, bytes.len() as u64), (b'0', file.mode, file.size));
        assert_eq!(digest::bytes(bytes), file.sha256);
    }
    assert_eq!(members[&format!("{root}/manifest.json")].3, fs::read(bundle.manifest_file()).unwrap());
    assert_eq!(members["usr/bin/kubelet"].2, "../lib/firstboot/bundle/bin/kubelet");
    // Only of programs that are there, and the links of nothing else.
    assert_eq!(members.keys().filter(|path| path.starts_with("usr/bin/")).count(), 1);

    let [image] = manifest.images.as_slice() else { panic!("{manifest:?}") };
    assert_eq!(image.chain_id, format!("sha256:{}", image.layers[0]));
    let pause = &members[&format!("{root}/layers/{}/pause", image.layers[0])];
    assert_eq!(
        (pause.1, pause.3.as_slice(), pause.4.as_str()),
        (0o755, &b"pause"[..], "SCHILY.xattr.security.capability")
    );

    let (_, mode, ..) = &members[&format!("{root}/containerd/")];
    assert_eq!((*mode, members[&format!("{root}/containerd/link")].2.as_str()), (0o700, "../x"));
    let request: serde_json::Value =
        serde_json::from_slice(&members[&format!("{root}/containerd/a/request")].3).unwrap();
    assert_eq!(request["root"], "/var/lib/containerd");
    assert_eq!(request["layers"], "/usr/lib/firstboot/bundle/layers");
    assert_eq!(request["images"][0]["name"], "example.org/pause:3.10.2");
    let decoded = |key: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(request["images"][0][key].as_str().unwrap()).unwrap()
    };
    assert_eq!([digest::bytes(decoded("manifest")), digest::bytes(decoded("config"))], *image.content);
    assert_eq!(image.sha256, image.content[0]);
    // Nothing else is left in the cache's directory.
    let mut names: Vec<_> = fs::read_dir(&bundle.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, FILES);
}

#[test]
fn the_same_lock_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let of = |bundle: &Bundle| digest::file(&bundle.tar()).unwrap();
    assert_eq!(of(&made(dir.path(), false).unwrap()), of(&made(dir.path(), false).unwrap()));
}

#[test]
fn a_digest_that_does_not_match_stops_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let error = made(dir.path(), true).unwrap_err();
    let (expected, found) = (digest::bytes(b"another"), digest::bytes(b"bridge"));
    assert_eq!(
        format!("{error:#}"),
        format!("verify component bridge: file bridge: expected {expected}, found {found}")
    );
}

#[test]
fn the_mark_decides_which_bundles_have_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock(dir.path(), false);
    let wanted =
        |control_plane| Wanted::new(&lock, Arch::Arm64, Choice { control_plane, ..Choice::default() }).unwrap();
    let names = |wanted: &Wanted| {
        let to = tempfile::tempdir_in(dir.path()).unwrap().keep();
        write(wanted, &to).unwrap();
        let bundle = Bundle::read(&to).unwrap();
        let names: Vec<String> = bundle.manifest.images.iter().map(|image| image.name.clone()).collect();
        // Its layer comes and goes with it.
        let layers = members(&bundle.tar()).into_keys().filter(|path| path.ends_with("/etcd")).count();
        (names, layers)
    };
    assert_eq!(names(&wanted(false)), (vec!["example.org/pause:3.10.2".to_owned()], 0));
    assert_eq!(names(&wanted(true)), (vec!["example.org/pause:3.10.2".to_owned(), "example.org/etcd:3".to_owned()], 1));
    assert_ne!(key(&wanted(false)).unwrap(), key(&wanted(true)).unwrap());
}

#[test]
fn a_control_plane_that_the_lock_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut lock = lock(dir.path(), false);
    lock.images.retain(|image| !image.control_plane);
    let choice = Choice { control_plane: true, ..Choice::default() };
    let error = ensure_of(&lock, Arch::Arm64, choice).unwrap_err().to_string();
    assert_eq!(error, "make bundle: no image for Kubernetes 1.36 is marked `control-plane = true` in the lock");
}

#[test]
fn an_unknown_kubernetes_version_names_what_is_there() {
    let error =
        ensure(Arch::Arm64, Choice { kubernetes_version: Some("1.2"), ..Choice::default() }).unwrap_err().to_string();
    assert_eq!(error, "find Kubernetes 1.2 in components.lock: it holds 1.35.4, 1.36.3");
}

#[test]
fn programs_go_nowhere_else() {
    assert!(proper("bin/kubelet") && proper("cni/bridge"));
    for path in ["bin/../x", "bin/", "bin/a/b", "/bin/a", "manifest.json", "layers/a", "bin/..", "cni/.x"] {
        assert!(!proper(path), "{path}");
    }
}

#[test]
fn a_copy_is_never_mixed_with_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = made(dir.path(), false).unwrap();
    let out = dir.path().join("out");
    copy(&bundle, &out).unwrap();
    assert_eq!(Bundle::read(&out).unwrap().manifest, bundle.manifest);
    assert_eq!(digest::file(&out.join("bundle.tar")).unwrap(), digest::file(&bundle.tar()).unwrap());
    let error = copy(&bundle, &out).unwrap_err().to_string();
    assert_eq!(error, format!("write bundle to {}: the directory is not empty", out.display()));
}

#[test]
fn the_table_has_every_row_and_the_sum() {
    let dir = tempfile::tempdir().unwrap();
    let table = table(&made(dir.path(), false).unwrap().manifest);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[3].ends_with("1 layers"), "{table}");
    assert!(lines[4].ends_with(&((5 << 20) + 6).to_string()), "{table}");
}
