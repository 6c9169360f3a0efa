// SPDX-License-Identifier: Apache-2.0
//! The one error for a digest that does not match.

use anyhow::{Result, bail};

/// Stops when what was found is not what the lock says. `what` is the thing that was digested.
pub fn expect(component: &str, what: &str, expected: &str, found: &str) -> Result<()> {
    if expected != found {
        bail!("verify component {component}: {what}: expected {expected}, found {found}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_is_one_line_with_component_expected_and_found() {
        expect("x", "file f", "a", "a").unwrap();
        let e = expect("kubelet", "file f", "aa", "bb").unwrap_err();
        assert_eq!(e.to_string(), "verify component kubelet: file f: expected aa, found bb");
    }
}
