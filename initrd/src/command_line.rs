// SPDX-License-Identifier: Apache-2.0
//! What the kernel's command line says to the initrd: which root, how long to wait for it, how large a slot is.
//!
//! The command line is part of the unified kernel image, so it is as trustworthy as the kernel.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long the root may take to appear, when `firstboot.rootwait=` is absent.
const WAIT: Duration = Duration::from_secs(60);
/// Slots of more than this are a slip of the pen, bytes: 1 TiB.
const MAX_SLOT: u64 = 1 << 40;

/// One of the two places of a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The slot that an image brings.
    A,
    /// The slot that is made at first boot.
    B,
}

impl Slot {
    /// Name of its partition: `root-a` or `root-b`.
    pub fn label(self) -> &'static str {
        match self {
            Slot::A => "root-a",
            Slot::B => "root-b",
        }
    }
}

/// The root file system that this kernel belongs to.
#[derive(Clone, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of the top block of its dm-verity tree.
    pub hash: [u8; 32],
    /// Blocks of 4096 bytes before the superblock of dm-verity.
    pub blocks: u64,
    /// The slot that this kernel was started from.
    pub slot: Slot,
}

impl Root {
    /// The root hash in lower case.
    pub fn hex(&self) -> String {
        self.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{:?}", self.hex(), self.blocks, self.slot)
    }
}

/// The words that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// `firstboot.root=HASH:BLOCKS:SLOT`
    pub root: Root,
    /// `firstboot.slot-mib=N`, in bytes. Absent: the disk's slots stay as they are.
    pub slot: Option<u64>,
    /// `firstboot.rootwait=SECONDS`
    pub wait: Duration,
    /// `init=PATH`
    pub init: String,
}

impl CommandLine {
    /// Reads the text of `/proc/cmdline`, or of the section `.cmdline` with its padding. The last of two equal words
    /// counts, as for the kernel.
    ///
    /// # Errors
    /// When the root is missing, or a word of ours cannot be read: the error names the word.
    pub fn parse(text: &str) -> Result<CommandLine> {
        let (mut root, mut slot, mut wait, mut init) = (None, None, WAIT, "/sbin/init".to_owned());
        for word in words(text) {
            let Some((name, value)) = word.split_once('=') else { continue };
            let read = || format!("read {word} on the kernel command line");
            match name {
                "firstboot.root" => root = Some(parse_root(value).with_context(read)?),
                "firstboot.slot-mib" => slot = Some(parse_slot(value).with_context(read)?),
                "firstboot.rootwait" => wait = Duration::from_secs(value.parse::<u32>().with_context(read)?.into()),
                "init" => init = value.to_owned(),
                _ => {}
            }
        }
        let root = root.context("find firstboot.root=HASH:BLOCKS:SLOT on the kernel command line")?;
        Ok(CommandLine { root, slot, wait, init })
    }
}

/// The words up to `--`: blanks separate them, except between double quotes, which are left out.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = text.trim_matches(['\0', ' ', '\n', '\t']);
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\n', '\t', '\0']);
        let mut quoted = false;
        let blank = |c: char| {
            quoted ^= c == '"';
            !quoted && [' ', '\n', '\t', '\0'].contains(&c)
        };
        let end = rest.find(blank).unwrap_or(rest.len());
        let word = rest[..end].replace('"', "");
        rest = &rest[end..];
        (!word.is_empty() && word != "--").then_some(word)
    })
}

/// What the command line sets for a module that is not built in: `usbcore.quirks=…` → `quirks=…`, words joined by blanks.
pub(crate) fn module_parameters(text: &str, module: &str) -> String {
    let own = |word: String| {
        let (name, rest) = word.split_once('.')?;
        (name.replace('-', "_") == module).then(|| rest.to_owned())
    };
    words(text).filter_map(own).collect::<Vec<_>>().join(" ")
}

fn parse_root(value: &str) -> Result<Root> {
    let mut fields = value.split(':');
    let (Some(hash), Some(blocks), Some(slot), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        anyhow::bail!("it is not HASH:BLOCKS:SLOT");
    };
    let blocks: u64 = blocks.parse().ok().filter(|n| (1..1 << 32).contains(n)).context("BLOCKS is not a number")?;
    let slot = match slot {
        "a" | "A" => Slot::A,
        "b" | "B" => Slot::B,
        _ => anyhow::bail!("SLOT is neither A nor B"),
    };
    Ok(Root { hash: parse_hash(hash).context("HASH is not 64 hexadecimal digits")?, blocks, slot })
}

