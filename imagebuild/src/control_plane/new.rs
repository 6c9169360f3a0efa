// SPDX-License-Identifier: Apache-2.0
//! `imagebuild cluster new`: a directory with the seed of a device that creates a cluster, and with the administrator's
//! private key. It is there as a whole or not at all.

use super::admin_key::{GROUP, NewKey, user_name};
use super::new_seed::NewSeed;
use crate::cmd::quoted;
use crate::private_file::{directory_of, without_path, write};
use crate::{seed, sign};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The seed in the directory.
const SEED: &str = "seed.toml";
/// The private key in the directory.
const KEY: &str = "admin.key";

/// Flags of `imagebuild cluster new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  imagebuild cluster new --out shop
  imagebuild cluster new --out shop --name shop --endpoint api.shop.example.com --ssh-key ~/.ssh/id_ed25519.pub
  imagebuild cluster new --out shop --virtual-ip 192.0.2.10 --join-control-plane
  imagebuild cluster new --out shop --pod-subnet 10.1.0.0/16,fd01::/48 --service-subnet 10.2.0.0/16,fd02::/112

DIR/seed.toml has no secret, and can be edited. DIR/admin.key is the only copy of the administrator's private key.")]
pub struct Args {
    /// Directory to make; one that exists has to be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Name of the cluster, for its kubeconfigs
    #[arg(long, value_name = "CLUSTER", value_parser = cluster_name)]
    name: Option<String>,
    /// Name or address at which all machines reach the API server [default: the device's own address]
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
    /// Network of pods, or one of each address family [default: 10.244.0.0/16]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    pod_subnet: Vec<String>,
    /// Network of Services, or one of each address family [default: 10.96.0.0/12]
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    service_subnet: Vec<String>,
    /// Another name or address for the API server's certificate; more than once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    cert_san: Vec<String>,
    /// Name of the administrator, in the certificate
    #[arg(long, value_name = "NAME", default_value = "admin", value_parser = user_name)]
    user: String,
    /// Node name, or a template with {serial}, {mac} or {machine-id}
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Public keys that may log in to the device by SSH, a .pub file; more than once
    #[arg(long, value_name = "FILE")]
    ssh_key: Vec<PathBuf>,
    /// How long the token in the next device's seed is good for, 0 to 168; 0: there is no such seed [default: 24]
    #[arg(long, value_name = "N")]
    join_seed_hours: Option<u32>,
    /// Address that the control planes share: there can be several
    #[arg(long, value_name = "ADDRESS")]
    virtual_ip: Option<IpAddr>,
    /// Have the device leave a seed for further control planes, too; needs --virtual-ip or --endpoint
    #[arg(long)]
    join_control_plane: bool,
}

/// Runs `imagebuild cluster new`.
///
/// # Errors
/// The directory has something in it, a value is refused, or the directory cannot be written.
pub fn main(args: &Args) -> Result<()> {
    let seed = make(args)?;
    let (dir, shown) = (&args.out, args.out.display());
    println!("{shown}/{SEED}: {}", seed::description(seed.as_bytes())?);
    println!("{shown}/{KEY}: the private key of {} (group {GROUP}); keep it: no device has it", args.user);
    print!("{}", steps(dir, args));
    Ok(())
}

/// Makes the directory; gives the text of the seed.
fn make(args: &Args) -> Result<String> {
    let dir = &args.out;
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => bail!("create {}: it exists already, and is not empty", dir.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("create {}", dir.display())),
    }
    let ssh_keys: Vec<String> = args
        .ssh_key
        .iter()
        .map(|file| Ok(sign::keys(file)?.iter().map(ToString::to_string).collect::<Vec<_>>()))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let key = NewKey::make(&args.user)?;
    let seed = NewSeed {
        endpoint: args.endpoint.as_deref(),
        pod_subnet: &args.pod_subnet,
        service_subnet: &args.service_subnet,
        cert_sans: &args.cert_san,
        join_seed_hours: args.join_seed_hours,
        virtual_ip: args.virtual_ip,
        join_control_plane: args.join_control_plane,
        request: &key.request,
        name: args.name.as_deref(),
        node_name: args.node_name.as_deref(),
        ssh_keys: &ssh_keys,
    };
    let text = seed.text()?;
    put(dir, &[(SEED, text.as_bytes()), (KEY, key.pem.as_bytes())])
        .with_context(|| format!("create {}", dir.display()))?;
    Ok(text)
}

/// Makes a directory of mode 0700 with these files, all or none: it gets its name when it is complete.
fn put(dir: &Path, files: &[(&str, &[u8])]) -> Result<()> {
    // `DIR/` has a name, too.
    let dir: PathBuf = dir.components().collect();
    let parent = directory_of(&dir);
    fs::create_dir_all(parent)?;
    let mode = Permissions::from_mode(0o700);
    let scratch = tempfile::Builder::new().prefix(".imagebuild-").permissions(mode).tempdir_in(parent);
    let scratch = scratch.map_err(|error| without_path(&error))?;
    files.iter().try_for_each(|(name, bytes)| write(&scratch.path().join(name), bytes, false))?;
    // Takes the place of an empty directory, and of nothing else.
    fs::rename(scratch.path(), &dir)?;
    // It has another name now.
    let _ = scratch.keep();
    Ok(File::open(parent)?.sync_all()?)
}

