// SPDX-License-Identifier: Apache-2.0
//! Finding UEFI firmware for a guest: where Debian, Fedora and Arch install it.

use anyhow::{Result, bail, ensure};
use imagebuild::arch::Arch;
use std::path::PathBuf;

/// Firmware code and the variables that it starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// Code, read only.
    pub code: PathBuf,
    /// Variables, to be copied for each machine.
    pub vars: PathBuf,
}

/// Pairs of code and variables, newest naming first. None of them enforces Secure Boot: the image is not signed.
const AMD64: [(&str, &str); 4] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];
const ARM64: [(&str, &str); 3] = [
    ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    ("/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"),
];

/// U-Boot for QEMU's machine `virt` (Debian's package u-boot-qemu).
const U_BOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// U-Boot, where it is installed. It has no variables that outlive a start.
///
/// # Errors
/// When it is not.
pub fn u_boot() -> Result<PathBuf> {
    let path = PathBuf::from(U_BOOT);
    ensure!(path.is_file(), "find U-Boot for arm64: install package u-boot-qemu");
    Ok(path)
}

/// The first firmware that is installed for `arch`.
pub fn find(arch: Arch) -> Result<Firmware> {
    let (pairs, package) = match arch {
        Arch::Arm64 => (&ARM64[..], "qemu-efi-aarch64"),
        Arch::Amd64 => (&AMD64[..], "ovmf"),
    };
    let found = pairs.iter().map(|(code, vars)| Firmware { code: code.into(), vars: vars.into() });
    match found.into_iter().find(|f| f.code.is_file() && f.vars.is_file()) {
        Some(firmware) => Ok(firmware),
        None => bail!("find UEFI firmware for {arch}: install package {package}"),
    }
}