/// 64 hexadecimal digits, nothing else.
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, place) in hash.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn parse_slot(value: &str) -> Result<u64> {
    let mib: u64 = value.parse().context("it is not a number")?;
    ensure!(mib > 0 && mib <= MAX_SLOT >> 20, "it is not between 1 and {}", MAX_SLOT >> 20);
    Ok(mib << 20)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    #[test]
    fn reads_what_an_image_has() {
        let text = format!(
            "quiet firstboot.root={HASH}:54321:B firstboot.slot-mib=768 firstboot.rootwait=90 console=ttyS0\0\0  \0"
        );
        let line = CommandLine::parse(&text).unwrap();
        assert_eq!(line.root.hex(), HASH.to_lowercase());
        assert_eq!((line.root.blocks, line.root.slot), (54321, Slot::B));
        assert_eq!(
            (line.slot, line.wait, line.init.as_str()),
            (Some(768 << 20), Duration::from_secs(90), "/sbin/init")
        );
    }

    #[test]
    fn what_may_be_absent_has_a_default() {
        let line = CommandLine::parse(&format!("firstboot.root={HASH}:1:a init=/bin/sh\n")).unwrap();
        assert_eq!((line.slot, line.wait, line.init.as_str()), (None, WAIT, "/bin/sh"));
    }

    #[test]
    fn the_last_word_counts_and_words_for_init_do_not() {
        let text = format!("firstboot.root={HASH}:1:a firstboot.root={HASH}:2:b -- firstboot.root={HASH}:3:a");
        assert_eq!(CommandLine::parse(&text).unwrap().root.blocks, 2);
        let quoted = format!("dyndbg=\"a firstboot.root=x b\" firstboot.root={HASH}:7:a");
        assert_eq!(CommandLine::parse(&quoted).unwrap().root.blocks, 7);
    }

    #[test]
    fn errors_name_the_word() {
        let error = |text: &str| format!("{:#}", CommandLine::parse(text).unwrap_err());
        assert_eq!(error("quiet"), "find firstboot.root=HASH:BLOCKS:SLOT on the kernel command line");
        for (value, end) in [
            ("", "it is not HASH:BLOCKS:SLOT"),
            ("x:1", "it is not HASH:BLOCKS:SLOT"),
            (&format!("{HASH}:1:a:b"), "it is not HASH:BLOCKS:SLOT"),
            (&format!("{HASH}:0:a"), "BLOCKS is not a number"),
            (&format!("{HASH}:-1:a"), "BLOCKS is not a number"),
            (&format!("{HASH}:99999999999999999999:a"), "BLOCKS is not a number"),
            (&format!("{HASH}:1:c"), "SLOT is neither A nor B"),
            (&format!("{}:1:a", &HASH[1..]), "HASH is not 64 hexadecimal digits"),
            (&format!("+{}:1:a", &HASH[1..]), "HASH is not 64 hexadecimal digits"),
            (&format!("{}é:1:a", &HASH[2..]), "HASH is not 64 hexadecimal digits"),
        ] {
            let word = format!("firstboot.root={value}");
            assert_eq!(error(&word), format!("read {word} on the kernel command line: {end}"));
        }
        for word in
            ["firstboot.slot-mib=0", "firstboot.slot-mib=1048577", "firstboot.slot-mib=", "firstboot.rootwait=-1"]
        {
            let text = error(&format!("firstboot.root={HASH}:1:a {word}"));
            assert!(text.starts_with(&format!("read {word} on the kernel command line: ")), "{text}");
        }
    }

    #[test]
    fn modules_get_their_parameters() {
        let line = "usbcore.quirks=1:2:k usb-storage.delay_use=0 quiet usbcore.nousb firstboot.root=x -- usbcore.a=b";
        assert_eq!(module_parameters(line, "usbcore"), "quirks=1:2:k nousb");
        assert_eq!(module_parameters(line, "usb_storage"), "delay_use=0");
        assert_eq!(module_parameters(line, "sd_mod"), "");
    }
}
