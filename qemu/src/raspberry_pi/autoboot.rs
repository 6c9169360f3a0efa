// SPDX-License-Identifier: Apache-2.0
//! `autoboot.txt`: which partition is started (documentation of Raspberry Pi, "autoboot.txt").

use super::config::sections;

/// The firmware reads one sector.
const MOST: usize = 512;

/// Number of the partition that `autoboot.txt` names; 0 when it names none, as for a damaged file: then the firmware starts
/// the first partition that it can. Nothing sets the flag of `[tryboot]` here.
pub(super) fn partition(bytes: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let lines = sections(&text, &|filter: &str| filter == "all");
    let value =
        |line: &str| line.split_once('=').filter(|(key, _)| key.trim() == "boot_partition")?.1.trim().parse().ok();
    lines.into_iter().filter_map(value).next_back().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_whose_filter_holds_counts() {
        assert_eq!(partition(b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"), 2);
        assert_eq!(partition(b"boot_partition=4"), 4);
        assert_eq!(partition(b"[none]\nboot_partition=2\n"), 0);
        assert_eq!(partition(b"# boot_partition=2\nboot_partition = 3\n"), 3);
    }

    #[test]
    fn a_damaged_file_names_none() {
        for bytes in [&b""[..], b"boot_partition=b", &[0xff; 512]] {
            assert_eq!(partition(bytes), 0);
        }
        // One sector is read.
        assert_eq!(partition(&[&b"#".repeat(511)[..], b"\nboot_partition=2\n"].concat()), 0);
    }
}
