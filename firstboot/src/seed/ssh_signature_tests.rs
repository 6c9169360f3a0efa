// SPDX-License-Identifier: Apache-2.0
//! Signatures by OpenSSH itself (`firstboot/tests/ssh-signature`), the same with every bit and every length changed, and
//! what a person at a USB port may write in their place.

use super::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::path::Path;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("tests/ssh-signature").join(name)).unwrap()
}

fn key(name: &str) -> SshKey {
    SshKey::parse(String::from_utf8(file(&format!("{name}.pub"))).unwrap().trim()).unwrap()
}

/// A key, and the signature of this message by it for this purpose, as ssh-keygen writes both.
pub(crate) fn signed(key: [u8; 32], namespace: &str, message: &[u8]) -> (SshKey, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&key).unwrap();
    let string = |field: &[u8]| [&(field.len() as u32).to_be_bytes(), field].concat();
    let public = [string(b"ssh-ed25519"), string(pair.public_key().as_ref())].concat();
    let (purpose, hash) =
        ([string(namespace.as_bytes()), string(b""), string(b"sha512")].concat(), digest(&SHA512, message));
    let signature = pair.sign(&[MAGIC, &purpose, &string(hash.as_ref())].concat());
    let inner = [string(b"ssh-ed25519"), string(signature.as_ref())].concat();
    let blob = [MAGIC, &VERSION.to_be_bytes(), &string(&public), &purpose, &string(&inner)].concat();
    let key = SshKey::parse(&format!("ssh-ed25519 {} owner", STANDARD.encode(public))).unwrap();
    (key, format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(blob)))
}

#[test]
fn openssh_signs_and_it_is_verified() {
    let message = file("seed.toml");
    let names = ["ed25519", "ecdsa-p256", "ecdsa-p384"];
    let keys = names.map(key);
    for (name, own) in names.iter().zip(&keys) {
        let signature = file(&format!("{name}.sig"));
        assert_eq!(verify(&keys, &message, &signature), Ok(()), "{name}");
        assert_eq!(verify(std::slice::from_ref(own), &message, &signature), Ok(()), "{name}");
        // On Windows, and after an editor.
        let text = String::from_utf8(signature).unwrap();
        for text in [text.replace('\n', "\r\n"), format!("\u{feff}{text}\n\n"), text.trim().to_owned()] {
            assert_eq!(verify(&keys, &message, text.as_bytes()), Ok(()), "{name}: {text:?}");
        }
    }
    assert_eq!(verify(&keys, &message, &file("ed25519-sha256.sig")), Ok(()));
    let (key, signature) = signed([7; 32], NAMESPACE, &message);
    assert_eq!(verify(&[key], &message, signature.as_bytes()), Ok(()));
}

#[test]
fn s03_a_signature_for_another_purpose_by_another_key_or_of_another_seed_proves_nothing() {
    let message = file("seed.toml");
    let keys = ["ed25519", "ecdsa-p256", "ecdsa-p384"].map(key);
    let signature = file("ed25519.sig");
    assert_eq!(verify(&keys, &message, &file("ed25519-for-files.sig")), Err(Unproven::Namespace));
    assert_eq!(verify(&keys[1..], &message, &signature), Err(Unproven::Key));
    assert_eq!(verify(&[], &message, &signature), Err(Unproven::Key));
    for at in 0..message.len() {
        let mut other = message.clone();
        other[at] ^= 1;
        assert_eq!(verify(&keys, &other, &signature), Err(Unproven::Content), "byte {at}");
        assert_eq!(verify(&keys, &message[..at], &signature), Err(Unproven::Content), "{at} bytes");
    }
    // Keys that no seed has, for a seed has none of these kinds: the same algorithms are refused here, too.
    for name in ["ecdsa-p521", "rsa"] {
        let verdict = verify(&[key(name)], &message, &file(&format!("{name}.sig")));
        assert_eq!(verdict, Err(Unproven::Content), "{name}");
    }
}

#[test]
fn s03_a_signature_with_any_bit_or_length_changed_proves_nothing() {
    let message = file("seed.toml");
    for name in ["ed25519", "ecdsa-p256", "ecdsa-p384"] {
        let (keys, good) = ([key(name)], blob(&file(&format!("{name}.sig"))).unwrap());
        let verdict = |blob: &[u8]| {
            let text = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(blob));
            verify(&keys, &message, text.as_bytes())
        };
        assert_eq!(verdict(&good), Ok(()));
        for bit in 0..8 * good.len() {
            let mut other = good.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(verdict(&other).is_err(), "{name}: bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(verdict(&good[..length]), Err(Unproven::Form), "{name}: {length} bytes");
        }
        assert_eq!(verdict(&[&good[..], b"\0"].concat()), Err(Unproven::Form), "{name}");
        // A length of four gigabytes, wherever a length may be.
        for at in 0..good.len() - 4 {
            let mut other = good.clone();
            other[at..at + 4].fill(0xff);
            assert!(verdict(&other).is_err(), "{name}: length at {at}");
        }
    }
}

#[test]
fn s03_what_is_no_signature_is_refused() {
    let message = file("seed.toml");
    let (keys, good) = ([key("ed25519")], String::from_utf8(file("ed25519.sig")).unwrap());
    let verdict = |text: &[u8]| verify(&keys, &message, text);
    for text in ["", BEGIN, END, "-----BEGIN SSH SIGNATURE-----END SSH SIGNATURE-----", "ssh-ed25519 AAAA owner"] {
        assert_eq!(verdict(text.as_bytes()), Err(Unproven::Form), "{text}");
    }
    let pgp = good.replace("SSH SIGNATURE", "PGP SIGNATURE");
    assert_eq!(verdict(pgp.as_bytes()), Err(Unproven::Form));
    assert_eq!(verdict(&[0xff; 300]), Err(Unproven::Form));
    let huge = good.replacen('\n', &"\n".repeat(MAX_SIZE), 1);
    assert_eq!(verdict(huge.as_bytes()), Err(Unproven::Form));
    for length in 0..good.trim_end().len() {
        assert_eq!(verdict(&good.as_bytes()[..length]), Err(Unproven::Form), "{length} bytes");
    }
    // Two of them: only one is asked for.
    assert_eq!(verdict(good.repeat(2).as_bytes()), Err(Unproven::Form));
}

/// A number has one form alone: with a zero before it, cut, or negative it is another signature.
#[test]
fn numbers_of_ecdsa_have_one_form() {
    let message = file("seed.toml");
    let (keys, good) = ([key("ecdsa-p256")], blob(&file("ecdsa-p256.sig")).unwrap());
    let parts = parts(&good).unwrap();
    let numbers: [&[u8]; 2] = fields(parts.signature).unwrap().try_into().unwrap();
    let verdict = |r: &[u8], s: &[u8]| {
        let string = |field: &[u8]| [&(field.len() as u32).to_be_bytes(), field].concat();
        let inner = [string(parts.algorithm), string(&[string(r), string(s)].concat())].concat();
        let head = &good[..good.len() - 4 - parts.algorithm.len() - 8 - parts.signature.len()];
        let text = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode([head, &string(&inner)].concat()));
        verify(&keys, &message, text.as_bytes())
    };
    let [r, s] = numbers;
    assert_eq!(verdict(r, s), Ok(()));
    for (r, s) in
        [(&[&[0], r].concat()[..], s), (r, &[&[0], s].concat()[..]), (&r[1..], s), (b"", s), (r, b"\0"), (s, r)]
    {
        assert_eq!(verdict(r, s), Err(Unproven::Content));
    }
    assert_eq!(verdict(&[1; 60], s), Err(Unproven::Content));
}
