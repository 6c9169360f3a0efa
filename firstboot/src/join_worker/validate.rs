// SPDX-License-Identifier: Apache-2.0
//! Whether what the join worker says can be so, before anything is done with it.

use crate::fault::{Code, Fault};
use crate::kube::contract::{FoundCluster, JoinInput};
use crate::kube::pin;
use crate::seed::Trust;

/// Whether a hint at the cluster leads anywhere: to one of the seed's API servers, by a certificate that the seed
/// names. Nothing else of it counts; [`crate::kube::confirm`] asks the cluster itself.
///
/// # Errors
/// The cluster's fault, by the name of what is wrong.
pub(super) fn hint(hint: &FoundCluster, input: &JoinInput) -> Result<(), Fault> {
    if hint.endpoint >= input.cluster.apiserver.len() {
        return Err(impossible("the API server is not one of the seed's"));
    }
    match is_cas(&hint.ca_pem, &input.cluster.trust) {
        true => Ok(()),
        false => Err(impossible("the CA is not the one that the seed names")),
    }
}

/// What no join worker says that is as it was built.
pub(super) fn impossible(why: &str) -> Fault {
    Fault::new(Code::NetworkPart, format!("join through the join worker: {why}"))
}

fn is_cas(bundle: &str, trust: &Trust) -> bool {
    let Some(certificates) = pin::certificates(bundle) else { return false };
    match trust {
        Trust::Pins(pins) => !pin::pinned(&certificates, pins).is_empty(),
        Trust::Ca(pem) => pin::certificates(pem).is_some_and(|seeds| seeds == certificates),
    }
}
