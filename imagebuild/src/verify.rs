// SPDX-License-Identifier: Apache-2.0
//! SHA-256 in hex, and the one error for a digest that does not match.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

/// Hex SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hex SHA-256 of a file's content, read in pieces.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).with_context(|| format!("read {}", path.display()))? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Stops when what was found is not what the lock says. `what` is the thing that was digested.
pub fn expect(component: &str, what: &str, expected: &str, found: &str) -> Result<()> {
    if expected != found {
        bail!("verify component {component}: {what}: expected {expected}, found {found}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn digests_bytes_and_files_alike() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), known);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "abc").unwrap();
        assert_eq!(sha256_file(&dir.path().join("f")).unwrap(), known);
    }

    #[test]
    fn a_mismatch_is_one_line_with_component_expected_and_found() {
        expect("x", "file f", "a", "a").unwrap();
        let e = expect("kubelet", "file f", "aa", "bb").unwrap_err();
        assert_eq!(e.to_string(), "verify component kubelet: file f: expected aa, found bb");
    }
}
