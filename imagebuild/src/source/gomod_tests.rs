// SPDX-License-Identifier: Apache-2.0
//! Tests of the `go-module` source on the smallest real module of the lock.
#![allow(clippy::unwrap_used)]

use super::super::testing::{fetch_thing, have_go, lock};
use super::*;
use crate::lock::{Lock, Source};

const MODULE: &str = "github.com/containernetworking/plugins";
const WRAPPER: &str = "cni-plugins-1.9";

/// A lock that builds `loopback` in a copy of the repository's wrapper, with the given digest.
fn loopback(root: &Path, digest: &str) -> Lock {
    let copy = root.join("imagebuild/components").join(WRAPPER);
    std::fs::create_dir_all(&copy).unwrap();
    let real = Lock::find().unwrap();
    for name in ["go.mod", "go.sum"] {
        std::fs::copy(real.wrapper_dir(WRAPPER).join(name), copy.join(name)).unwrap();
    }
    let mut lock = lock(root, "source.file = { path = {}, sha256 = {} }");
    let mut wrapper = real.wrapper(WRAPPER).unwrap().clone();
    wrapper.digest = digest.to_owned();
    lock.wrapper.insert(WRAPPER.to_owned(), wrapper);
    let package = format!("{MODULE}/plugins/main/loopback");
    lock.components[1].source = Source::GoModule { wrapper: WRAPPER.to_owned(), package };
    lock
}

#[test]
fn what_stands_in_for_a_module_is_an_input() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lock = loopback(dir.path(), &true_digest());
    let request = Request { lock: &lock, component: &lock.components[1], arch: crate::arch::Arch::host().unwrap() };
    let of = || inputs(&request, WRAPPER).unwrap();
    let without = of();
    let module = lock.wrapper_dir(WRAPPER).join("stand-in/package");
    std::fs::create_dir_all(&module).unwrap();
    std::fs::write(module.join("a.go"), "package a\n").unwrap();
    let with = of();
    assert_eq!(with.len(), without.len() + 1);
    std::fs::write(module.join("a.go"), "package b\n").unwrap();
    assert_ne!(of(), with);
}

fn true_digest() -> String {
    Lock::find().unwrap().wrapper(WRAPPER).unwrap().digest.clone()
}

#[test]
fn builds_a_static_program_for_the_wanted_architecture() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let built = fetch_thing(&loopback(dir.path(), &true_digest())).unwrap();
    let needs = crate::elf::needs(&built).unwrap();
    assert_eq!(needs.arch, crate::arch::Arch::Amd64);
    assert_eq!(needs.interpreter, None);
    assert!(needs.libraries.is_empty());
}

#[test]
fn a_lock_that_disagrees_with_go_sum_stops() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let found = true_digest();
    let what = format!("go.sum of wrapper {WRAPPER}, {MODULE} v1.9.1");
    assert_eq!(
        fetch_thing(&loopback(dir.path(), "h1:AAAA=")).unwrap_err(),
        format!("verify component thing: {what}: expected h1:AAAA=, found {found}")
    );
}

#[test]
fn a_module_that_disagrees_with_the_lock_stops() {
    if !have_go() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wrong = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let lock = loopback(dir.path(), wrong);
    // go.sum says what the lock says, so that only the module itself can tell.
    let go_sum = lock.wrapper_dir(WRAPPER).join("go.sum");
    let text = std::fs::read_to_string(&go_sum).unwrap();
    let found = true_digest();
    std::fs::write(&go_sum, text.replace(&found, wrong)).unwrap();
    assert_eq!(
        fetch_thing(&lock).unwrap_err(),
        format!("verify component thing: Go module {MODULE} v1.9.1: expected {wrong}, found {found}")
    );
}

#[test]
fn zip_line_is_distinguished_from_the_go_mod_line() {
    let text = "a/b v1.2.3/go.mod h1:M=\na/b v1.2.3 h1:Z=\na/b/c v1.2.3 h1:C=\n";
    assert_eq!(sum_line(text, "a/b", "1.2.3"), Some("h1:Z="));
    assert_eq!(sum_line(text, "a/b", "1.2"), None);
}
