// SPDX-License-Identifier: Apache-2.0
//! Tests of what goes into an image: links followed, libraries found, nothing twice.
#![allow(clippy::unwrap_used)]

use super::*;
use std::os::unix::fs::symlink;

fn closure<'a>(root: &'a Path, tree: &'a mut Tree) -> Closure<'a> {
    Closure { root, arch: Arch::host().unwrap(), tree }
}

#[test]
fn links_on_the_way_to_a_file_come_along() {
    let dir = tempfile::tempdir().unwrap();
    merge_usr(dir.path()).unwrap();
    fs::create_dir_all(dir.path().join("usr/lib/x")).unwrap();
    fs::write(dir.path().join("usr/lib/x/real.so.1"), "text").unwrap();
    symlink("x/../x/real.so.1", dir.path().join("usr/lib/a.so")).unwrap();
    symlink("/lib/a.so", dir.path().join("usr/bin/absolute")).unwrap();
    let mut tree = Tree::new();
    closure(dir.path(), &mut tree).add("/bin/absolute").unwrap();
    let names: Vec<&str> = tree.keys().map(String::as_str).collect();
    assert_eq!(names, ["/bin", "/lib", "/usr/bin/absolute", "/usr/lib/a.so", "/usr/lib/x/real.so.1"]);
    assert_eq!(tree["/lib"], Entry::Link("usr/lib".to_owned()));
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    merge_usr(dir.path()).unwrap();
    symlink("loop", dir.path().join("usr/bin/loop")).unwrap();
    let mut tree = Tree::new();
    let mut closure = closure(dir.path(), &mut tree);
    let error = |r: Result<()>| format!("{:#}", r.unwrap_err());
    assert_eq!(error(closure.add("/bin/loop")), "follow /bin/loop: too many links");
    assert!(error(closure.add("/bin/none")).starts_with("read /bin/none of the unpacked packages: "));
    assert_eq!(error(closure.add_matching("/usr/lib/none*")), "find /usr/lib/none* in the unpacked packages");
}

#[test]
fn a_program_brings_its_dynamic_linker_and_libraries() {
    // The running test program, in a root made of this machine's own libraries.
    let me = fs::read(std::env::current_exe().unwrap()).unwrap();
    let needs = elf::needs(&me).unwrap();
    let dir = tempfile::tempdir().unwrap();
    merge_usr(dir.path()).unwrap();
    fs::write(dir.path().join("usr/bin/program"), &me).unwrap();
    let libraries = dir.path().join("usr/lib").join(Arch::host().unwrap().triplet());
    fs::create_dir_all(&libraries).unwrap();
    let interpreter = needs.interpreter.unwrap();
    let mut tree = Tree::new();
    let error = format!("{:#}", closure(dir.path(), &mut tree).add("/usr/bin/program").unwrap_err());
    assert!(error.starts_with("add the dynamic linker of /usr/bin/program: "), "{error}");

    let inside = fs::canonicalize(dir.path().join(interpreter.trim_start_matches('/')).parent().unwrap()).unwrap();
    fs::copy(&interpreter, inside.join(Path::new(&interpreter).file_name().unwrap())).unwrap();
    for name in &needs.libraries {
        fs::copy(Path::new("/usr/lib").join(Arch::host().unwrap().triplet()).join(name), libraries.join(name)).unwrap();
    }
    let mut tree = Tree::new();
    closure(dir.path(), &mut tree).add("/usr/bin/program").unwrap();
    for name in &needs.libraries {
        assert!(tree.keys().any(|k| k.ends_with(&format!("/{name}"))), "{name} is not in {:?}", tree.keys());
    }
    fs::remove_file(libraries.join("libc.so.6")).unwrap();
    let error = format!("{:#}", closure(dir.path(), &mut Tree::new()).add("/usr/bin/program").unwrap_err());
    assert!(error.starts_with("find libc.so.6, needed by "), "{error}");
}
