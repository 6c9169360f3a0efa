// SPDX-License-Identifier: Apache-2.0
//! Signs a seed for a stick, and finds the signature beside one.

use crate::sign::{PROGRAM, ssh_sign};
use anyhow::{Context, Result};
use firstboot::boot_partition::SIGNATURE_SUFFIX;
use firstboot::seed::SshKey;
use firstboot::seed::ssh_signature::NAMESPACE;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Signs `file` and writes the signature beside it; the public key that did it. What a device would not accept is not
/// written.
pub fn sign(key: &Path, file: &Path) -> Result<SshKey> {
    sign_with(PROGRAM, key, file)
}

fn sign_with(program: &str, key: &Path, file: &Path) -> Result<SshKey> {
    let seed = super::read(file)?;
    let (by, signature) = ssh_sign(program, key, NAMESPACE, &seed, &file.display().to_string())?;
    let to = beside(file);
    fs::write(&to, &signature).with_context(|| format!("write {}", to.display()))?;
    Ok(by)
}

/// The signature beside `file`; none where there is none.
pub fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    let path = beside(file);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn beside(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(SIGNATURE_SUFFIX);
    path.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use firstboot::seed::ssh_signature;
    use std::process::Command;

    #[test]
    fn a_seed_is_signed_by_a_key_that_devices_verify() {
        if !crate::cmd::found(PROGRAM) {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("seed.toml");
        fs::write(&file, "version = 1\nreset = true\n").unwrap();
        let make = |kind: &str, bits: &str| {
            let key = dir.path().join(kind.to_owned() + bits);
            let made = Command::new(PROGRAM).args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"]).arg(&key).status();
            assert!(made.unwrap().success());
            key
        };
        // The second replaces the signature of the first.
        for (kind, bits) in [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384")] {
            let key = make(kind, bits);
            let by = sign(&key, &file).unwrap();
            let public = fs::read_to_string(key.with_extension("pub")).unwrap();
            assert!(public.starts_with(&by.to_string()), "{public} {by}");
            let signature = read(&file).unwrap().unwrap();
            assert_eq!(ssh_signature::verify(&[by], &fs::read(&file).unwrap(), &signature), Ok(()));
        }
        let kept = read(&file).unwrap();
        for (kind, bits, name) in [("rsa", "3072", "ssh-rsa"), ("ecdsa", "521", "ecdsa-sha2-nistp521")] {
            let error = sign(&make(kind, bits), &file).unwrap_err().to_string();
            assert!(error.ends_with(&format!("ecdsa-sha2-nistp384 alone, not {name}")), "{error}");
        }
        let error = sign(&dir.path().join("nowhere"), &file).unwrap_err().to_string();
        assert!(error.ends_with("ssh-keygen failed; what it printed says why"), "{error}");
        assert_eq!(read(&file).unwrap(), kept);
        let error = sign_with("no-such-program", &dir.path().join("key"), &file).unwrap_err().to_string();
        assert_eq!(error, "start no-such-program: it is not installed; install OpenSSH's client");
        assert_eq!(read(&dir.path().join("other.toml")).unwrap(), None);
    }
}
