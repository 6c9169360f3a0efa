// SPDX-License-Identifier: Apache-2.0
//! Tests of pulling, against Debian's `docker-registry` on loopback.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::oci::{self, Entry, Run, Tree};
use crate::source::testing::have;
use reqwest::blocking::Client;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry of its own for one test; ends with it.
struct Registry {
    process: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Registry {
    fn start() -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry { process: command.spawn().unwrap(), address, dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn client() -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::builder().no_proxy().build().unwrap()
    }

    fn put_blob(&self, bytes: &[u8]) {
        let start = format!("http://{}/v2/team/app/blobs/uploads/", self.address);
        let answer = Registry::client().post(start).send().unwrap();
        let to = answer.headers()["location"].to_str().unwrap().to_owned();
        let to = format!("{to}&digest=sha256:{}", digest::bytes(bytes));
        let answer = Registry::client().put(to).body(bytes.to_vec()).send().unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
    }

    /// Returns the digest.
    fn put_manifest(&self, kind: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", digest::bytes(bytes));
        let to = format!("http://{}/v2/team/app/manifests/{digest}", self.address);
        let answer = Registry::client().put(to).header("content-type", kind).body(bytes.to_vec()).send().unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().unwrap());
        digest
    }

    /// Stores an image of one file, returns its digest.
    fn put_image(&self, arch: Arch) -> String {
        let content = Entry::File { bytes: arch.name().into(), mode: 0o644, net_bind_service: false };
        let image = oci::image(&Tree::from([("/arch".to_owned(), content)]), &Run::default(), arch).unwrap();
        for blob in image.blobs.values() {
            let Content::Bytes(bytes) = blob else { panic!("a layer in a file") };
            self.put_blob(bytes);
        }
        self.put_manifest(oci::MANIFEST, &image.manifest)
    }

    /// Stores a list of one image for each architecture, returns its digest.
    fn put_list(&self, kind: &str) -> String {
        let entry = |arch: Arch| {
            let digest = self.put_image(arch);
            let size = self.manifest_size(&digest);
            json!({ "mediaType": oci::MANIFEST, "digest": digest, "size": size,
                    "platform": { "architecture": arch.name(), "os": "linux" } })
        };
        let list =
            json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [entry(Arch::Amd64), entry(Arch::Arm64)] });
        self.put_manifest(kind, &serde_json::to_vec(&list).unwrap())
    }

    fn manifest_size(&self, digest: &str) -> usize {
        let url = format!("http://{}/v2/team/app/manifests/{digest}", self.address);
        Registry::client().get(url).header(ACCEPT, oci::MANIFEST).send().unwrap().bytes().unwrap().len()
    }

    fn pull(&self, digest: &str, arch: Arch) -> Result<Image, String> {
        let scratch = self.dir.path().join(format!("scratch-{arch}"));
        std::fs::create_dir_all(&scratch).unwrap();
        let image = format!("{}/team/app", self.address);
        pull("thing", &image, digest, true, arch, &scratch).map_err(|e| format!("{e:#}"))
    }

    /// Where the registry keeps the bytes of a digest.
    fn stored(&self, digest: &str) -> std::path::PathBuf {
        let hex = hex_of(digest).unwrap();
        let blobs = self.dir.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

#[test]
fn the_image_of_the_wanted_architecture_comes_out_of_a_list() {
    if !have("docker-registry") {
        return;
    }
    let registry = Registry::start();
    for kind in LISTS {
        let digest = registry.put_list(kind);
        for arch in Arch::ALL {
            let image = registry.pull(&digest, arch).unwrap();
            let to = registry.dir.path().join("image.tar");
            oci::write(&image, "example.org/app:1", arch, &to).unwrap();
            let bytes = std::fs::read(to).unwrap();
            let arch_file = format!("\"architecture\":\"{arch}\"");
            assert!(bytes.windows(arch_file.len()).any(|w| w == arch_file.as_bytes()));
            assert_eq!(image.blobs.len(), 2);
        }
    }
    let single = registry.put_image(Arch::Arm64);
    let manifest = registry.pull(&single, Arch::Arm64).unwrap().manifest;
    assert_eq!(format!("sha256:{}", digest::bytes(&manifest)), single);
}

#[test]
fn bytes_that_do_not_match_their_digest_stop() {
    if !have("docker-registry") {
        return;
    }
    let registry = Registry::start();
    let digest = registry.put_image(Arch::Arm64);
    let image = registry.pull(&digest, Arch::Arm64).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let mut bytes = std::fs::read(registry.stored(layer)).unwrap();
    bytes[600] ^= 1;
    std::fs::write(registry.stored(layer), &bytes).unwrap();
    let url = format!("http://{}/v2/team/app", registry.address);
    let found = digest::bytes(&bytes);
    assert_eq!(
        registry.pull(&digest, Arch::Arm64).err().unwrap(),
        format!("verify component thing: layer {url}/blobs/{layer}: expected {layer}, found sha256:{found}")
    );
    let absent = format!("sha256:{}", "0".repeat(64));
    assert_eq!(
        registry.pull(&absent, Arch::Arm64).err().unwrap(),
        format!("get {url}/manifests/{absent}: 404 Not Found")
    );
}

#[test]
fn an_image_without_the_architecture_is_refused() {
    if !have("docker-registry") {
        return;
    }
    let registry = Registry::start();
    let digest = registry.put_image(Arch::Amd64);
    let size = registry.manifest_size(&digest);
    let list = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [
        { "mediaType": oci::MANIFEST, "digest": digest, "size": size,
          "platform": { "architecture": "amd64", "os": "linux" } }] });
    let digest = registry.put_manifest(oci::INDEX, &serde_json::to_vec(&list).unwrap());
    assert_eq!(
        registry.pull(&digest, Arch::Arm64).err().unwrap(),
        format!("find linux/arm64 in image {}/team/app of component thing", registry.address)
    );
}

