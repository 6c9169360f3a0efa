// SPDX-License-Identifier: Apache-2.0
//! The program of the approver's image: `imagebuild approver run` in a pod, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    match imagebuild::approver::in_cluster() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("approver: {error:#}");
            ExitCode::FAILURE
        }
    }
}
