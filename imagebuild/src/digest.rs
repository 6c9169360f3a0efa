// SPDX-License-Identifier: Apache-2.0
//! Digests: cache keys and the identifiers derived from them.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// Key of a cache entry: 16 hex digits over the parts, each with its length.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

/// An identifier (RFC 9562, version 8) that is the same for the same `key` and `purpose`.
pub fn uuid(key: &str, purpose: &str) -> uuid::Uuid {
    let hash = Sha256::digest(format!("{purpose}\n{key}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Hex SHA-256 of a file.
pub fn file(path: &Path) -> Result<String> {
    let mut source = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = source.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if n == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_where_parts_end() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_eq!(key(&["ab", "c"]).len(), 16);
        assert_eq!(uuid("k", "root"), uuid("k", "root"));
        assert_ne!(uuid("k", "root"), uuid("k", "esp"));
    }
}
