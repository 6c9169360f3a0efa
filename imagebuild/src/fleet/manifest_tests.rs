// SPDX-License-Identifier: Apache-2.0
//! Tests of manifests.

use super::*;
use crate::disk::{Ids, testing};
use crate::target::Target;

fn fleet(dir: &Path, rows: usize) -> Fleet {
    let image = dir.join("disk.img");
    testing::fats_only(&Target::load("generic-amd64").unwrap(), &Ids::new("t"), &image).unwrap();
    let (csv, base) = (dir.join("devices.csv"), dir.join("base.toml"));
    let rows: String = (0..rows).map(|n| format!("shop-{n},{n}ab,Main St {n}\n")).collect();
    std::fs::write(&csv, format!("node.name,serial,place\n{rows}")).unwrap();
    let pin = "0".repeat(64);
    let cluster =
        format!("apiserver = \"a:1\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = [\"sha256:{pin}\"]");
    std::fs::write(&base, format!("version = 1\n[cluster]\n{cluster}\n")).unwrap();
    Fleet::new(&Source { csv, image, base: Some(base), device: vec!["pi5-64bit".into()] }).unwrap()
}

#[test]
fn an_entry_has_what_imagers_schema_requires() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path(), 2);
    let sum = fleet.template.of(&fleet.devices[0]).sha256().unwrap();
    let manifest = fleet.manifest("http://host/p/", &|index| (index == 0).then(|| sum.clone()));
    let (first, second) = (&manifest["os_list"][0], &manifest["os_list"][1]);
    let len = fleet.template.len;
    assert_eq!(
        *first,
        json!({
            "name": "shop-0", "description": "Main St 0, serial 0ab", "icon": "", "url": "http://host/p/images/shop-0.img",
            "extract_size": len, "extract_sha256": sum, "image_download_size": len, "image_download_sha256": sum,
            "release_date": fleet.date, "devices": ["pi5-64bit"], "init_format": "none",
        })
    );
    assert_eq!((&second["extract_sha256"], second.get("image_download_sha256")), (&json!(""), None));
    assert!(!manifest.to_string().contains("0123456789abcdef"), "no token");
    let date = fleet.date.split('-').map(str::len).collect::<Vec<_>>();
    assert_eq!(date, [4, 2, 2]);
}

#[test]
fn digests_are_those_of_the_images_and_differ() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = fleet(dir.path(), 3);
    let sums = Mutex::new(vec![String::new(); 3]);
    fleet.digests(&|index, sum| sums.lock().unwrap()[index] = sum).unwrap();
    let sums = sums.into_inner().unwrap();
    for (device, sum) in fleet.devices.iter().zip(&sums) {
        assert_eq!(fleet.template.of(device).sha256().unwrap(), *sum);
    }
    assert!(sums[0] != sums[1] && sums[1] != sums[2]);
}

#[test]
fn addresses_are_plain_ascii() {
    assert_eq!(encoded("café-1_a.b"), "caf%C3%A9-1_a.b");
}
