// SPDX-License-Identifier: Apache-2.0
//! `config.txt`: what the firmware starts, with its filters and includes (documentation of Raspberry Pi, "config.txt").

use anyhow::{Context, Result, bail, ensure};

/// Kernel that is started when none is named, on a 64-bit system.
const KERNEL: &str = "kernel8.img";
/// Includes within includes are a mistake beyond this.
const DEPTH: u32 = 4;

/// What counts of a `config.txt` for starting Linux.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Path of the kernel.
    pub kernel: String,
    /// Path of the initrd.
    pub initrd: Option<String>,
    /// Path of the file with the kernel's command line.
    pub command_line: String,
    /// Path of the device tree; without one, the model decides.
    pub device_tree: Option<String>,
    /// Names of device tree overlays, in order, without parameters.
    pub overlays: Vec<String>,
}

impl Config {
    /// Reads it for a model for which `filters` hold. `include` reads another file of the same partition.
    ///
    /// # Errors
    /// When it is no text, an included file is missing, or the kernel would be started in 32-bit mode.
    pub fn parse(bytes: &[u8], filters: &[&str], include: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Config> {
        let holds = |filter: &str| filter == "all" || filters.contains(&filter);
        let mut lines = Vec::new();
        read(bytes, "config.txt", &holds, include, 0, &mut lines)?;
        let mut config = Config {
            kernel: KERNEL.to_owned(),
            initrd: None,
            command_line: "cmdline.txt".to_owned(),
            device_tree: None,
            overlays: Vec::new(),
        };
        let (mut prefix, mut bits, mut auto) = (String::new(), "0".to_owned(), false);
        for line in lines {
            if let Some(rest) = line.strip_prefix("initramfs ") {
                config.initrd = rest.split_whitespace().next().map(str::to_owned);
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().to_owned();
            match key.trim() {
                "kernel" => config.kernel = value,
                "initramfs" => config.initrd = value.split(',').next().map(str::to_owned),
                "cmdline" => config.command_line = value,
                "device_tree" => config.device_tree = Some(value),
                "os_prefix" => prefix = value,
                "arm_64bit" => bits = value,
                "auto_initramfs" => auto = value == "1",
                "dtoverlay" => {
                    config.overlays.extend(value.split(',').next().filter(|n| !n.is_empty()).map(str::to_owned))
                }
                _ => {}
            }
        }
        // The initrd that is named as the kernel is: `kernel8.img`, `initramfs8`.
        if auto && config.initrd.is_none() {
            let middle = config.kernel.strip_prefix("kernel").and_then(|rest| rest.strip_suffix(".img"));
            config.initrd = middle.map(|middle| format!("initramfs{middle}"));
        }
        ensure!(bits == "1", "start a 64-bit kernel: config.txt has no arm_64bit=1");
        let paths = [Some(&mut config.kernel), config.initrd.as_mut(), Some(&mut config.command_line)];
        for path in paths.into_iter().flatten() {
            path.insert_str(0, &prefix);
        }
        Ok(config)
    }
}

fn read(
    bytes: &[u8],
    name: &str,
    holds: &dyn Fn(&str) -> bool,
    include: &dyn Fn(&str) -> Option<Vec<u8>>,
    depth: u32,
    lines: &mut Vec<String>,
) -> Result<()> {
    ensure!(depth <= DEPTH, "read {name}: it is included more than {DEPTH} times deep");
    let Ok(text) = std::str::from_utf8(bytes) else { bail!("read {name}: it is no text") };
    for line in sections(text, holds) {
        match line.strip_prefix("include ") {
            Some(other) => {
                let bytes =
                    include(other.trim()).with_context(|| format!("include {other} into {name}: it is missing"))?;
                read(&bytes, other, holds, include, depth + 1, lines)?;
            }
            None => lines.push(line.to_owned()),
        }
    }
    Ok(())
}

/// The lines in sections whose filter `holds`; without comments and blank lines. Lines before the first section count.
/// `[all]` ends all filters; of other filters in a row each must hold, except that one of the same kind replaces the last
/// one, which is what the models are.
pub(super) fn sections<'a>(text: &'a str, holds: &dyn Fn(&str) -> bool) -> Vec<&'a str> {
    let (mut model, mut tryboot, mut none) = (true, true, false);
    let mut out = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some("all") => (model, tryboot, none) = (true, true, false),
            Some("none") => none = true,
            Some("tryboot") => tryboot = holds("tryboot"),
            Some(filter) => model = holds(filter),
            None if model && tryboot && !none => out.push(line),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        let include = |name: &str| (name == "more.txt").then(|| b"cmdline=other.txt\n".to_vec());
        Config::parse(text.as_bytes(), &["pi3"], &include)
    }

    #[test]
    fn what_an_image_has_is_understood() {
        let config = parse("# x\narm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.img followkernel\n").unwrap();
        assert_eq!((config.kernel.as_str(), config.initrd.as_deref()), ("vmlinuz", Some("initrd.img")));
        assert_eq!((config.command_line.as_str(), config.device_tree), ("cmdline.txt", None));
        let auto = parse("arm_64bit=1\nauto_initramfs=1\n").unwrap();
        assert_eq!((auto.kernel.as_str(), auto.initrd.as_deref()), ("kernel8.img", Some("initramfs8")));
        let named = parse("arm_64bit=1\nauto_initramfs=1\ninitramfs other followkernel\n").unwrap();
        assert_eq!(named.initrd.as_deref(), Some("other"));
        assert_eq!(parse("arm_64bit=1\nauto_initramfs=0\n").unwrap().initrd, None);
    }

    #[test]
    fn filters_prefix_includes_and_overlays() {
        let text = "arm_64bit=1\n[pi4]\nkernel=four\n[pi3]\nkernel=three\n[tryboot]\nkernel=try\n[all]\nos_prefix=v2/\n\
                    include more.txt\ndtoverlay=disable-bt\ndtoverlay=vc4,cma-256\ndevice_tree=x.dtb\n";
        let config = parse(text).unwrap();
        assert_eq!((config.kernel.as_str(), config.command_line.as_str()), ("v2/three", "v2/other.txt"));
        assert_eq!(
            (config.overlays, config.device_tree.as_deref()),
            (vec!["disable-bt".to_owned(), "vc4".to_owned()], Some("x.dtb"))
        );
        let tried = Config::parse(text.as_bytes(), &["pi3", "tryboot"], &|_| Some(Vec::new())).unwrap();
        assert_eq!(tried.kernel, "v2/try");
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("kernel=a\n"), "start a 64-bit kernel: config.txt has no arm_64bit=1");
        assert_eq!(error("include gone.txt\n"), "include gone.txt into config.txt: it is missing");
    }
}
