// SPDX-License-Identifier: Apache-2.0
//! `imagebuild approver`: signs no certificate itself, but approves those that a token of one node asks for, for that
//! node and one key alone. So a stolen seed is worth one name before its use, and nothing after it.
//!
//! kube-controller-manager approves by the requester's group, whatever name is asked for. Tokens of one node are in
//! groups that it does not approve for ([`crate::cluster::bootstrap_token::group`]); this takes its place for them.

mod image;
mod manifests;
mod request;
mod run;

pub use manifests::manifests;
pub use run::Approver;

use crate::arch::Arch;
use crate::cluster::{Access, Api, kubeconfig};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// `imagebuild approver`: approves certificates for tokens of one node.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print what a cluster needs for tokens of one node, as YAML for kubectl apply
    Manifests {
        /// Image of the approver, as a registry of the cluster has it; without it no Deployment is printed
        #[arg(long)]
        image: Option<String>,
    },
    /// Approve until it is ended: in a pod with its service account, elsewhere with a kubeconfig
    Run {
        /// Kubeconfig; without a value those of KUBECONFIG, or ~/.kube/config
        #[arg(long, num_args = 0..=1)]
        kubeconfig: Option<Option<PathBuf>>,
        /// Context of the kubeconfig, in place of the current one
        #[arg(long, requires = "kubeconfig")]
        context: Option<String>,
    },
    /// Make the image of the approver, an OCI archive
    Image {
        /// Architecture: arm64 or amd64
        #[arg(long)]
        arch: Arch,
        /// File to write
        #[arg(long, default_value = "firstboot-approver.tar")]
        out: PathBuf,
    },
}

/// Runs `imagebuild approver`.
///
/// # Errors
/// `run`: the cluster cannot be reached, or refuses, at the start; later failures are printed and tried again.
pub fn main(args: &Args) -> Result<()> {
    match &args.command {
        Command::Manifests { image } => {
            print!("{}", manifests(image.as_deref())?);
            Ok(())
        }
        Command::Run { kubeconfig: None, .. } => in_cluster(),
        Command::Run { kubeconfig: Some(file), context } => with_kubeconfig(file.clone(), context.clone()).run(),
        Command::Image { arch, out } => image::write(*arch, out),
    }
}

/// Approves in a pod, until it is ended.
///
/// # Errors
/// As [`main`].
pub fn in_cluster() -> Result<()> {
    Approver::new(Box::new(|| Api::new(&Access::in_cluster()?))).run()
}

/// An approver with a user's kubeconfig.
pub fn with_kubeconfig(file: Option<PathBuf>, context: Option<String>) -> Approver {
    let connect = move || Api::new(&kubeconfig::access(file.as_deref().map(Path::new), context.as_deref())?);
    Approver::new(Box::new(connect))
}