/// What to do next, a line each.
fn steps(dir: &Path, args: &Args) -> String {
    let file = |name: &str| quoted(&dir.join(name).to_string_lossy());
    let context = args.name.as_ref().map(|name| format!(" --context {name}")).unwrap_or_default();
    let mut text = format!(
        "\nNext:\n\
         1. imagebuild flash IMAGE CARD            an image of imagebuild build --control-plane\n\
         2. imagebuild seed put {seed} CARD\n\
         3. Put the card into the device and switch it on. {status} on the card says \"state: joined\" when it is done.\n\
         4. imagebuild cluster kubeconfig CARD --key {key}{context}\n",
        seed = file(SEED),
        key = file(KEY),
        status = firstboot::status::STATUS_NAME,
    );
    let seeds = (args.join_seed_hours != Some(0), args.join_control_plane);
    text += match seeds {
        (true, true) => {
            "5. imagebuild cluster join-seed CARD      the seed for the next device; --control-plane: one more control plane\n"
        }
        (true, false) => "5. imagebuild cluster join-seed CARD      the seed for the next device\n",
        (false, true) => {
            "5. imagebuild cluster join-seed CARD --control-plane      the seed for one more control plane\n"
        }
        (false, false) => "",
    };
    if args.endpoint.is_none() && args.virtual_ip.is_none() {
        text += "\nThe API server's certificate is for the address that the device has at step 3: give it a fixed one, by the\n\
                 DHCP server or by [network] in the seed.\n";
    }
    text
}

/// Whether a cluster can have this name: it becomes part of names in kubeconfigs.
fn cluster_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let inner = !text.starts_with('-') && !text.ends_with('-');
    match inner && (1..=63).contains(&text.len()) && text.chars().all(good) {
        true => Ok(text.to_owned()),
        false => Err("expected lower-case letters, digits and hyphens, as in shop-12".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::admin_key::AdminKey;
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(dir: &Path, more: &[&str]) -> Result<Args, clap::Error> {
        let out = dir.to_str().unwrap();
        Cli::try_parse_from(["new", "--out", out].iter().chain(more)).map(|cli| cli.args)
    }

    #[test]
    fn a_directory_with_a_seed_and_a_key() {
        let parent = tempfile::tempdir().unwrap();
        // An empty one is taken.
        let dir = parent.path().join("a/shop");
        fs::create_dir_all(&dir).unwrap();
        let given = args(&parent.path().join("a/shop/"), &["--name", "shop", "--user", "kim"]).unwrap();
        main(&given).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(SEED)), mode(&dir.join(KEY))), (0o700, 0o600, 0o600));
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
        let seed = firstboot::seed::parse(&fs::read(dir.join(SEED)).unwrap()).unwrap();
        let request = seed.create().unwrap().admin_request.clone().unwrap();
        assert_eq!(seed::admin_request::subject(&request).unwrap(), format!("CN=kim,O={GROUP}"));
        AdminKey::read(&dir.join(KEY)).unwrap();
        let text = fs::read_to_string(dir.join(SEED)).unwrap();
        assert!(!text.contains("PRIVATE KEY"));
        let error = format!("{:#}", make(&given).unwrap_err());
        assert_eq!(error, format!("create {}: it exists already, and is not empty", given.out.display()));
    }

    #[test]
    fn nothing_is_made_where_a_value_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("shop");
        let error = |more: &[&str]| format!("{:#}", make(&args(&dir, more).unwrap()).unwrap_err());
        let text = error(&["--pod-subnet", "10.96.0.0/16"]);
        assert!(text.starts_with("make a seed: the device would refuse it: FB108: seed.toml:"), "{text}");
        let missing = parent.path().join("none.pub");
        let text = error(&["--ssh-key", missing.to_str().unwrap()]);
        assert_eq!(text, format!("read {}: No such file or directory (os error 2)", missing.display()));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
        fs::write(&dir, "a file").unwrap();
        assert_eq!(error(&[]), format!("create {}: Not a directory (os error 20)", dir.display()));
        for wrong in [["--name", "Shop"], ["--name", "-a"], ["--user", "system:x"], ["--join-seed-hours", "x"]] {
            assert!(args(&dir, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_steps_are_commands_that_can_be_pasted() {
        let all = steps(Path::new("my shop"), &args(Path::new("x"), &["--name", "shop"]).unwrap());
        assert!(all.contains("\n2. imagebuild seed put 'my shop/seed.toml' CARD\n"), "{all}");
        assert!(all.contains("cluster kubeconfig CARD --key 'my shop/admin.key' --context shop\n"), "{all}");
        assert!(all.contains("join-seed CARD") && all.contains("give it a fixed one"), "{all}");
        let fixed = args(Path::new("x"), &["--endpoint", "api.example.com", "--join-seed-hours", "0"]).unwrap();
        let all = steps(Path::new("x"), &fixed);
        assert!(!all.contains("join-seed") && !all.contains("fixed one"), "{all}");
        let planes = args(Path::new("x"), &["--join-control-plane", "--join-seed-hours", "0"]).unwrap();
        assert!(steps(Path::new("x"), &planes).contains("\n5. imagebuild cluster join-seed CARD --control-plane "));
    }
}