#[test]
fn a_registry_that_requires_a_token_names_the_token_server() {
    let challenge = r#"Bearer realm="https://auth.example.org/token",service="reg",scope="repository:a/b:pull""#;
    assert_eq!(
        token_url(challenge, "https://registry-1.example.org/v2/").unwrap().unwrap(),
        "https://auth.example.org/token?service=reg&scope=repository%3Aa%2Fb%3Apull"
    );
    assert_eq!(token_url("Basic realm=\"x\"", "https://a.example").unwrap(), None);
}

#[test]
fn s18_a_token_server_is_the_registrys_own() {
    let may = |registry: &str, realm: &str| may_ask(&Url::parse(registry).unwrap(), &Url::parse(realm).unwrap());
    assert!(may("https://quay.io/v2/x", "https://quay.io/v2/auth"));
    assert!(may("https://ghcr.io/v2/x", "https://ghcr.io/token"));
    assert!(may("https://registry-1.docker.io/v2/x", "https://auth.docker.io/token"));
    assert!(may("http://127.0.0.1:5000/v2/x", "http://127.0.0.1:5000/token"));
    for (registry, realm) in [
        ("https://registry-1.docker.io/v2/x", "http://auth.docker.io/token"),
        ("https://registry-1.docker.io/v2/x", "https://auth.docker.io:8443/token"),
        ("https://registry-1.docker.io/v2/x", "https://notdocker.io/token"),
        ("https://quay.io/v2/x", "https://evil.io/token"),
        ("https://quay.io/v2/x", "https://127.0.0.1/token"),
        ("https://10.0.0.1/v2/x", "https://10.0.0.2/token"),
        ("https://10.0.0.1/v2/x", "http://169.254.169.254/latest"),
        ("http://127.0.0.1:5000/v2/x", "http://127.0.0.1:22/"),
    ] {
        assert!(!may(registry, realm), "{registry} {realm}");
    }
}

#[test]
fn only_sha256_is_taken_for_a_digest() {
    for digest in ["latest", "sha512:00", "sha256:../../etc/passwd"] {
        let error = hex_of(digest).unwrap_err().to_string();
        assert_eq!(error, format!("read digest {digest}: it is not sha256 with 64 hex digits"));
    }
}
