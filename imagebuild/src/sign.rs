// SPDX-License-Identifier: Apache-2.0
//! Signatures of what a build makes, as OpenSSH makes them (SSHSIG: OpenSSH, PROTOCOL.sshsig): `SHA256SUMS.sig` covers
//! every file of an image by its digest. An image that is built with a key of the user's has a signature in itself, too: of
//! its bundle's manifest, verified by the device.
//!
//! OpenSSH's own program signs, so that keys with a passphrase, in an agent or in hardware work as for a login. The device's
//! own code verifies. Without a key of the user's there is one of this machine's, made once, in the cache.

use crate::bundle::Bundle;
use crate::cache;
use crate::exit::{Failure, VERIFICATION};
use crate::rootfs;
use crate::sums::{self, SUMS, Sum};
use anyhow::{Context, Result, anyhow, bail, ensure};
use firstboot::bundle::{SIGNATURE, SIGNATURE_NAMESPACE, SIGNING_KEYS};
use firstboot::host::kept;
use firstboot::seed::ssh_signature::{self, Unproven};
use firstboot::seed::{OWNER_ALGORITHMS, SshKey};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The signature of [`SUMS`], beside it.
pub const SUMS_SIGNATURE: &str = "SHA256SUMS.sig";
/// The public key by which it is made, beside it: for a look, not for trust.
pub const SUMS_KEY: &str = "SHA256SUMS.pub";
/// What the signature has to be made for: `ssh-keygen -Y sign -n firstboot-image`.
pub const NAMESPACE: &str = "firstboot-image";
/// Part of OpenSSH since 8.0.
pub const PROGRAM: &str = "ssh-keygen";
/// Name of this machine's own key in the cache.
const OWN: &str = "image-key";
/// Directory of it, in the cache.
const SIGNING: &str = "signing";

/// A key that signs images.
#[derive(Debug, Clone)]
pub struct Signer {
    key: PathBuf,
    public: SshKey,
}

impl Signer {
    /// The key in a file, private or of an agent public; without one this machine's own, which is made when it is not there.
    ///
    /// # Errors
    /// When there is no key, one that devices do not verify, or no OpenSSH.
    pub fn open(key: Option<&Path>) -> Result<Signer> {
        let key = match key {
            Some(key) => key.to_owned(),
            None => own_key()?,
        };
        // Which key it is shows what it signs.
        let (public, _) = ssh_sign(PROGRAM, &key, NAMESPACE, b"", "a test")?;
        Ok(Signer { key, public })
    }

    /// The public key, as a line of a `.pub` file.
    pub fn public(&self) -> &SshKey {
        &self.public
    }

    /// The signature of the sums of a directory.
    ///
    /// # Errors
    /// When OpenSSH does not sign.
    pub fn sign(&self, sums: &[u8]) -> Result<Vec<u8>> {
        ssh_sign(PROGRAM, &self.key, NAMESPACE, sums, SUMS).map(|(_, signature)| signature)
    }

    /// Writes what a device verifies its bundle with below `root`, the image's root directory: the public key, and the
    /// signature of the bundle's manifest.
    ///
    /// # Errors
    /// When the manifest cannot be read, OpenSSH does not sign, or a file cannot be written.
    pub fn put_in_image(&self, bundle: &Bundle, root: &Path) -> Result<()> {
        let path = bundle.manifest_file();
        let manifest = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let (_, signature) = ssh_sign(PROGRAM, &self.key, SIGNATURE_NAMESPACE, &manifest, "the bundle's manifest")?;
        // Without the comment, which is a name of a person or a machine.
        let key = format!("{} {}\n", self.public.algorithm, self.public.key).into_bytes();
        for (path, bytes) in [(SIGNING_KEYS, key), (SIGNATURE, signature)] {
            let copy = kept::copy_of(&bytes, None);
            for (path, bytes) in [(path.to_owned(), bytes), (kept::copy_path(path), copy)] {
                let text = String::from_utf8(bytes).with_context(|| format!("write {path}"))?;
                rootfs::put(root, &path, &text, 0o644)?;
            }
        }
        Ok(())
    }
}

/// Directory of this machine's own key: outside of any clone.
fn own_directory() -> Result<PathBuf> {
    Ok(cache::dir()?.join(SIGNING))
}

