// SPDX-License-Identifier: Apache-2.0
//! `T.sbom.json`: everything that an image consists of, for scanners of vulnerabilities (CycloneDX 1.6, ECMA-424).
//!
//! It is complete rather than exact. Of a Go program it has all modules that the go.mod of its wrapper names, of which the
//! linker may have left some out; of a container image with Debian's programs, the packages that these were taken from and
//! what those need. Crates are those that are compiled into our programs: without build scripts, derive macros and tests.

mod crates;
mod document;
mod modules;

use super::Parts;
use super::manifest::Packages;
use crate::bundle::Bundle;
use crate::debian::{Debian, Package, SUITE};
use crate::lock::{ImageSource, Lock, Source};
use crate::target::Bootloader;
use crate::{arch::Arch, digest};
use anyhow::{Context, Result};
use document::{Component, Document, Kind};
use firstboot::image::ImageInfo;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Writes the bill of materials of an image.
///
/// # Errors
/// When the lock, a go.mod or the list of crates cannot be read.
pub fn write(parts: &Parts, packages: &Packages, info: &ImageInfo, to: &Path) -> Result<()> {
    let mut all = Materials::default();
    let debian: Vec<String> = packages.rootfs.packages.iter().map(|p| all.add(debian(p))).collect();
    all.needs("image", debian);
    if parts.firstboot.is_some() {
        own_programs(parts.target.arch, parts.target.bootloader, &mut all)?;
    }
    if let Some(bundle) = &parts.bundle {
        of_bundle(bundle, parts.target.arch, &mut all)?;
    }
    let document = all.document(info);
    let text = serde_json::to_string_pretty(&document).context("write the bill of materials")? + "\n";
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

/// Components, and which of them needs which, by their references.
#[derive(Default)]
struct Materials {
    components: BTreeMap<String, Component>,
    needs: BTreeMap<String, Vec<String>>,
}

impl Materials {
    /// Adds a component, once; returns its reference.
    fn add(&mut self, component: Component) -> String {
        let reference = component.reference.clone();
        self.components.entry(reference.clone()).or_insert(component);
        reference
    }

    /// Notes that `of` needs these.
    fn needs(&mut self, of: &str, these: Vec<String>) {
        self.needs.entry(of.to_owned()).or_default().extend(these);
    }

    fn document(self, info: &ImageInfo) -> Document {
        let mut image = Component::new(Kind::OperatingSystem, &info.target, &info.build_id, None);
        "image".clone_into(&mut image.reference);
        let serial = digest::uuid(&info.build_id, "bill of materials");
        Document::new(serial, info.build_time, image, self.components.into_values().collect(), self.needs)
    }
}

fn debian(package: &Package) -> Component {
    let version = document::encoded(&package.version);
    let purl =
        format!("pkg:deb/debian/{}@{version}?arch={}&distro={SUITE}", document::encoded(&package.name), package.arch);
    Component::new(Kind::Library, &package.name, &package.version, Some(purl))
}

/// `firstboot`, the initrd's program and `verify.efi`, with their crates.
fn own_programs(arch: Arch, bootloader: Bootloader, all: &mut Materials) -> Result<()> {
    let mut programs = vec![("firstboot", arch.musl()), ("initrd", arch.musl())];
    if bootloader == Bootloader::SystemdBoot {
        programs.push(("loader", arch.uefi()));
    }
    let checksums = crates::checksums()?;
    for (package, triple) in programs {
        let (own, others) = crates::of(package, triple, &checksums)?;
        let others = others.into_iter().map(|component| all.add(component)).collect();
        let own = all.add(own);
        all.needs(&own, others);
        all.needs("image", vec![own]);
    }
    Ok(())
}

/// The bundle's programs and container images.
fn of_bundle(bundle: &Bundle, arch: Arch, all: &mut Materials) -> Result<()> {
    let lock = Lock::find()?;
    let minor = lock.minor(Some(&bundle.manifest.kubernetes))?;
    for file in &bundle.manifest.files {
        let mut program = Component::new(Kind::Application, &file.component, &file.version, None);
        program.reference = format!("bundle/{}", file.path);
        program.hash(&file.sha256);
        let program = all.add(program);
        of_component(&lock, &minor, &file.component, arch, &program, all)?;
        all.needs("image", vec![program]);
    }
    for image in &bundle.manifest.images {
        let purl = document::oci(&image.name, &image.sha256);
        let mut container = Component::new(Kind::Container, &image.name, &image.version, Some(purl));
        container.hash(&image.sha256);
        let container = all.add(container);
        let locked = lock.images_for(&minor).find(|locked| locked.reference == image.name);
        if let Some(ImageSource::Build { files, debian: names, .. }) = locked.map(|locked| &locked.from) {
            for file in files.values() {
                of_component(&lock, &minor, &file.component, arch, &container, all)?;
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if !names.is_empty() {
                let packages = Debian::open(arch)?.resolve(&names, true)?;
                let packages = packages.iter().map(|package| all.add(debian(package))).collect();
                all.needs(&container, packages);
            }
        }
        all.needs("image", vec![container]);
    }
    Ok(())
}

/// What a component of the lock is made of: `of` needs it.
fn of_component(lock: &Lock, minor: &str, name: &str, arch: Arch, of: &str, all: &mut Materials) -> Result<()> {
    let component = lock.component(name, minor)?;
    let wrapper = match &component.source {
        Source::GoModule { wrapper, .. } | Source::GoDirectory { wrapper: Some(wrapper), .. } => wrapper,
        // One file of a module: nothing of what the module needs is in it.
        Source::CFile { wrapper, .. } => {
            let module = lock.wrapper(wrapper)?;
            let module = all.add(modules::component(&module.module, &format!("v{}", module.version)));
            all.needs(of, vec![module]);
            return Ok(());
        }
        _ => return Ok(()),
    };
    let path = lock.wrapper_dir(wrapper).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let found = modules::required(&text).with_context(|| format!("read {}", path.display()))?;
    let found = found.iter().map(|(module, version)| all.add(modules::component(module, version))).collect();
    all.needs(of, found);
    // Where C needs no library, there is no package to ask for.
    if let Some(cgo) = lock.wrapper(wrapper)?.cgo.as_ref().filter(|cgo| !cgo.debian.is_empty()) {
        let names: Vec<&str> = cgo.debian.iter().map(String::as_str).collect();
        let linked = Debian::open(arch)?.resolve(&names, false)?;
        let linked = linked.iter().filter(|p| names.contains(&p.name.as_str())).map(|p| all.add(debian(p))).collect();
        all.needs(of, linked);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_program_needs_the_modules_of_its_wrapper() {
        let lock = Lock::find().unwrap();
        let minor = lock.minor(None).unwrap();
        let version = &lock.component("kubelet", &minor).unwrap().version;
        let mut all = Materials::default();
        for name in ["kubelet", "pause", "demo", "flanneld"] {
            of_component(&lock, &minor, name, Arch::Amd64, name, &mut all).unwrap();
        }
        let own = format!("pkg:golang/k8s.io/kubernetes@v{version}");
        // One C file of the module; and a program that needs nothing but Go's own library.
        assert_eq!((&all.needs["pause"], all.needs.get("demo")), (&vec![own.clone()], None));
        let kubelet = &all.needs["kubelet"];
        assert!(kubelet.contains(&own) && kubelet.iter().any(|m| m.starts_with("pkg:golang/k8s.io/api@v0.")));
        assert!(kubelet.iter().all(|reference| all.components.contains_key(reference)));
        // Replaced by a directory of the wrapper.
        let tencent =
            |m: &String| m.starts_with("pkg:golang/github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/vpc@");
        assert!(!all.needs["flanneld"].iter().any(tencent));
    }

    #[test]
    fn packages_have_the_url_that_scanners_of_debian_know() {
        let package = Package { name: "libstdc++6".into(), version: "1:14.2.0-19".into(), arch: "arm64".into() };
        assert_eq!(debian(&package).reference, "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19?arch=arm64&distro=trixie");
    }
}
