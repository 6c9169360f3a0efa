// SPDX-License-Identifier: Apache-2.0
//! Unpacks one compressed blob and verifies it in the same pass.
//!
//! The digest covers the compressed bytes: there are fewer of them, and hashing is the slowest part on a small
//! processor. The zstd frame also has a checksum of the content.

use crate::bundle::{Blob, MAX_WINDOW_LOG};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::text::hex;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// A reader that hashes what it reads.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

/// Unpacks `from` into `to`; `name` is the name of the blob in errors.
///
/// # Errors
/// An image fault when the digest or the size differs, a host fault when `to` cannot be written.
pub fn unpack(name: &str, from: impl Read, blob: &Blob, size: u64, to: &mut impl Write) -> Result<(), Fault> {
    let mut hashing = Hashing { inner: from, hash: Sha256::new() };
    let copied = copy(&mut hashing, size, to);
    // The digest is checked first: all other errors of a damaged blob are consequences.
    let read = io::copy(&mut hashing, &mut io::sink()).with_context(|| format!("read {name}"));
    read.owned_by(Owner::Host)?;
    let found = hex(&hashing.hash.finalize());
    if found != blob.sha256 {
        let text = format!("verify {name}: expected sha256 {}, found {found}", blob.sha256);
        return Err(Fault::new(Code::BundleDamaged, text));
    }
    match copied {
        Ok(n) if n == size => Ok(()),
        Ok(n) => Err(Fault::new(Code::BundleDamaged, format!("unpack {name}: expected {size} bytes, found {n}"))),
        Err(Side::From(e)) => Err(e).with_context(|| format!("unpack {name}")).coded(Code::BundleDamaged),
        Err(Side::To(e)) => Err(e).with_context(|| format!("write {name}")).owned_by(Owner::Host),
    }
}

enum Side {
    From(io::Error),
    To(io::Error),
}

/// Copies at most one byte more than `size`, so that a blob that unpacks to more cannot fill the disk.
fn copy(from: &mut impl Read, size: u64, to: &mut impl Write) -> Result<u64, Side> {
    let mut decoder = zstd::Decoder::new(from).map_err(Side::From)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(Side::From)?;
    let mut decoder = decoder.take(size + 1);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let n = decoder.read(&mut buffer).map_err(Side::From)?;
        if n == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..n]).map_err(Side::To)?;
        total += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(content: &[u8]) -> (Vec<u8>, Blob) {
        let bytes = zstd::encode_all(content, 3).unwrap();
        let blob = Blob { sha256: hex(&Sha256::digest(&bytes)), size: bytes.len() as u64 };
        (bytes, blob)
    }

    #[test]
    fn intact_blob_unpacks_and_one_flipped_byte_is_an_error() {
        let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        let (mut bytes, blob) = packed(&content);
        let mut out = Vec::new();
        unpack("bundle file bin/x", &bytes[..], &blob, content.len() as u64, &mut out).unwrap();
        assert_eq!(out, content);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let fault = unpack("bundle file bin/x", &bytes[..], &blob, content.len() as u64, &mut Vec::new()).unwrap_err();
        let found = hex(&Sha256::digest(&bytes));
        assert_eq!(fault.code, Code::BundleDamaged);
        assert_eq!(
            fault.to_string(),
            format!("verify bundle file bin/x: expected sha256 {}, found {found}", blob.sha256)
        );
    }

    #[test]
    fn blob_of_another_size_is_rejected() {
        let (bytes, blob) = packed(b"hello");
        let longer = unpack("f", &bytes[..], &blob, 4, &mut Vec::new()).unwrap_err();
        assert_eq!(longer.to_string(), "unpack f: expected 4 bytes, found 5");
        let shorter = unpack("f", &bytes[..], &blob, 6, &mut Vec::new()).unwrap_err();
        assert_eq!(shorter.to_string(), "unpack f: expected 6 bytes, found 5");
    }

    #[test]
    fn full_disk_is_a_host_fault() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::other("no space left"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (bytes, blob) = packed(b"hello");
        let fault = unpack("bundle file bin/x", &bytes[..], &blob, 5, &mut Full).unwrap_err();
        assert_eq!((fault.code, fault.to_string().as_str()), (Code::Host, "write bundle file bin/x: no space left"));
    }
}