/// This machine's own key, made when it is not there.
fn own_key() -> Result<PathBuf> {
    let dir = own_directory()?;
    cache::once(&dir, |scratch| {
        make_key(&scratch.join(OWN))?;
        eprintln!("imagebuild: made the key that signs images: {}", dir.join(OWN).display());
        Ok(())
    })?;
    Ok(dir.join(OWN))
}

/// Makes a new Ed25519 key without a passphrase, which is a file at `path` and one with the public key beside it.
///
/// # Errors
/// When OpenSSH is missing or refuses.
pub fn make_key(path: &Path) -> Result<()> {
    let mut command = Command::new(PROGRAM);
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "firstboot images", "-f"]).arg(path);
    crate::cmd::run(&mut command).with_context(|| format!("make a key to sign images with; {PROGRAM}"))
}

/// Signs bytes; the public key that did it, and the signature. One that a device would not accept is none. `name`: what
/// these bytes are.
///
/// # Errors
/// When OpenSSH is missing or refuses, or the key is of a kind that devices do not verify.
pub fn ssh_sign(program: &str, key: &Path, namespace: &str, bytes: &[u8], name: &str) -> Result<(SshKey, Vec<u8>)> {
    let mut command = Command::new(program);
    // By way of its standard input: of a file it would ask whether an older signature may be replaced.
    command.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(key);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("start {program}: it is not installed; install OpenSSH's client"),
        _ => anyhow!("start {program}: {error}"),
    })?;
    // A program that has ended reads nothing; its exit says why.
    let _ = child.stdin.take().map(|mut input| input.write_all(bytes));
    let signed = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    if !signed.status.success() {
        bail!("sign {name} with {}: {program} failed; what it printed says why", key.display());
    }
    let by =
        ssh_signature::signer(&signed.stdout).with_context(|| format!("sign {name}: {program} gave no signature"))?;
    if !OWNER_ALGORITHMS.contains(&by.algorithm.as_str()) {
        let known = OWNER_ALGORITHMS.join(", ");
        bail!("sign {name} with {}: a device verifies {known} alone, not {}", key.display(), by.algorithm);
    }
    ssh_signature::verify_for(namespace, std::slice::from_ref(&by), bytes, &signed.stdout)
        .map_err(|why| anyhow!("verify the signature of {name}: {}", words(why)))?;
    Ok((by, signed.stdout))
}

/// The keys of a file: a line for each, as in a `.pub` file; lines that begin with # are skipped.
///
/// # Errors
/// When it cannot be read, has no key, or a line that is none.
pub fn keys(file: &Path) -> Result<Vec<SshKey>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|line| SshKey::parse(line).map_err(|why| anyhow!("read {}: {why}", file.display())));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    ensure!(!keys.is_empty(), "read {}: it has no public key", file.display());
    Ok(keys)
}

/// Public keys that are trusted: those of a file, or else this machine's own, where it has one. Under sudo(8), which most
/// machines need to write a card, that is also the one of the user who called it.
///
/// # Errors
/// When they cannot be read.
pub fn trusted(file: Option<&Path>) -> Result<Vec<SshKey>> {
    match file {
        Some(file) => keys(file),
        None => keys_in(&directories(own_directory()?, home_of_caller())),
    }
}

/// Where keys of this machine's users are: the own one's, and that of the caller with this home directory.
fn directories(own: PathBuf, caller: Option<PathBuf>) -> Vec<PathBuf> {
    let caller = caller.map(|home| home.join(".cache/firstboot").join(SIGNING));
    [own].into_iter().chain(caller).collect()
}

/// The public keys of machines' own directories, of those that are there.
fn keys_in(directories: &[PathBuf]) -> Result<Vec<SshKey>> {
    let files = directories.iter().map(|directory| directory.join(format!("{OWN}.pub")));
    let all = files.filter(|file| file.is_file()).map(|file| keys(&file)).collect::<Result<Vec<_>>>()?;
    Ok(all.concat())
}

/// Home directory of the user who became root by sudo(8): HOME is root's then.
fn home_of_caller() -> Option<PathBuf> {
    let user = std::env::var("SUDO_UID").ok().filter(|_| rustix::process::geteuid().is_root())?;
    // Of every source of users that this machine has (nsswitch.conf(5)).
    let line = crate::cmd::output(Command::new("getent").args(["passwd", "--", &user])).ok()?;
    home_in(&String::from_utf8(line).ok()?)
}

