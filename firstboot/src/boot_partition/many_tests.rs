// SPDX-License-Identifier: Apache-2.0
//! Which seed is whose, and what of the directory can be destroyed at once.

use super::*;
use crate::boot_partition::formatted_for_tests;

fn ids(serial: Option<&str>, macs: &[&str]) -> DeviceIds {
    DeviceIds { serial: serial.map(str::to_owned), macs: macs.iter().map(|mac| (*mac).to_owned()).collect() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_seed_is_chosen_by_serial_number_and_then_by_mac_address() {
    let device = ids(Some("pf-3x-7"), &["dca632010203", "dca632010204"]);
    let choose = |names: &[&str]| device.choose(&owned(names)).unwrap().map(str::to_owned);
    assert_eq!(choose(&[]), None);
    assert_eq!(choose(&["pf-3x-8.toml", "dca632010205.toml"]), None);
    assert_eq!(choose(&["dca632010203.toml", "PF 3X_7.TOML"]).as_deref(), Some("PF 3X_7.TOML"));
    assert_eq!(choose(&["DC-A6-32-01-02-04.toml"]).as_deref(), Some("DC-A6-32-01-02-04.toml"));
    assert_eq!(
        choose(&["dca632010204.toml", "dc-a6-32-01-02-03.toml.txt"]).as_deref(),
        Some("dc-a6-32-01-02-03.toml.txt")
    );
    // What programs leave beside it, and what is no seed.
    for name in ["._pf-3x-7.toml", "~$pf-3x-7.toml", "pf-3x-7.toml~", "pf-3x-7.toml.sig", "pf-3x-7", "#pf-3x-7.toml#"] {
        assert_eq!(choose(&[name]), None, "{name}");
    }
    let error = device.choose(&owned(&["pf3x7.toml", "PF-3X-7.toml"])).unwrap_err().to_string();
    assert_eq!(
        error,
        "choose a seed in seeds: pf3x7.toml and PF-3X-7.toml are both for this device; remove one of them"
    );
    // Nothing to be known by: no seed, not any.
    assert_eq!(ids(None, &[]).choose(&owned(&["a.toml", ".toml"])).unwrap(), None);
    assert_eq!(device.to_string(), "serial number pf-3x-7, MAC addresses dc:a6:32:01:02:03 dc:a6:32:01:02:04");
    assert_eq!(ids(None, &["dca632010203"]).to_string(), "no serial number, MAC address dc:a6:32:01:02:03");
    assert_eq!(ids(None, &[]).to_string(), "no serial number, no MAC address");
    assert_eq!(
        [device.path(), ids(None, &["dca632010203"]).path(), ids(None, &[]).path()],
        ["seeds/pf-3x-7.toml", "seeds/dca632010203.toml", "seed.toml"]
    );
}

#[test]
fn the_secrets_of_seeds_are_found_valid_or_not() {
    let digests = |secrets: &[&str]| secrets.iter().map(|s| SecretDigest::of_secret(s)).collect::<BTreeSet<_>>();
    for (text, secrets) in [
        (
            "token = \"abcdef.0123456789abcdef\"\n# aaaaaa.bbbbbbbbbbbbbbbb",
            &["0123456789abcdef", "bbbbbbbbbbbbbbbb"][..],
        ),
        ("kubeadm join 10.0.0.1:6443 --token=abcdef.0123456789abcdef --x", &["0123456789abcdef"]),
        ("token = \"abcdef.****************\" 10.0.0.1 abcdef.0123456789ABCDEF", &[]),
    ] {
        assert_eq!(secret_digests(text.as_bytes()), digests(secrets), "{text}");
    }
    let utf16: Vec<u8> = "\u{feff}t = abcdef.0123456789abcdef".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(secret_digests(&utf16), digests(&["0123456789abcdef"]));
}

#[test]
fn the_directory_is_read_written_and_destroyed_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let boot = formatted_for_tests(&dir.path().join("boot.img"), 0, 16 << 20).unwrap();
    let me = ids(Some("me"), &[]);
    assert_eq!(boot.seed_for(&me).unwrap(), SeedFound::None);
    assert!(!boot.has_seeds().unwrap());
    let text = |n: usize| format!("the seed of {n} {}", "x".repeat(n * 300));
    let texts: Vec<String> = (0..9).map(text).collect();
    let named = |n: usize| if n == 4 { "Me.toml".to_owned() } else { format!("serial-number-{n}.toml") };
    boot.write_seeds(&texts.iter().enumerate().map(|(n, text)| (named(n), text.as_bytes())).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(
        boot.seed_for(&me).unwrap(),
        SeedFound::Own("seeds/Me.toml".into(), texts[4].clone().into_bytes().into())
    );
    assert_eq!(boot.seed_for(&ids(Some("you"), &[])).unwrap(), SeedFound::Others(9));
    // A person's seed goes before.
    boot.write("seed.toml", b"mine").unwrap();
    assert_eq!(boot.seed_for(&me).unwrap(), SeedFound::Own("seed.toml".into(), b"mine".to_vec().into()));
    boot.remove("seed.toml").unwrap();
    boot.write("seeds/._Me.toml", b"the seed of a Mac").unwrap();
    let mut seen = Vec::new();
    boot.each_seed(&mut |path, bytes| seen.push((path.to_owned(), bytes.len()))).unwrap();
    assert_eq!((seen.len(), &seen[4]), (10, &("seeds/Me.toml".to_owned(), texts[4].len())));
    // All but one, then that one as well.
    boot.zero_seeds(Some("SEEDS/me.toml")).unwrap();
    assert_eq!(boot.files_with("the seed of").unwrap(), ["seeds/Me.toml"]);
    boot.remove_seeds(Some("seeds/Me.toml")).unwrap();
    assert_eq!(boot.list_in("seeds").unwrap().unwrap(), ["Me.toml"]);
    assert_eq!(boot.scan("the seed of").unwrap().len(), 1);
    boot.zero_seeds(None).unwrap();
    boot.remove_seeds(None).unwrap();
    assert_eq!((boot.list().unwrap(), boot.scan("the seed of").unwrap()), (vec![], vec![]));
    boot.remove_seeds(None).unwrap();
    // A file of that name is a person's.
    boot.write("seeds", b"a list").unwrap();
    assert_eq!(boot.seed_for(&me).unwrap(), SeedFound::None);
    boot.zero_seeds(None).unwrap();
    assert_eq!(boot.read("seeds").unwrap().as_deref(), Some(&b"a list"[..]));
}

/// More than are created and removed at once, with the longest names.
#[test]
fn hundreds_of_seeds_are_read_and_destroyed() {
    const MANY: usize = 2 * AT_ONCE + 10;
    let dir = tempfile::tempdir().unwrap();
    let boot = formatted_for_tests(&dir.path().join("boot.img"), 0, 16 << 20).unwrap();
    let seed = |n: usize| (format!("{n:058}.toml"), &b"token = \"abcdef.0123456789abcdef\"\n"[..]);
    boot.write_seeds(&(0..MANY).map(seed).collect::<Vec<_>>()).unwrap();
    let last = ids(Some(&format!("{:058}", MANY - 1)), &[]);
    assert!(matches!(boot.seed_for(&last).unwrap(), SeedFound::Own(..)));
    assert_eq!(boot.seed_for(&ids(Some("x"), &[])).unwrap(), SeedFound::Others(MANY));
    boot.zero_seeds(None).unwrap();
    boot.remove_seeds(None).unwrap();
    assert_eq!((boot.list().unwrap(), boot.scan("abcdef.0123456789abcdef").unwrap()), (vec![], vec![]));
}
