// SPDX-License-Identifier: Apache-2.0
//! 802.1Q tags on Ethernet frames: pure functions on bytes, without preamble and checksum, as emulators pass them.
//!
//! IEEE 802.1Q-2022, 9.3 and 9.6: after the two addresses come 0x8100 and two bytes, whose low 12 bits are the
//! VLAN's identifier.

/// Shortest Ethernet header: two addresses and a type.
pub const HEADER: usize = 14;
/// The largest frame that is carried: the emulator hands over nothing larger, segmentation offload included.
pub const LARGEST: usize = 65_536 + HEADER + TAG;
/// Bytes of a tag.
const TAG: usize = 4;
/// Both addresses.
const ADDRESSES: usize = 12;
const TYPE: [u8; 2] = [0x81, 0x00];

/// `frame` with the tag of VLAN `id` (1 to 4094), priority 0; `None` when it is shorter than a header.
pub fn tagged(frame: &[u8], id: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES).filter(|_| frame.len() >= HEADER)?;
    Some([addresses, &TYPE, &(id & 0x0fff).to_be_bytes(), rest].concat())
}

/// `frame` without the tag of VLAN `id`, whatever its priority; `None` when it has no tag, or another VLAN's.
pub fn untagged(frame: &[u8], id: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES).filter(|_| frame.len() >= HEADER + TAG)?;
    let (tag, rest) = rest.split_at(TAG);
    let found = u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff;
    (tag[..2] == TYPE && found == id).then(|| [addresses, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ARP request's head.
    const PLAIN: [u8; 18] = [255, 255, 255, 255, 255, 255, 82, 84, 0, 18, 52, 86, 8, 6, 0, 1, 8, 0];

    #[test]
    fn a_tag_stands_between_addresses_and_type() {
        let with = tagged(&PLAIN, 300).unwrap();
        assert_eq!(with[..12], PLAIN[..12]);
        assert_eq!(with[12..16], [0x81, 0x00, 0x01, 0x2c]);
        assert_eq!(with[16..], PLAIN[12..]);
        assert_eq!(untagged(&with, 300).unwrap(), PLAIN);
    }

    #[test]
    fn priority_does_not_matter() {
        let mut with = tagged(&PLAIN, 7).unwrap();
        with[14] |= 0xe0;
        assert_eq!(untagged(&with, 7).unwrap(), PLAIN);
    }

    #[test]
    fn other_vlans_and_frames_without_a_tag_stay_out() {
        assert_eq!(untagged(&PLAIN, 300), None);
        assert_eq!(untagged(&tagged(&PLAIN, 301).unwrap(), 300), None);
    }

    #[test]
    fn what_is_no_frame_is_dropped() {
        for length in 0..HEADER {
            assert_eq!(tagged(&PLAIN[..length], 1), None);
        }
        let with = tagged(&PLAIN, 1).unwrap();
        for length in 0..HEADER + TAG {
            assert_eq!(untagged(&with[..length], 1), None);
        }
    }
}