/// The home directory in a line of passwd(5).
fn home_in(line: &str) -> Option<PathBuf> {
    line.trim_end().split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

/// Verifies that the sums beside an image are signed by one of these keys.
///
/// # Errors
/// With exit code [`VERIFICATION`] when the signature is missing, wrong or by another key.
pub fn verify_sums(image: &Path, keys: &[SshKey]) -> Result<()> {
    let (sums, signature) = (image.with_file_name(SUMS), image.with_file_name(SUMS_SIGNATURE));
    let refused = |text: String| Err(Failure::new(VERIFICATION, text).into());
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let found = match fs::read(&signature) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return refused(format!("find {}: the image is not signed", signature.display()));
        }
        Err(e) => return Err(e).with_context(|| format!("read {}", signature.display())),
    };
    match ssh_signature::verify_for(NAMESPACE, keys, &read(&sums)?, &found) {
        Ok(()) => Ok(()),
        Err(why) => refused(format!("verify {}: {}", signature.display(), words(why))),
    }
}

fn words(why: Unproven) -> &'static str {
    match why {
        Unproven::Form => "it is no signature of ssh-keygen -Y sign",
        Unproven::Namespace => "it is made for another purpose than -n firstboot-image",
        Unproven::Key => "it is by another key than the one that is trusted; --key FILE names the public key",
        Unproven::Content => "it does not belong to SHA256SUMS, which was changed after it was signed",
    }
}

/// `imagebuild verify`: whether an image is the one that was signed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  imagebuild verify out/images/generic-arm64.img.zst --key company.pub

