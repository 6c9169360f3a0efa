// SPDX-License-Identifier: Apache-2.0
//! The bundle is whole: every program and every layer that its manifest names is in the image. Nothing is installed.
//!
//! Content is not read here: the root file system is verified as it is read, by dm-verity, and what is damaged is an error
//! where it is used.

use super::context::PhaseContext;
use crate::bundle::BUNDLE_DIR;
use crate::containerd::prepared;
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use anyhow::Result;

pub(super) fn check(cx: &PhaseContext) -> Result<bool, Fault> {
    apply(cx).map(|()| true)
}

pub(super) fn apply(cx: &PhaseContext) -> Result<(), Fault> {
    for file in &cx.bundle.manifest.files {
        let path = format!("{BUNDLE_DIR}/{}", file.path);
        let found = read(&cx.host, &path)?;
        let expected = (file.size, file.mode);
        if found != expected {
            let shown = |(size, mode): (u64, u32)| format!("{size} bytes with mode {mode:o}");
            let text = format!("verify {path}: expected {}, found {}", shown(expected), shown(found));
            return Err(Fault::new(Code::BundleDamaged, text));
        }
    }
    for layer in cx.bundle.manifest.images.iter().flat_map(|image| &image.layers) {
        read(&cx.host, &format!("{BUNDLE_DIR}/layers/{layer}"))?;
    }
    match cx.bundle.manifest.images.is_empty() {
        true => Ok(()),
        false => read(&cx.host, &prepared::template()).map(drop),
    }
}

/// Size and mode of something that has to be there.
fn read(host: &Host, path: &str) -> Result<(u64, u32), Fault> {
    let found = host.size_and_mode(path).coded(Code::BundleIncomplete)?;
    found
        .ok_or_else(|| Fault::new(Code::BundleIncomplete, format!("find {path}: the image lacks a part of its bundle")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{File, Image};
    use crate::host::fake::Fake;
    use crate::phases::tests::cx;
    use crate::test_files::put_for_tests;

    fn device(root: &std::path::Path) -> PhaseContext {
        let seed = "version = 1\n[cluster]\napiserver = \"192.0.2.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                    ca-cert-hashes = [\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"]\n";
        let mut cx = cx(root, Fake::new().0, seed);
        let text = |text: &str| text.to_owned();
        let (component, version) = (text("test"), text("1"));
        cx.bundle.manifest.files = ["bin/kubelet", "cni/bridge"]
            .map(|path| {
                let (component, version) = (component.clone(), version.clone());
                File { path: text(path), mode: 0o644, size: 7, sha256: text(""), component, version }
            })
            .to_vec();
        let layers = vec!["1".repeat(64), "2".repeat(64)];
        let (name, chain_id, content) = (text("example.org/a:1"), text(""), Vec::new());
        cx.bundle.manifest.images =
            vec![Image { name, sha256: text(""), layers, chain_id, content, component, version }];
        for path in ["bin/kubelet", "cni/bridge", "containerd/meta.db"] {
            put_for_tests(root, &format!("{}/{path}", &BUNDLE_DIR[1..]), "program");
        }
        for layer in &cx.bundle.manifest.images[0].layers {
            std::fs::create_dir_all(root.join(&BUNDLE_DIR[1..]).join("layers").join(layer)).unwrap();
        }
        cx
    }

    #[test]
    fn each_part_that_is_missing_or_of_another_size_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cx = device(dir.path());
        assert!(check(&cx).unwrap());
        let bundle = dir.path().join(&BUNDLE_DIR[1..]);
        let fault = || {
            let fault = apply(&cx).unwrap_err();
            assert!(check(&cx).is_err());
            (fault.code, fault.to_string())
        };
        std::fs::write(bundle.join("bin/kubelet"), "half").unwrap();
        let text = "expected 7 bytes with mode 644, found 4 bytes with mode 644";
        assert_eq!(fault(), (Code::BundleDamaged, format!("verify {BUNDLE_DIR}/bin/kubelet: {text}")));
        std::fs::remove_file(bundle.join("bin/kubelet")).unwrap();
        let gone = |path: &str| {
            (Code::BundleIncomplete, format!("find {BUNDLE_DIR}/{path}: the image lacks a part of its bundle"))
        };
        assert_eq!(fault(), gone("bin/kubelet"));
        std::fs::write(bundle.join("bin/kubelet"), "program").unwrap();
        let layer = format!("layers/{}", "2".repeat(64));
        std::fs::remove_dir(bundle.join(&layer)).unwrap();
        assert_eq!(fault(), gone(&layer));
        std::fs::create_dir(bundle.join(&layer)).unwrap();
        std::fs::remove_dir_all(bundle.join("containerd")).unwrap();
        assert_eq!(fault(), gone("containerd"));
    }
}
