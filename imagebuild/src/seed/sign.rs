// SPDX-License-Identifier: Apache-2.0
//! Signs a seed with OpenSSH's own program, so that passphrases, agents and keys in hardware work as for a login.

use anyhow::{Context, Result, anyhow, bail};
use firstboot::boot_partition::SIGNATURE_SUFFIX;
use firstboot::seed::ssh_signature::{self, NAMESPACE};
use firstboot::seed::{OWNER_ALGORITHMS, SshKey};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Part of OpenSSH since 8.0.
const PROGRAM: &str = "ssh-keygen";

/// Signs `file` and writes the signature beside it; the public key that did it. What a device would not accept is not
/// written.
pub fn sign(key: &Path, file: &Path) -> Result<SshKey> {
    sign_with(PROGRAM, key, file)
}

fn sign_with(program: &str, key: &Path, file: &Path) -> Result<SshKey> {
    let seed = super::read(file)?;
    // By way of its standard input: of a file it would ask whether an older signature may be replaced.
    let input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut command = Command::new(program);
    command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key).stdin(input).stderr(Stdio::inherit());
    let signed = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("start {program}: it is not installed; install OpenSSH's client"),
        _ => anyhow!("start {program}: {error}"),
    })?;
    if !signed.status.success() {
        bail!("sign {} with {}: {program} failed; what it printed says why", file.display(), key.display());
    }
    let by = ssh_signature::signer(&signed.stdout)
        .with_context(|| format!("sign {}: {program} gave no signature", file.display()))?;
    if !OWNER_ALGORITHMS.contains(&by.algorithm.as_str()) {
        let known = OWNER_ALGORITHMS.join(", ");
        bail!("sign {} with {}: a device verifies {known} alone, not {}", file.display(), key.display(), by.algorithm);
    }
    ssh_signature::verify(std::slice::from_ref(&by), &seed, &signed.stdout)
        .map_err(|why| anyhow!("verify the signature of {}: {why}", file.display()))?;
    let to = beside(file);
    fs::write(&to, &signed.stdout).with_context(|| format!("write {}", to.display()))?;
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