Exit codes: 0 verified, 1 something cannot be read, 2 wrong arguments,
3 the signature is missing, wrong or by another key, or the digest is another.")]
pub struct Args {
    /// The image, or another file with a line in SHA256SUMS, which is beside it with SHA256SUMS.sig
    image: PathBuf,
    /// Public keys, one of which has to have signed it [default: this machine's own key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Runs `imagebuild verify`.
///
/// # Errors
/// With the exit code that fits.
pub fn main(args: &Args) -> Result<()> {
    let keys = trusted(args.key.as_deref())?;
    ensure!(!keys.is_empty(), "verify {}: this machine has no key of its own: give --key FILE", args.image.display());
    fs::metadata(&args.image).with_context(|| format!("open {}", args.image.display()))?;
    verify_sums(&args.image, &keys)?;
    let seeds = match signed_digest(&args.image)? {
        Sum::AllButSeeds => "it has seeds; without them ",
        Sum::All | Sum::None => "",
    };
    println!("{}: signed, and {seeds}its SHA-256 is the one in {SUMS}", args.image.display());
    Ok(())
}

/// Verifies that a file is one of those in the sums beside it, or an image that was and has got seeds.
///
/// # Errors
/// With exit code [`VERIFICATION`] when it has no line there, or another digest.
pub fn signed_digest(file: &Path) -> Result<Sum> {
    let text = match sums::check(file) {
        Ok(sum @ (Sum::All | Sum::AllButSeeds)) => return Ok(sum),
        Ok(Sum::None) => {
            format!("check {}: {SUMS} has no line for it, so its signature does not cover it", file.display())
        }
        Err(error) => format!("{error:#}"),
    };
    Err(Failure::new(VERIFICATION, text).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exit::code;

    /// A new key in a directory.
    fn key(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        make_key(&path).unwrap();
        path
    }

    #[test]
    fn keys_of_this_machine_and_of_who_called_sudo() {
        assert_eq!(home_in("ann:x:1000:1000:Ann,,,:/srv/ann:/bin/bash\n"), Some("/srv/ann".into()));
        for none in ["", "ann:x:1000", "ann:x:1000:1000:::/bin/sh"] {
            assert_eq!(home_in(none), None, "{none}");
        }
        // No directory of others: never the one that this is run in.
        assert_eq!(directories("/own".into(), None), ["/own"].map(PathBuf::from));
        let both = directories("/own".into(), Some("/srv/ann".into()));
        assert_eq!(both, ["/own", "/srv/ann/.cache/firstboot/signing"].map(PathBuf::from));
        if !crate::cmd::found(PROGRAM) {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is not installed");
            return;
        }
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [root, ann, none] = dirs.each_ref().map(|dir| dir.path().to_owned());
        key(&root, OWN);
        key(&ann, OWN);
        let found = |directories: &[PathBuf]| keys_in(directories).unwrap().len();
        assert_eq!([found(&[none.clone(), none.clone()]), found(&[none, ann.clone()]), found(&[root, ann])], [0, 1, 2]);
    }

    #[test]
    fn an_image_is_verified_by_the_key_that_signed_its_sums_and_by_no_other() {
        if !crate::cmd::found(PROGRAM) {
            assert!(std::env::var_os("CI").is_none(), "{PROGRAM} is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (own, other) = (key(dir.path(), "own"), key(dir.path(), "other"));
        fs::write(at("a.img"), "an image").unwrap();
        fs::write(at("b.img"), "another").unwrap();
        let run = |image: &str, key: &str| {
            let result = main(&Args { image: at(image), key: Some(at(key)) });
            result.map_err(|error| {
                (code(&error), format!("{error:#}").replace(&format!("{}/", dir.path().display()), ""))
            })
        };
        let fails = |image: &str, key: &str, exit: u8, text: &str| {
            assert_eq!(run(image, key), Err((exit, text.to_owned())));
        };
        fails("a.img", "own.pub", 3, "find SHA256SUMS.sig: the image is not signed");
        let sums = format!("{}  a.img\n", crate::digest::bytes(b"an image"));
        let signer = Signer::open(Some(&own)).unwrap();
        assert_eq!(keys(&at("own.pub")).unwrap()[0].key, signer.public().key);
        fs::write(at(SUMS), &sums).unwrap();
        fs::write(at(SUMS_SIGNATURE), signer.sign(sums.as_bytes()).unwrap()).unwrap();
        run("a.img", "own.pub").unwrap();
        // A new key beside the old one, while a company changes it.
        let both = ["other.pub", "own.pub"].map(|name| fs::read_to_string(at(name)).unwrap()).join("# the old one\n");
        fs::write(at("both.pub"), both).unwrap();
        run("a.img", "both.pub").unwrap();
        fails(
            "a.img",
            "other.pub",
            3,
            "verify SHA256SUMS.sig: it is by another key than the one that is trusted; --key FILE names the public key",
        );
        fails("b.img", "own.pub", 3, "check b.img: SHA256SUMS has no line for it, so its signature does not cover it");
        fails("c.img", "own.pub", 1, "open c.img: No such file or directory (os error 2)");
        fs::write(at("a.img"), "An image").unwrap();
        let (exit, text) = run("a.img", "own.pub").unwrap_err();
        assert!(exit == 3 && text.starts_with("check a.img: its SHA-256 is "), "{exit} {text}");
        // Who changes the image and its digest has no signature of that.
        fs::write(at(SUMS), format!("{}  a.img\n", crate::digest::bytes(b"An image"))).unwrap();
        let changed = "verify SHA256SUMS.sig: it does not belong to SHA256SUMS, which was changed after it was signed";
        fails("a.img", "own.pub", 3, changed);
        let (_, seed) = ssh_sign(PROGRAM, &own, "firstboot", &fs::read(at(SUMS)).unwrap(), "x").unwrap();
        fs::write(at(SUMS_SIGNATURE), seed).unwrap();
        let purpose = "verify SHA256SUMS.sig: it is made for another purpose than -n firstboot-image";
        fails("a.img", "own.pub", 3, purpose);
        fs::write(at(SUMS_SIGNATURE), "-----BEGIN SSH SIGNATURE-----").unwrap();
        fails("a.img", "own.pub", 3, "verify SHA256SUMS.sig: it is no signature of ssh-keygen -Y sign");
        // A private key is none to trust, and an empty file none at all.
        let (exit, text) = run("a.img", "own").unwrap_err();
        assert!(exit == 1 && text.starts_with("read own: expected a line of a .pub file"), "{text}");
        fs::write(at("empty.pub"), "# none\n").unwrap();
        fails("a.img", "empty.pub", 1, "read empty.pub: it has no public key");
        assert!(other.exists());
    }
}
