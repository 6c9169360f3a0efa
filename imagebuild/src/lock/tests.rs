// SPDX-License-Identifier: Apache-2.0
//! Tests of the lock: the repository's own, and what is refused.
#![allow(clippy::unwrap_used)]

use super::*;

const HEAD: &str = "version = 1\nkubernetes = \"1.36\"\n";

fn kubelet(version: &str, minor: &str) -> String {
    format!(
        "[[component]]\nname = \"kubelet\"\nversion = \"{version}\"\nkubernetes = \"{minor}\"\n\
         source.file = {{ path = {{ arm64 = \"a\" }}, sha256 = {{ arm64 = \"b\" }} }}\n"
    )
}

fn refused(text: &str) -> String {
    format!("{:#}", Lock::parse(text, Path::new("/")).unwrap_err())
}

#[test]
fn several_minors_stand_side_by_side() {
    let text = format!("{HEAD}{}{}", kubelet("1.35.9", "1.35"), kubelet("1.36.3", "1.36"));
    let lock = Lock::parse(&text, Path::new("/")).unwrap();
    let version = |wanted: Option<&str>| {
        let minor = lock.minor(wanted).unwrap();
        lock.component("kubelet", &minor).unwrap().version.clone()
    };
    assert_eq!(version(None), "1.36.3");
    assert_eq!(version(Some("1.35")), "1.35.9");
    assert_eq!(version(Some("v1.35.9")), "1.35.9");
    assert_eq!(
        lock.minor(Some("1.34")).unwrap_err().to_string(),
        "find Kubernetes 1.34 in components.lock: it holds 1.35.9, 1.36.3"
    );
    assert_eq!(
        lock.component("kublet", "1.36").unwrap_err().to_string(),
        "find component kublet in components.lock: it holds kubelet"
    );
}

#[test]
fn a_default_that_is_not_there_is_refused() {
    let text = format!("{HEAD}{}", kubelet("1.35.9", "1.35"));
    assert_eq!(refused(&text), "find Kubernetes 1.36 in components.lock: it holds 1.35.9");
}

#[test]
fn contradictions_are_refused() {
    let twice = format!("{HEAD}{0}{0}", kubelet("1.36.3", "1.36"));
    assert_eq!(refused(&twice), "check component kubelet: it is listed twice for the same Kubernetes minor");
    let newer = HEAD.replace("version = 1", "version = 2");
    assert_eq!(refused(&newer), "lock version 2 is unknown: this imagebuild reads version 1");
    let head = format!("{HEAD}{}[[component]]\nname = \"x\"\nversion = \"1\"\n", kubelet("1.36.3", "1.36"));
    let lost = format!("{head}source.go-module = {{ wrapper = \"w\", package = \"p\" }}\n");
    assert_eq!(refused(&lost), "check component x: find wrapper \"w\" in components.lock");
    let other = format!("{lost}[wrapper.w]\nmodule = \"m\"\nversion = \"2\"\ndigest = \"h1:\"\n");
    assert_eq!(refused(&other), "check component x: version 1 but wrapper w is 2");
    let deb = format!("{head}source.debian = {{ package = \"p\", version = \"1-1\", path = \"a\" }}\n");
    assert_eq!(refused(&deb), "check component x: a Debian package of a fixed version needs sha256");
    let typo = format!("{head}source.file = {{ paht = {{}}, sha256 = {{}} }}\n");
    assert!(refused(&typo).contains("unexpected keys in table: paht"), "{}", refused(&typo));
}

#[test]
fn images_that_contradict_are_refused() {
    let image = |name: &str, more: &str| {
        format!(
            "[[image]]\nname = \"{name}\"\nreference = \"r/{name}:1\"\nversion = \"1\"\n{more}\n\
             from.registry = {{ image = \"r/{name}\", digest = \"sha256:0\" }}\n"
        )
    };
    let head = format!("{HEAD}{}", kubelet("1.36.3", "1.36"));
    let marked = head.clone() + &image("etcd", "control-plane = true") + &image("pause", "sandbox = true");
    let lock = Lock::parse(&marked, Path::new("/")).unwrap();
    assert_eq!(lock.images.iter().map(|i| i.control_plane).collect::<Vec<_>>(), [true, false]);
    let both = head.clone() + &image("pause", "sandbox = true\ncontrol-plane = true");
    assert_eq!(
        refused(&both),
        "check image pause: every node needs the sandbox image, so it takes no `control-plane = true`"
    );
    let twice = head + &image("etcd", "") + &image("etcd", "control-plane = true");
    assert_eq!(refused(&twice), "check image etcd: r/etcd:1 is listed twice for the same Kubernetes minor");
}

#[test]
fn a_version_of_kubernetes_is_that_of_kubelet() {
    let text = format!("{HEAD}{}{}", kubelet("1.36.3", "1.36"), kubelet("3.6.8", "1.36").replace("kubelet", "etcd"));
    let lock = Lock::parse(&text, Path::new("/")).unwrap();
    assert_eq!(lock.minor(Some("1.36.3")).unwrap(), "1.36");
    lock.minor(Some("3.6.8")).unwrap_err();
}

#[test]
fn every_digest_of_the_repository_is_that_of_its_go_sum() {
    let lock = Lock::find().unwrap();
    assert!(!lock.wrapper.is_empty());
    for (name, wrapper) in &lock.wrapper {
        let go_sum = std::fs::read_to_string(lock.wrapper_dir(name).join("go.sum")).unwrap();
        let line = format!("{} v{} {}", wrapper.module, wrapper.version, wrapper.digest);
        assert!(go_sum.lines().any(|l| l == line), "{name}: no line `{line}` in go.sum");
    }
}

#[test]
fn every_file_of_an_image_is_a_component() {
    let lock = Lock::find().unwrap();
    for minor in ["1.35", "1.36"] {
        for image in lock.images_for(minor) {
            if let ImageSource::Build { files, .. } = &image.from {
                for file in files.values() {
                    lock.component(&file.component, minor).unwrap();
                }
            }
        }
        assert_eq!(lock.images_for(minor).filter(|i| i.sandbox).count(), 1);
    }
}

/// `kubeadm config images list` of the locked kubeadm, as far as the images are a control plane's own.
#[test]
fn a_control_plane_has_the_images_that_kubeadm_names() {
    let lock = Lock::find().unwrap();
    for (minor, version, etcd) in [("1.36", "1.36.3", "3.6.8-0"), ("1.35", "1.35.4", "3.6.6-0")] {
        assert_eq!(lock.component("kubeadm", minor).unwrap().version, version);
        // kubeadm names all but those of flannel.
        let of_kubeadm = |image: &&Image| image.control_plane && !image.name.starts_with("flannel");
        let marked = lock.images_for(minor).filter(of_kubeadm);
        let names: Vec<&str> = marked.map(|image| image.reference.as_str()).collect();
        let mut expected = Vec::new();
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            expected.push(format!("registry.k8s.io/{name}:v{version}"));
        }
        expected.push(format!("registry.k8s.io/etcd:{etcd}"));
        assert_eq!(names, expected);
    }
}
