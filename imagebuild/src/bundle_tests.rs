// SPDX-License-Identifier: Apache-2.0
//! Tests of the bundle: a small one is made and read back byte for byte.
#![allow(clippy::unwrap_used)]

use super::*;

/// A lock in `dir` whose components are local files, so that nothing is built or downloaded.
fn lock(dir: &Path, flip: bool) -> Lock {
    let mut text = "version = 1\nkubernetes = \"1.36\"\n".to_owned();
    let large = vec![b'k'; 5 << 20];
    for (name, version, install, content) in [
        ("kubelet", "1.36.3", "install = \"bin/kubelet\"\nkubernetes = \"1.36\"", large),
        ("bridge", "1.9.1", "install = \"cni/bridge\"\nmode = 0o700", b"bridge".to_vec()),
        ("pause", "3.10.2", "", b"pause".to_vec()),
    ] {
        let mut sha256 = digest::bytes(&content);
        if flip && name == "bridge" {
            sha256 = digest::bytes(b"another");
        }
        fs::write(dir.join(name), content).unwrap();
        text += &format!(
            "[[component]]\nname = \"{name}\"\nversion = \"{version}\"\n{install}\n\
             source.file = {{ path = {{ arm64 = \"{name}\" }}, sha256 = {{ arm64 = \"{sha256}\" }} }}\n"
        );
    }
    text += "[[image]]\nname = \"pause\"\nreference = \"example.org/pause:3.10.2\"\nversion = \"3.10.2\"\n\
             sandbox = true\n[image.from.build]\nfiles = { \"/pause\" = { component = \"pause\" } }\n\
             entrypoint = [\"/pause\"]\n";
    Lock::parse(&text, dir).unwrap()
}

/// A bundle of that lock in `dir`, built again, because the cache may hold a result of older code.
fn made(dir: &Path, flip: bool) -> Result<PathBuf> {
    let bundle = dir.join("bundle");
    fs::create_dir(&bundle).unwrap();
    write(&lock(dir, flip), "1.36", Arch::Arm64, &bundle)?;
    Ok(bundle)
}

#[test]
fn every_blob_unpacks_to_what_the_manifest_says() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = made(dir.path(), false).unwrap();
    let manifest = read_manifest(&bundle).unwrap();
    assert_eq!((manifest.version, manifest.arch.as_str(), manifest.kubernetes.as_str()), (1, "arm64", "1.36.3"));
    assert_eq!(manifest.sandbox_image, "example.org/pause:3.10.2");
    let paths: Vec<(&str, u32)> = manifest.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
    assert_eq!(paths, [("bin/kubelet", 0o755), ("cni/bridge", 0o700)]);

    let files = manifest.files.iter().map(|f| (&f.blob, f.size, &f.sha256));
    let images = manifest.images.iter().map(|i| (&i.blob, i.size, &i.sha256));
    for (blob, size, sha256) in files.chain(images) {
        let bytes = fs::read(bundle.join("blobs").join(&blob.sha256)).unwrap();
        assert_eq!(bytes.len() as u64, blob.size);
        assert_eq!(digest::bytes(&bytes), blob.sha256);
        assert!(compress::window(&bytes).unwrap() <= 1 << MAX_WINDOW_LOG);
        let content = zstd::decode_all(bytes.as_slice()).unwrap();
        assert_eq!(content.len() as u64, size);
        assert_eq!(digest::bytes(&content), *sha256);
    }
    assert_eq!(fs::read_dir(bundle.join("blobs")).unwrap().count(), 3);
    let json = serde_json::to_vec(&manifest).unwrap();
    assert_eq!(serde_json::from_slice::<Manifest>(&json).unwrap(), manifest);
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
fn an_unknown_kubernetes_version_names_what_is_there() {
    let error = ensure(Arch::Arm64, Some("1.2")).unwrap_err().to_string();
    assert_eq!(error, "find Kubernetes 1.2 in components.lock: it holds 1.35.4, 1.36.3");
}

#[test]
fn a_copy_is_never_mixed_with_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = made(dir.path(), false).unwrap();
    let out = dir.path().join("out");
    copy(&bundle, &out).unwrap();
    assert_eq!(read_manifest(&out).unwrap(), read_manifest(&bundle).unwrap());
    let error = copy(&bundle, &out).unwrap_err().to_string();
    assert_eq!(error, format!("write bundle to {}: the directory is not empty", out.display()));
}

#[test]
fn the_table_sums_up() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = made(dir.path(), false).unwrap();
    let table = table(&read_manifest(&bundle).unwrap());
    let column = |line: &str, n: usize| line.split_whitespace().rev().nth(n).unwrap().parse::<u64>().unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5);
    for n in 0..2 {
        assert_eq!(lines[1..4].iter().map(|l| column(l, n)).sum::<u64>(), column(lines[4], n));
    }
}
