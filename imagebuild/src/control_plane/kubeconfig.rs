// SPDX-License-Identifier: Apache-2.0
//! `imagebuild cluster kubeconfig`: the administrator's kubeconfig, of what the device left on its card and of the private
//! key that never left this machine.
//!
//! A card passes through many hands, so nothing of its file is copied as it is: address, CA and certificate are read,
//! verified and written anew. A kubeconfig can name programs to start.

use super::admin_key::AdminKey;
use super::card::Card;
use crate::cmd::quoted;
use crate::private_file::{directory_of, write};
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firstboot::boot_partition::ADMIN_KUBECONFIG;
use firstboot::kube::chain::Roots;
use firstboot::kube::kubeconfig::{ca_certificates as certificates, read, user_data};
use firstboot::kube::{pin, tls};
use firstboot::seed::Endpoint;
use firstboot::text::{timestamp, unix_seconds};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Name of the file beside the key.
const OUT: &str = "kubeconfig";

/// Flags of `imagebuild cluster kubeconfig`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  imagebuild cluster kubeconfig /dev/sdb --key shop/admin.key        writes shop/kubeconfig
  imagebuild cluster kubeconfig /media/me/BOOT --key shop/admin.key --context shop --out ~/.kube/shop
  imagebuild cluster kubeconfig /dev/sdb --key shop/admin.key --server api.shop.example.com --force

The file holds the private key: who can read it can administer the cluster. To use it beside others:
  export KUBECONFIG=~/.kube/config:shop/kubeconfig")]
pub struct Args {
    /// Image, card or disk of the device, or the directory at which its boot partition is mounted
    #[arg(value_name = "WHERE")]
    place: PathBuf,
    /// The private key that imagebuild cluster new made with the seed of this device
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File to write; `-` is standard output [default: kubeconfig beside the key]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Name of context, cluster and user in the file
    #[arg(long, value_name = "NAME", default_value = "kubernetes", value_parser = context)]
    context: String,
    /// API server, in place of the address that the device gives; its certificate has to cover it
    #[arg(long, value_name = "HOST:PORT", value_parser = Endpoint::parse)]
    server: Option<Endpoint>,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
}

/// What a device left, verified.
struct Left {
    /// `https://HOST:PORT`.
    server: String,
    /// CA certificates, PEM.
    ca: String,
    /// The administrator's certificate and those between it and the CA, PEM.
    chain: String,
    /// When the certificate ends.
    until: SystemTime,
}

/// Runs `imagebuild cluster kubeconfig`.
///
/// # Errors
/// The device has left nothing, it does not fit the key, or the file exists already.
pub fn main(args: &Args) -> Result<()> {
    let beside = || directory_of(&args.key).join(OUT);
    let out = args.out.clone().unwrap_or_else(beside);
    let to_stdout = out == Path::new("-");
    // Also found when it is written; here before anything else is said.
    if !to_stdout && !args.force && out.exists() {
        bail!("create {}: it exists already; --force replaces it", out.display());
    }
    let key = AdminKey::read(&args.key)?;
    let card = Card::open(&args.place)?;
    let text = card.read(ADMIN_KUBECONFIG)?;
    let mut left = verified(&text, &key, &args.key, SystemTime::now())
        .with_context(|| format!("use {}", card.file(ADMIN_KUBECONFIG)))?;
    if let Some(server) = &args.server {
        left.server = format!("https://{server}");
    }
    let whole = left.kubeconfig(&key, &args.context);
    if to_stdout {
        let mut stdout = std::io::stdout().lock();
        return stdout.write_all(whole.as_bytes()).and_then(|()| stdout.flush()).context("write the kubeconfig");
    }
    write(&out, whole.as_bytes(), args.force)?;
    let until = timestamp(unix_seconds(left.until));
    println!("{}: administrator at {} until {until}", out.display(), left.server);
    println!("try it: kubectl --kubeconfig {} get nodes", quoted(&out.to_string_lossy()));
    Ok(())
}

/// Reads and verifies what the device left, at the time `now`.
fn verified(text: &str, key: &AdminKey, key_file: &Path, now: SystemTime) -> Result<Left> {
    let cluster = read(text).map_err(|why| anyhow!(why))?;
    let ca = certificates(&cluster.ca_pem).context("its CA certificate cannot be read")?;
    let certificate = user_data(text, "client-certificate-data").map_err(|why| anyhow!(why))?;
    let plain = certificates(&certificate).context("its user has no certificate that can be read")?;
    let chain = pin::certificates(&plain).context("its user has no certificate that can be read")?;
    let (leaf, between) = chain.split_first().context("its user has no certificate")?;
    ensure!(
        key.is_of(leaf).with_context(|| format!("compare its certificate with {}", key_file.display()))?,
        "{} is the key of another request than its certificate; --key names the one that was made with this device's seed",
        key_file.display()
    );
    let (from, until) = tls::dates(leaf).context("its certificate cannot be read")?;
    let at = |time| timestamp(unix_seconds(time));
    ensure!(until > now, "its certificate expired at {}", at(until));
    ensure!(
        from <= now,
        "its certificate is not valid before {}, and by this machine's clock it is {}",
        at(from),
        at(now)
    );
    let roots = Roots::new(pin::certificates(&ca).unwrap_or_default());
    roots.verify_client(leaf, between, now).map_err(|refusal| anyhow!("its certificate {}", refusal.what))?;
    Ok(Left { server: cluster.server, ca, chain: plain, until })
}

impl Left {
    /// The file. Strings of JSON are strings of YAML.
    fn kubeconfig(&self, key: &AdminKey, name: &str) -> Zeroizing<String> {
        let name = serde_json::Value::from(name);
        let server = serde_json::Value::from(self.server.as_str());
        let (ca, chain) = (STANDARD.encode(&self.ca), STANDARD.encode(&self.chain));
        let key = Zeroizing::new(STANDARD.encode(key.pem().as_bytes()));
        Zeroizing::new(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\n\
             clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
             users:\n- name: {name}\n  user:\n    client-certificate-data: {chain}\n    client-key-data: {}\n",
            *key
        ))
    }
}

/// Whether a context can have this name.
fn context(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err("expected a name, as in shop".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
