// SPDX-License-Identifier: Apache-2.0
//! `autoboot.txt`: which partition is started (documentation of Raspberry Pi, "autoboot.txt").

use super::config::sections;
use anyhow::{Context, Result, ensure};

/// The firmware reads one sector.
const MOST: usize = 512;

/// Number of the partition that `autoboot.txt` names, with and without `tryboot`.
///
/// # Errors
/// When the file is longer than the firmware reads, or names no partition.
pub(super) fn partition(bytes: &[u8], tryboot: bool) -> Result<u32> {
    ensure!(bytes.len() <= MOST, "it has {} bytes, and the firmware reads {MOST}", bytes.len());
    let text = String::from_utf8_lossy(bytes);
    let holds = |filter: &str| filter == "all" || tryboot && filter == "tryboot";
    let mut number = 1;
    for line in sections(&text, &holds) {
        let Some((key, value)) = line.split_once('=') else { continue };
        if key.trim() == "boot_partition" {
            let value = value.trim();
            number = value.parse().with_context(|| format!("boot_partition={value} is no number"))?;
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const BOTH: &[u8] = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";

    #[test]
    fn the_last_line_whose_filter_holds_counts() {
        assert_eq!((partition(BOTH, false).unwrap(), partition(BOTH, true).unwrap()), (2, 3));
        assert_eq!(partition(b"boot_partition=4", false).unwrap(), 4);
        assert_eq!(partition(b"", true).unwrap(), 1);
        assert_eq!(partition(b"[none]\nboot_partition=2\n", false).unwrap(), 1);
    }

    #[test]
    fn what_the_firmware_cannot_read_is_an_error() {
        let long = [BOTH, &b"#".repeat(512)].concat();
        let error = partition(&long, false).unwrap_err().to_string();
        assert_eq!(error, format!("it has {} bytes, and the firmware reads 512", long.len()));
        assert_eq!(partition(b"boot_partition=b", false).unwrap_err().to_string(), "boot_partition=b is no number");
    }
}
