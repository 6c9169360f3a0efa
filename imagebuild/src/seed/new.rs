// SPDX-License-Identifier: Apache-2.0
//! `imagebuild seed new`: writes a seed from flags, from the line that `kubeadm token create` prints, or with a token that it
//! makes itself.

use super::{ask, from_cluster};
use crate::cluster::bootstrap_token;
use crate::cluster::table::Cluster;
use crate::private_file;
use anyhow::{Context, Result, anyhow, ensure};
use firstboot::seed::join_line::{self, JoinLine};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

/// Flags of `imagebuild seed new`.
#[derive(Default, clap::Args)]
pub struct Args {
    /// kubeadm's own line, `kubeadm join HOST:PORT --token … --discovery-token-ca-cert-hash …`; `-` reads it from
    /// standard input, which keeps the token out of the shell's history, and finds it in other text there
    #[arg(long, conflicts_with_all = ["apiserver", "token", "ca_cert_hash"])]
    pub(super) join: Option<String>,
    /// Make the token, by a kubeconfig; without a value those of KUBECONFIG, or ~/.kube/config. CA and API server are the
    /// cluster's own
    #[arg(long, num_args = 0..=1, conflicts_with_all = ["join", "token", "ca_cert_hash", "ca_cert", "token_expires"])]
    pub(super) kubeconfig: Option<Option<PathBuf>>,
    /// Context of the kubeconfig, in place of the current one
    #[arg(long, requires = "kubeconfig")]
    pub(super) context: Option<String>,
    /// Life of the token that is made: 2h, 90m … [default: 2h]
    #[arg(long, requires = "kubeconfig", value_parser = bootstrap_token::ttl)]
    pub(super) ttl: Option<Duration>,
    /// Name of the one node that the token is for; the cluster needs an approver for it (imagebuild approver)
    #[arg(long, requires = "kubeconfig", conflicts_with = "name", value_parser = bootstrap_token::node_name)]
    pub(super) node: Option<String>,
    /// API server, HOST:PORT; more than once: tried in this order
    #[arg(long)]
    pub(super) apiserver: Vec<String>,
    /// Bootstrap token; `-` reads it from standard input
    #[arg(long)]
    pub(super) token: Option<String>,
    /// Hash of the cluster's CA, sha256:…
    #[arg(long)]
    pub(super) ca_cert_hash: Vec<String>,
    /// The cluster's CA certificate, a PEM file, instead of its hash
    #[arg(long, conflicts_with = "ca_cert_hash")]
    pub(super) ca_cert: Option<PathBuf>,
    /// When the token ends, as `kubeadm token list` shows it
    #[arg(long)]
    pub(super) token_expires: Option<toml::value::Datetime>,
    /// Node name, or a template with {serial}, {mac} or {machine-id}
    #[arg(long)]
    pub(super) name: Option<String>,
    /// edge or worker
    #[arg(long)]
    pub(super) role: Option<String>,
    /// Pod network: auto, bridge or none
    #[arg(long)]
    pub(super) cni: Option<String>,
    /// Label of the node, KEY=VALUE
    #[arg(long)]
    pub(super) label: Vec<String>,
    /// Taint of the node, KEY=VALUE:EFFECT
    #[arg(long)]
    pub(super) taint: Vec<String>,
    /// File to write; it must not exist yet
    #[arg(long, default_value = "seed.toml")]
    pub(super) out: PathBuf,
}

// Not derived: what was given may hold the token.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("out", &self.out).finish_non_exhaustive()
    }
}

impl Args {
    /// Whether nothing says which cluster it is.
    fn names_no_cluster(&self) -> bool {
        let Args { join, kubeconfig, apiserver, token, ca_cert_hash, ca_cert, .. } = self;
        let one = join.is_some() || kubeconfig.is_some() || token.is_some() || ca_cert.is_some();
        !one && apiserver.is_empty() && ca_cert_hash.is_empty()
    }
}

#[derive(Serialize)]
struct Seed {
    version: u32,
    cluster: Cluster,
    #[serde(skip_serializing_if = "Node::is_empty")]
    node: Node,
    #[serde(skip_serializing_if = "Harden::is_empty")]
    harden: Harden,
}

#[derive(Debug, Default, Serialize)]
struct Harden {
    open: Vec<String>,
}

