// SPDX-License-Identifier: Apache-2.0
//! Waits until the container runtime answers on CRI.

use super::cri::Cri;
use super::damage::damage;
use crate::fault::{Code, Fault, OwnedBy};
use crate::host::Host;
use anyhow::{Context, Result};
use std::time::Duration;

/// How long it may take to start, on an empty directory, too.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two questions whether it answers, and between two looks whether its state is damaged.
const INTERVAL: Duration = Duration::from_millis(50);

const LOOK: Duration = Duration::from_secs(5);

const SILENT: &str = "wait for containerd, see journalctl -u containerd";

/// Waits until it answers; or why it never will.
pub(crate) fn answer_or_damage(host: &Host) -> Result<Option<String>> {
    let mut next = host.sys().uptime() + LOOK;
    wait_for(host, INTERVAL, || match answers(host) {
        Ok(()) => Ok(None),
        Err(silent) if host.sys().uptime() < next => Err(silent),
        Err(silent) => {
            next = host.sys().uptime() + LOOK;
            damage(host)?.map(Some).ok_or(silent)
        }
    })
}

/// Waits until it answers.
pub(crate) fn wait(host: &Host) -> Result<()> {
    wait_for(host, INTERVAL, || answers(host))
}

/// Waits until it has an answer to what is asked every `interval`; then gives it.
pub(crate) fn wait_for<T>(host: &Host, interval: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = None;
    let answered = host.wait(LIMIT, interval, || match ask() {
        Ok(answer) => Ok(Some(answer)),
        Err(e) => {
            last = Some(e);
            Ok(None)
        }
    })?;
    match (answered, last) {
        (Some(answer), _) => Ok(answer),
        (None, Some(last)) => Ok(Err(last).context(SILENT).coded(Code::ContainerdDown)?),
        (None, None) => Err(Fault::new(Code::ContainerdDown, SILENT).into()),
    }
}

pub(crate) fn answers(host: &Host) -> Result<()> {
    Cri::connect(host.sys())?.ready()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    /// A machine whose containerd never answers: what systemd and its log say of it.
    fn silent(unit: &'static str, log: &'static str) -> (Result<Option<String>>, Duration) {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new().0.sockets_below(dir.path()).answering(move |argv| match argv[0] {
            "systemctl" => Some(Ok(unit.to_owned())),
            "journalctl" => Some(Ok(log.to_owned())),
            _ => None,
        });
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let found = answer_or_damage(&host);
        (found, host.sys().uptime())
    }

    #[test]
    fn a_damaged_runtime_is_not_waited_for_and_a_slow_one_is() {
        let (found, waited) =
            silent("ActiveState=activating\nNRestarts=3\n", "time=\"x\" level=fatal error=\"checksum error\"");
        assert_eq!((found.unwrap().as_deref(), waited), (Some("it says \"checksum error\""), LOOK));
        let (found, waited) = silent("ActiveState=activating\nNRestarts=0\n", "level=info msg=starting");
        assert!(found.unwrap_err().to_string().starts_with(SILENT));
        assert_eq!(waited, LIMIT);
    }
}
