// SPDX-License-Identifier: Apache-2.0
//! `ssh_signature::verify` accepts what this key has signed for this purpose, and nothing else: the signature is made here,
//! byte by byte after PROTOCOL.sshsig, and then broken.

use base64ct::{Base64, Encoding};
use firstboot::seed::SshKey;
use firstboot::seed::ssh_signature::{MAX_SIZE, NAMESPACE, signer, verify};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest, Sha256, Sha512};

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

/// The blob of a key, and the key as a seed has it.
fn public(pair: &Ed25519KeyPair) -> (Vec<u8>, SshKey) {
    let blob = [string(b"ssh-ed25519"), string(pair.public_key().as_ref())].concat();
    let key = SshKey::parse(&format!("ssh-ed25519 {}", Base64::encode_string(&blob))).expect("a key");
    (blob, key)
}

fn armor(blob: &[u8], width: usize) -> String {
    let text = Base64::encode_string(blob);
    let lines: Vec<&str> =
        text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

/// First byte: 255, the rest is the text of a signature file; otherwise its bits choose hash, purpose, key and what
/// follows the reserved field. Second byte: length of what is signed. Then that, and pairs of a place in the signature
/// and bits to change there; the last odd byte is where it is cut.
pub fn run(input: &[u8]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let (blob, key) = public(&pair);
    let keys = std::slice::from_ref(&key);
    let [mode, length, rest @ ..] = input else { return };
    if *mode == 255 {
        // Only its owner could make one, and it is not in this program's reach.
        assert!(verify(keys, b"message", rest).is_err(), "a signature out of nothing");
        let _ = signer(rest);
        return;
    }
    let (message, changes) = rest.split_at(usize::from(*length).min(rest.len()));
    let bit = |n: u8| mode & (1 << n) != 0;
    let (hash, digest) = match bit(0) {
        true => ("sha256", Sha256::digest(message).to_vec()),
        false => ("sha512", Sha512::digest(message).to_vec()),
    };
    let purpose = if bit(1) { "file" } else { NAMESPACE };
    let reserved: &[u8] = if bit(2) { message } else { b"" };
    let head = [string(purpose.as_bytes()), string(reserved), string(hash.as_bytes())].concat();
    let by = if bit(3) { Ed25519KeyPair::from_seed_unchecked(&[8; 32]).expect("a key") } else { pair };
    let signature = by.sign(&[&b"SSHSIG"[..], &head, &string(&digest)].concat());
    let inner = [string(b"ssh-ed25519"), string(signature.as_ref())].concat();
    let good = [&b"SSHSIG"[..], &1u32.to_be_bytes(), &string(&blob), &head, &string(&inner)].concat();
    let mut changed = good.clone();
    let mut pairs = changes.chunks_exact(2);
    for pair in &mut pairs {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] ^= pair[1];
    }
    if let [cut] = pairs.remainder() {
        changed.truncate(changed.len() - usize::from(*cut).min(changed.len()));
    }
    let text = armor(&changed, 1 + usize::from(*length));
    let right = changed == good && !bit(1) && !bit(3) && text.len() <= MAX_SIZE;
    assert_eq!(verify(keys, message, text.as_bytes()).is_ok(), right, "{text}");
    if right {
        assert_eq!(signer(text.as_bytes()), Some(key.clone()));
        let other = [message, b"!"].concat();
        assert!(verify(keys, &other, text.as_bytes()).is_err(), "another seed is accepted");
        assert!(verify(&[], message, text.as_bytes()).is_err(), "no key is needed");
    }
}
