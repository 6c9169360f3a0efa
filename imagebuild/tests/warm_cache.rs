// SPDX-License-Identifier: Apache-2.0
//! A second build from a warm cache uses no network: it makes the same bundle although every way out is cut.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../tests/skip.rs"]
mod skip;

use imagebuild::{cache, cmd, digest, go, lock::Lock};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// Answers one request with `body`, then closes the port.
fn serve_once(body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tool", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert_ne!(stream.read(&mut request).unwrap(), 0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    });
    url
}

/// A lock in `dir` with one component of each kind of source that may need a network, and an image of Debian programs.
fn write_lock(dir: &Path, url: &str, sha256: &str) {
    let real = Lock::find().unwrap();
    let name = "cni-plugins-1.9";
    let copy = |from: &Path, to: &str| {
        let to = dir.join(to);
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
    };
    for wrapper in [name, "containerd-2.4"] {
        copy(&real.wrapper_dir(wrapper), &format!("imagebuild/components/{wrapper}"));
    }
    copy(&real.root.join("imagebuild/prepared"), "imagebuild/prepared");
    let containerd = real.wrapper("containerd-2.4").unwrap();
    let (containerd_version, containerd_digest) = (&containerd.version, &containerd.digest);
    let (module, version) = (&real.wrapper(name).unwrap().module, &real.wrapper(name).unwrap().version);
    let digest = &real.wrapper(name).unwrap().digest;
    let text = format!(
        r#"
version = 1
kubernetes = "1.36"
[wrapper."{name}"]
module = "{module}"
version = "{version}"
digest = "{digest}"
[wrapper."containerd-2.4"]
module = "github.com/containerd/containerd/v2"
version = "{containerd_version}"
digest = "{containerd_digest}"
[[component]]
name = "containerd-state"
version = "1"
source.go-directory = {{ directory = "imagebuild/prepared", wrapper = "containerd-2.4" }}
[[component]]
name = "kubelet"
version = "1.36.3"
kubernetes = "1.36"
install = "bin/kubelet"
source.url = {{ url = {{ amd64 = "{url}" }}, sha256 = {{ amd64 = "{sha256}" }} }}
[[component]]
name = "loopback"
version = "{version}"
install = "cni/loopback"
source.go-module = {{ wrapper = "{name}", package = "{module}/plugins/main/loopback" }}
[[component]]
name = "nft-copyright"
version = "1"
install = "cni/copyright"
source.debian = {{ package = "nftables", path = "usr/share/doc/nftables/copyright" }}
[[image]]
name = "pause"
reference = "example.org/nft:1"
version = "1"
sandbox = true
[image.from.build]
files = {{}}
debian = ["nftables"]
programs = ["/usr/sbin/nft"]
entrypoint = ["/usr/sbin/nft"]
"#
    );
    std::fs::write(dir.join("components.lock"), text).unwrap();
}

/// Go's cache of compiled packages. It spares a minute of compiling and opens no way out: Go takes nothing from it before
/// it has read the sources of every package.
fn go_build_cache() -> String {
    let output = go::command().unwrap().args(["env", "GOCACHE"]).output().unwrap();
    stdout(&output).trim().to_owned()
}

fn bundle(dir: &Path, cut: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagebuild"));
    command.env("XDG_CACHE_HOME", dir.join("cache")).env("GOCACHE", go_build_cache());
    command.args(["bundle", "--arch", "amd64", "--lock"]).arg(dir.join("components.lock"));
    if cut {
        // No server listens on port 9; Go has neither its proxy nor its module cache.
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, "http://127.0.0.1:9");
        }
        command.env("GOPROXY", "off").env("GOMODCACHE", dir.join("empty")).env("GOTOOLCHAIN", "local");
    }
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_warm_cache_needs_no_network() {
    for (there, program) in [(go::is_here(), "Go"), (cmd::found("apt-get"), "apt-get")] {
        if !there {
            skip::skip_unless_ci(&format!("{program} is not installed"));
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    // A cache of its own, but for Debian's package lists and packages, and for tools: those are the same for all.
    let cache = dir.path().join("cache/firstboot");
    std::fs::create_dir_all(&cache).unwrap();
    for shared in ["debs", "tools"] {
        let real = cache::dir().unwrap().join(shared);
        std::fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(real, cache.join(shared)).unwrap();
    }
    let body = b"a tool";
    let url = serve_once(body);
    write_lock(dir.path(), &url, &digest::bytes(body));
    let first = stdout(&bundle(dir.path(), false));
    assert!(first.contains("cni/loopback"), "{first}");
    assert!(first.contains(cache.to_str().unwrap()), "{first}");
    assert_eq!(stdout(&bundle(dir.path(), true)), first);

    // The ways out are really cut: what is not in the cache is not available.
    write_lock(dir.path(), &url, &"0".repeat(64));
    let output = bundle(dir.path(), true);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("download component kubelet"), "{error}");
    let go = go::command()
        .unwrap()
        .args(["mod", "download", "github.com/containernetworking/plugins@v1.9.1"])
        .env("GOPROXY", "off")
        .env("GOMODCACHE", dir.path().join("empty"))
        .current_dir(dir.path().join("imagebuild/components/cni-plugins-1.9"))
        .output()
        .unwrap();
    assert!(!go.status.success(), "Go found its way out");
}