impl Harden {
    fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[derive(Debug, Default, Serialize)]
struct Node {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cni: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taints: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Node {
    fn is_empty(&self) -> bool {
        let Node { name, role, cni, taints, labels } = self;
        name.is_none() && role.is_none() && cni.is_none() && taints.is_empty() && labels.is_empty()
    }
}

/// Runs `imagebuild seed new`.
pub fn main(args: &Args) -> Result<()> {
    if let Some(file) = &args.kubeconfig {
        return from_cluster::main(args, file.as_deref());
    }
    let asked = match args.names_no_cluster() && std::io::stdin().is_terminal() {
        true => Some(ask::complete(args)?),
        false => None,
    };
    let args = asked.as_ref().unwrap_or(args);
    let text = text(args, &mut std::io::stdin())?;
    finish(args, &text, || ())
}

/// Writes the seed, and says what it does. `written` is called in between: the seed is there, whatever becomes of the
/// words.
pub(super) fn finish(args: &Args, text: &str, written: impl FnOnce()) -> Result<()> {
    private_file::write(&args.out, text.as_bytes(), false)?;
    written();
    let seed = super::parse(text.as_bytes())?;
    super::token::warn(&seed);
    println!("{}: {}", args.out.display(), super::describe(&seed));
    Ok(())
}

/// The seed's text, accepted by the device's own parser.
fn text(args: &Args, input: &mut impl Read) -> Result<String> {
    let (mut cluster, named, line_role) = match &args.join {
        Some(line) => {
            let (line, note) = from_join(&given(line, input)?)?;
            if let Some(note) = note {
                eprintln!("imagebuild: {note}");
            }
            (cluster(&line), line.node_name.map(|n| n.as_str().to_owned()), line.role.map(|r| r.to_string()))
        }
        None => {
            let token = args.token.as_deref().context("make a seed: give --join, --kubeconfig or --token")?;
            let cluster = Cluster {
                apiserver: args.apiserver.clone(),
                token: given(token, input)?,
                ca_cert_hashes: args.ca_cert_hash.clone(),
                ..Cluster::default()
            };
            (cluster, None, None)
        }
    };
    ensure!(
        named.is_none() || args.name.is_none(),
        "make a seed: give --name or --node-name in the join line, not both"
    );
    ensure!(
        line_role.is_none() || args.role.is_none() || line_role == args.role,
        "make a seed: --role and --enable-edge in the join line differ: give one"
    );
    ensure!(!cluster.apiserver.is_empty(), "make a seed: give --join or --apiserver");
    cluster.token_expires = args.token_expires;
    if let Some(path) = &args.ca_cert {
        cluster.ca_cert = Some(std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?);
        cluster.ca_cert_hashes.clear();
    }
    assemble(args, cluster, args.name.clone().or(named), line_role, Vec::new())
}

/// The text of a seed with this cluster, accepted by the device's own parser; `role` counts where no flag names one, and
/// `open` are ports that the cluster's pod network needs.
pub(super) fn assemble(
    args: &Args,
    cluster: Cluster,
    name: Option<String>,
    role: Option<String>,
    open: Vec<String>,
) -> Result<String> {
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let (key, value) = label.split_once('=').with_context(|| format!("read --label {label}: not KEY=VALUE"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let (role, cni) = (args.role.clone().or(role), args.cni.clone());
    let node = Node { name, role, cni, taints: args.taint.clone(), labels };
    let seed = Seed { version: 1, cluster, node, harden: Harden { open } };
    let text = toml::to_string(&seed).context("write the seed")?;
    super::parse(text.as_bytes()).context("make a seed: the device would refuse it")?;
    Ok(text)
}

/// A value, or standard input for `-`, in any encoding that a seed may have.
fn given(value: &str, input: &mut impl Read) -> Result<String> {
    if value != "-" {
        return Ok(value.to_owned());
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).context("read standard input")?;
    let text = firstboot::seed::decode(&bytes).map_err(|why| anyhow!("read standard input: {}", why.text))?;
    Ok(text.trim().to_owned())
}

/// What the device's own reader makes of `kubeadm join …`, and a note where it used only a part of the text.
fn from_join(text: &str) -> Result<(JoinLine, Option<&'static str>)> {
    join_line::read(text).map_err(|why| anyhow!("read the join line: {why}"))
}

/// The cluster of a join line.
fn cluster(line: &JoinLine) -> Cluster {
    Cluster {
        apiserver: vec![line.apiserver.to_string()],
        token: line.token.bearer().to_string(),
        ca_cert_hashes: line.ca_cert_hashes.iter().map(ToString::to_string).collect(),
        ..Cluster::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const HASH: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn kubeadms_line_becomes_a_seed() {
        let line = format!(
            "kubeadm join 192.0.2.1:6443 --token abcdef.0123456789abcdef \\\n\t--discovery-token-ca-cert-hash {HASH}\n"
        );
        let args = Args { join: Some("-".into()), label: vec!["zone=a".into()], ..Args::default() };
        let text = text(&args, &mut line.as_bytes()).unwrap();
        assert_eq!(
            text,
            format!(
                "version = 1\n\n[cluster]\napiserver = [\"192.0.2.1:6443\"]\ntoken = \"abcdef.0123456789abcdef\"\n\
                 ca-cert-hashes = [\"{HASH}\"]\n\n[node.labels]\nzone = \"a\"\n"
            )
        );
    }

    #[test]
    fn a_name_in_the_line_is_the_nodes() {
        let line = format!(
            "kubeadm join a:1 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {HASH} --node-name Shop-1"
        );
        let args = Args { join: Some(line), ..Args::default() };
        assert!(text(&args, &mut &b""[..]).unwrap().ends_with("\n[node]\nname = \"Shop-1\"\n"));
        let both = text(&Args { name: Some("a".into()), ..args }, &mut &b""[..]).unwrap_err().to_string();
        assert_eq!(both, "make a seed: give --name or --node-name in the join line, not both");
    }

    /// Field cases that end in `.txt` are join lines on standard input, out of public bug reports.
    #[test]
    fn join_lines_of_the_field_have_their_outcome() {
        let field = Path::new("../firstboot/tests/field");
        let (mut wrong, mut count) = (Vec::new(), 0);
        for directory in fs::read_dir(field).unwrap().map(|entry| entry.unwrap().path()) {
            let expected = fs::read_to_string(directory.join("expected.toml")).unwrap();
            let expected: BTreeMap<String, String> = toml::from_str(&expected).unwrap();
            // Some are what other programs made of the cases.
            for (name, expected) in expected.iter().filter(|(n, e)| n.ends_with(".txt") && *e != "TODO") {
                let bytes = fs::read(directory.join(name)).unwrap();
                let args = Args { join: Some("-".into()), ..Args::default() };
                let outcome = match text(&args, &mut &bytes[..]) {
                    Ok(_) => "accepted".to_owned(),
                    Err(error) => format!("{error:#}"),
                };
                count += 1;
                if outcome != *expected {
                    wrong.push(format!("{}: expected {expected}\n  found {outcome}", directory.join(name).display()));
                }
            }
        }
        assert!(wrong.is_empty() && count >= 20, "{count} lines\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_line_of_edgeadm_gives_the_role() {
        let line = format!(
            "./edgeadm join a:1 --token abcdef.0123456789abcdef --discovery-token-ca-cert-hash {HASH} \
             --install-pkg-path <Path of edgeadm kube-* install package> --enable-edge=false"
        );
        let args = Args { join: Some(line), ..Args::default() };
        assert!(text(&args, &mut &b""[..]).unwrap().ends_with("\n[node]\nrole = \"worker\"\n"));
        let both = text(&Args { role: Some("edge".into()), ..args }, &mut &b""[..]).unwrap_err().to_string();
        assert_eq!(both, "make a seed: --role and --enable-edge in the join line differ: give one");
    }

    #[test]
    fn mistakes_are_reported_without_values() {
        let error = |line: &str| from_join(line).err().unwrap().to_string();
        assert_eq!(error("kubeadm join a:1 --token"), "read the join line: --token has no value");
        assert_eq!(
            error("nonsense"),
            "read the join line: expected the line that kubeadm token create --print-join-command prints"
        );
        let args = Args { apiserver: vec!["a:1".into()], token: Some("secret".into()), ..Args::default() };
        let error = text(&args, &mut &b""[..]).unwrap_err();
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }
}
