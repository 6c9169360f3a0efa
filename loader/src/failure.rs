// SPDX-License-Identifier: Apache-2.0
//! Why a boot attempt ends before the system starts, as a line on the console.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

/// How long the line stays before the machine resets: enough to read it.
pub const WAIT: Duration = Duration::from_secs(10);

/// What went wrong. Its text names the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The options are not what an image writes.
    Options(&'static str),
    /// The volume that this program came from cannot be opened.
    Volume {
        /// The file that was to be started.
        path: String,
        /// The firmware's word for it.
        why: String,
    },
    /// There is no such file.
    Missing {
        /// The file.
        path: String,
    },
    /// The file does not fit into memory.
    Memory {
        /// The file.
        path: String,
        /// Its bytes.
        size: u64,
    },
    /// The file cannot be opened or read.
    Read {
        /// The file.
        path: String,
        /// What happened.
        why: String,
    },
    /// The content is not the one that the entry names.
    Damaged {
        /// The file.
        path: String,
    },
    /// The firmware does not take it as a program.
    Load {
        /// The file.
        path: String,
        /// The firmware's word for it.
        why: String,
    },
    /// It was started and came back.
    Ended {
        /// The file.
        path: String,
        /// With what result.
        why: String,
    },
    /// This program failed.
    Internal(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Options(why) => write!(f, "options of the boot entry are damaged: {why}"),
            Failure::Volume { path, why } => write!(f, "the volume of {path} cannot be opened: {why}"),
            Failure::Missing { path } => write!(f, "{path} is missing"),
            Failure::Memory { path, size } => write!(f, "{path} does not fit into memory: {size} bytes"),
            Failure::Read { path, why } => write!(f, "{path} cannot be read: {why}"),
            Failure::Damaged { path } => {
                write!(f, "{path} is damaged: SHA-256 is not the one that the boot entry names")
            }
            Failure::Load { path, why } => write!(f, "{path} cannot be loaded: {why}"),
            Failure::Ended { path, why } => write!(f, "{path} ended without starting the system: {why}"),
            Failure::Internal(why) => write!(f, "verify.efi failed: {why}"),
        }
    }
}

/// The line on the console for a reason, without its end.
pub struct Line<T>(
    /// A [`Failure`], or what this program says when it fails itself.
    pub T,
);

impl<T: fmt::Display> fmt::Display for Line<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "firstboot: {}; starting over in {} s", self.0, WAIT.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn lines_name_the_file_and_what_happens_next() {
        let line = |failure| Line(failure).to_string();
        let damaged = line(Failure::Damaged { path: "\\EFI\\firstboot\\a.efi".into() });
        let text = "firstboot: \\EFI\\firstboot\\a.efi is damaged: SHA-256 is not the one that the boot entry names; \
             starting over in 10 s";
        assert_eq!(damaged, text);
        let missing = line(Failure::Missing { path: "\\EFI\\firstboot\\b.efi".into() });
        assert_eq!(missing, "firstboot: \\EFI\\firstboot\\b.efi is missing; starting over in 10 s");
        let options = line(Failure::Options("they are not text"));
        assert_eq!(
            options,
            "firstboot: options of the boot entry are damaged: they are not text; starting over in 10 s"
        );
    }
}
