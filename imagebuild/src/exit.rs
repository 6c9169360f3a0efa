// SPDX-License-Identifier: Apache-2.0
//! Exit codes of `imagebuild`, for scripts.

use std::fmt;

/// A command failed. clap gives 2 to arguments that it refuses.
pub const FAILED: u8 = 1;
/// Arguments that do not go together or lack something, as clap has it.
pub const USAGE: u8 = 2;
/// What was written is not what is read back; or a signature or a digest is wrong.
pub const VERIFICATION: u8 = 3;
/// Interrupted: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// An error with an exit code of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code: not 0.
    pub code: u8,
    /// One line for a person.
    pub text: String,
}

impl Failure {
    /// An error with this code and text.
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The exit code for an error: that of the [`Failure`] in it, or 1.
pub fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Failure>().map_or(FAILED, |failure| failure.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_failure_keeps_its_code_below_context() {
        let error = anyhow::Error::from(Failure::new(VERIFICATION, "verify /dev/sdx: it differs"));
        assert_eq!(code(&error), 3);
        let error = Err::<(), _>(error).context("flash").err();
        assert_eq!(error.map(|e| (code(&e), format!("{e:#}"))), Some((3, "flash: verify /dev/sdx: it differs".into())));
        assert_eq!(code(&anyhow::anyhow!("any other")), 1);
    }
}
