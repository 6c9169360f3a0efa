// SPDX-License-Identifier: Apache-2.0
//! The bundle's container images, as the runtime knows them.

use super::cri::Cri;
use crate::bundle::installed::Installed;
use crate::fault::{Code, Fault};
use crate::host::Host;
use anyhow::Result;

/// Names of the bundle's images that the runtime does not have.
///
/// # Errors
/// When it does not answer.
pub(crate) fn missing(host: &Host, bundle: &Installed) -> Result<Vec<String>> {
    let cri = Cri::connect(host.sys())?;
    let mut missing = Vec::new();
    for image in &bundle.manifest.images {
        if cri.image(&image.name)?.is_none() {
            missing.push(image.name.clone());
        }
    }
    Ok(missing)
}

/// The fault of a runtime that was given the bundle's state and lacks an image all the same.
pub(crate) fn unknown(name: &str) -> Fault {
    let text = format!("find image {name} in the runtime: the bundle's containerd state has it under another name");
    Fault::new(Code::BundleImageName, text)
}
