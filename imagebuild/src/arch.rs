// SPDX-License-Identifier: Apache-2.0
//! The two architectures of devices, and what each tool calls them.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A device's architecture, under the name that Go, Debian, OCI and Kubernetes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// 64-bit ARM, `aarch64` to the kernel and to compilers.
    Arm64,
    /// 64-bit x86, `x86_64` to the kernel and to compilers.
    Amd64,
}

impl Arch {
    /// Both, in the order in which they are built and listed.
    pub const ALL: [Arch; 2] = [Arch::Arm64, Arch::Amd64];

    /// The architecture of the machine that this runs on.
    pub fn host() -> Result<Arch> {
        match std::env::consts::ARCH {
            "aarch64" => Ok(Arch::Arm64),
            "x86_64" => Ok(Arch::Amd64),
            other => bail!("use this machine as a build machine: architecture {other} is neither arm64 nor amd64"),
        }
    }

    /// `arm64` or `amd64`: Go's, Debian's, OCI's and Kubernetes' name.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Arm64 => "arm64",
            Arch::Amd64 => "amd64",
        }
    }

    /// `aarch64` or `x86_64`: what `uname -m` and QEMU say.
    pub fn machine(self) -> &'static str {
        match self {
            Arch::Arm64 => "aarch64",
            Arch::Amd64 => "x86_64",
        }
    }

    /// The target of rustc for static programs: `aarch64-unknown-linux-musl`.
    pub fn musl(self) -> &'static str {
        match self {
            Arch::Arm64 => "aarch64-unknown-linux-musl",
            Arch::Amd64 => "x86_64-unknown-linux-musl",
        }
    }

    /// The target of rustc for UEFI programs: `aarch64-unknown-uefi`.
    pub fn uefi(self) -> &'static str {
        match self {
            Arch::Arm64 => "aarch64-unknown-uefi",
            Arch::Amd64 => "x86_64-unknown-uefi",
        }
    }

    /// Debian's multiarch triplet, which is also the prefix of its compilers: `aarch64-linux-gnu`.
    pub fn triplet(self) -> &'static str {
        match self {
            Arch::Arm64 => "aarch64-linux-gnu",
            Arch::Amd64 => "x86_64-linux-gnu",
        }
    }

    /// File name of Debian's dynamic linker, which is among the libraries of the [triplet](Self::triplet).
    pub fn linker(self) -> &'static str {
        match self {
            Arch::Arm64 => "ld-linux-aarch64.so.1",
            Arch::Amd64 => "ld-linux-x86-64.so.2",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Arch> {
        match text {
            "arm64" | "aarch64" => Ok(Arch::Arm64),
            "amd64" | "x86_64" => Ok(Arch::Amd64),
            other => bail!("read architecture {other:?}: it is arm64 or amd64"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_names_and_refuses_others() {
        for arch in Arch::ALL {
            assert_eq!(arch.name().parse::<Arch>().unwrap(), arch);
            assert_eq!(arch.machine().parse::<Arch>().unwrap(), arch);
        }
        let e = "riscv64".parse::<Arch>().unwrap_err().to_string();
        assert_eq!(e, r#"read architecture "riscv64": it is arm64 or amd64"#);
    }
}
