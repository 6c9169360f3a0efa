// SPDX-License-Identifier: Apache-2.0
//! Tests of writing one card: files in the place of devices.

use super::*;
use crate::exit;

/// A card of this size, full of what another image left.
fn used(dir: &Path, name: &str, size: usize) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, vec![0xee; size]).unwrap();
    path
}

/// An image in pieces: text, a hole, text, and an end that is no whole sector.
fn chunks() -> (Vec<u8>, Vec<Arc<Chunk>>) {
    let mut image = vec![0; 3 * CHUNK + 1000];
    image[..CHUNK].fill(1);
    image[2 * CHUNK + 77..].fill(3);
    let chunk = |(index, bytes): (usize, &[u8])| {
        let mut memory = Aligned::zeros(bytes.len());
        memory.get_mut().copy_from_slice(bytes);
        Arc::new(Chunk { bytes: memory, sum: Sum::of((index * CHUNK) as u64, bytes) })
    };
    let chunks = image.chunks(CHUNK).enumerate().map(chunk).collect();
    (image, chunks)
}

#[test]
fn what_is_read_back_is_the_image_and_the_table_comes_last() {
    let dir = tempfile::tempdir().unwrap();
    let (image, chunks) = chunks();
    for size in [4 * CHUNK, image.len()] {
        let path = used(dir.path(), "card", size);
        let mut card = Card::open(&path).unwrap();
        card.clear().unwrap();
        chunks.iter().for_each(|chunk| card.write(chunk).unwrap());
        card.flush().unwrap();
        let mut memory = memory();
        for chunk in &chunks[1..] {
            card.verify(&chunk.sum, &mut memory).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(is_zero(&bytes[..1 << 20]), "there is no partition table yet");
        assert_eq!(exit::code(&card.verify(&chunks[0].sum, &mut memory).unwrap_err()), exit::VERIFICATION);
        card.finish().unwrap();
        card.verify(&chunks[0].sum, &mut memory).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..image.len()] == image[..], "{size}: also where the image has zeros");
        assert!(bytes.len() == size && is_zero(&bytes[image.len().max(size - (1 << 20))..]));
    }
}

#[test]
fn one_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (_, chunks) = chunks();
    let path = used(dir.path(), "card", 4 * CHUNK);
    let mut card = Card::open(&path).unwrap();
    chunks.iter().for_each(|chunk| card.write(chunk).unwrap());
    card.flush().unwrap();
    let other = File::options().read(true).write(true).open(&path).unwrap();
    // In content, in a hole, and in the last bytes.
    for (piece, at) in [(2, 2 * CHUNK + 5000), (1, CHUNK + 9), (3, 3 * CHUNK + 999)] {
        card.verify(&chunks[piece].sum, &mut memory()).unwrap();
        let mut byte = [0];
        other.read_exact_at(&mut byte, at as u64).unwrap();
        other.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
        other.sync_all().unwrap();
        let error = card.verify(&chunks[piece].sum, &mut memory()).unwrap_err();
        assert_eq!(exit::code(&error), exit::VERIFICATION);
        let sum = chunks[piece].sum;
        assert_eq!(
            error.to_string(),
            format!(
                "verify {}: the {} bytes from byte {} are not what was written: the card or its reader is damaged",
                path.display(),
                sum.len,
                sum.offset
            )
        );
    }
}

#[test]
fn an_image_that_is_longer_than_the_card_ends_with_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let (_, chunks) = chunks();
    let path = used(dir.path(), "card", 3 * CHUNK);
    let mut card = Card::open(&path).unwrap();
    card.write(&chunks[2]).unwrap();
    let error = card.write(&chunks[3]).unwrap_err().to_string();
    assert_eq!(error, format!("write {}: the image is larger than its 12582912 bytes", path.display()));
}
