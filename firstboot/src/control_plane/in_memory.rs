// SPDX-License-Identifier: Apache-2.0
//! Files for kubeadm that hold a secret: in memory, and only for as long as kubeadm reads them.

use crate::fault::{Fault, OwnedBy, Owner};
use crate::host::Host;
use anyhow::Result;

/// Where they are.
const RUN: &str = "/run/firstboot";

/// Does `work` with the path of a file that only root can read; the file is gone afterwards, whatever comes of it.
///
/// # Errors
/// That of `work`. The host's, where the file cannot be written or removed.
pub fn with_file<T>(
    host: &Host,
    name: &str,
    text: &str,
    work: impl FnOnce(&str) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let path = format!("{RUN}/{name}");
    let put = || -> Result<()> {
        host.mkdir(RUN, 0o755)?;
        host.write(&path, text.as_bytes(), 0o600)
    };
    put().owned_by(Owner::Host)?;
    let done = work(&path);
    host.remove(&path).owned_by(Owner::Host)?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Code;
    use crate::host::fake::Fake;

    #[test]
    fn a_file_is_there_for_the_work_alone() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let seen = with_file(&host, "x.yaml", "secret", |path| {
            Ok((host.read_utf8(path).unwrap(), host.size_and_mode(path).unwrap().unwrap().1))
        });
        assert_eq!(seen.unwrap(), (Some("secret".to_owned()), 0o600));
        assert!(host.list(RUN).unwrap().is_empty());
        let failed = with_file(&host, "x.yaml", "secret", |_| Err::<(), _>(Fault::new(Code::ControlPlane, "no")));
        assert_eq!(failed.unwrap_err().code, Code::ControlPlane);
        assert!(host.list(RUN).unwrap().is_empty());
    }
}
