// SPDX-License-Identifier: Apache-2.0
//! Versions of the software on this device, for people and tools that compare devices. No decision depends on them.

use crate::bundle::{BUNDLE_DIR, Manifest};
use crate::host::{Host, System};
use crate::image::{IMAGE_INFO, ImageInfo};
use crate::status::Versions;
use serde::de::DeserializeOwned;

/// Versions in the image's files. A missing or unreadable file leaves its versions empty; the run reports the fault.
pub fn of_image(host: &Host) -> Versions {
    let image: Option<ImageInfo> = read(host, IMAGE_INFO);
    let bundle: Option<Manifest> = read(host, &format!("{BUNDLE_DIR}/manifest.json"));
    let of = |path: &str| bundle.as_ref()?.files.iter().find(|f| f.path == path).map(|f| plain(&f.version));
    Versions {
        firstboot: env!("CARGO_PKG_VERSION").into(),
        image: image.map(|i| i.build_id),
        kubelet: of("bin/kubelet"),
        containerd: of("bin/containerd"),
        kubernetes: bundle.map(|b| b.kubernetes),
    }
}

/// Queries the installed programs, which may be newer than the bundle's, for example after `kubeadm upgrade node`.
pub fn ask_programs(versions: &mut Versions, sys: &dyn System) {
    let last = |argv: &[&str], word: usize| {
        sys.run(argv, None).ok().and_then(|text| text.split_whitespace().nth(word).map(plain))
    };
    // `Kubernetes v1.36.3`; `containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b71…`
    versions.kubelet = last(&["kubelet", "--version"], 1).or(versions.kubelet.take());
    versions.containerd = last(&["containerd", "--version"], 2).or(versions.containerd.take());
}

fn read<T: DeserializeOwned>(host: &Host, path: &str) -> Option<T> {
    serde_json::from_slice(&host.read(path).ok()??).ok()
}

fn plain(version: &str) -> String {
    version.trim_start_matches('v').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn versions_of_programs_override_those_of_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert_eq!(of_image(&host), Versions { firstboot: "0.1.0".into(), ..Versions::default() });
        let file = |path: &str, version: &str| {
            format!(r#"{{"path":"{path}","mode":493,"size":0,"sha256":"","component":"c","version":"{version}"}}"#)
        };
        let manifest = format!(
            r#"{{"version":2,"arch":"amd64","kubernetes":"1.36.3","sandbox_image":"p","images":[],"files":[{},{}]}}"#,
            file("bin/kubelet", "1.36.3"),
            file("bin/containerd", "v2.1.4")
        );
        host.write(&format!("{BUNDLE_DIR}/manifest.json"), manifest.as_bytes(), 0o644).unwrap();
        let mut versions = of_image(&host);
        assert_eq!(versions.kubernetes.as_deref(), Some("1.36.3"));
        assert_eq!((versions.kubelet.as_deref(), versions.containerd.as_deref()), (Some("1.36.3"), Some("2.1.4")));
        let (fake, _) = Fake::new();
        ask_programs(
            &mut versions,
            &fake.answering(|argv| match argv[0] {
                "kubelet" => Some(Ok("Kubernetes v1.36.4\n".into())),
                _ => Some(Err(anyhow::anyhow!("no such program"))),
            }),
        );
        assert_eq!((versions.kubelet.as_deref(), versions.containerd.as_deref()), (Some("1.36.4"), Some("2.1.4")));
    }
}
