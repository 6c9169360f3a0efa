// SPDX-License-Identifier: Apache-2.0
//! What `firstboot-bundle.service` runs on a device with an image of others: see [`initrd::bundle`].

use std::process::ExitCode;

fn main() -> ExitCode {
    match initrd::bundle::mount() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mount-bundle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
