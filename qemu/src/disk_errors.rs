// SPDX-License-Identifier: Apache-2.0
//! Errors of the build machine while it reads or writes a guest's disk: they are kept from the guest.
//!
//! The disk is attached with `werror=stop,rerror=stop`: when the build machine refuses a read or a write, QEMU pauses the
//! guest and sends the event `BLOCK_IO_ERROR` with the reason. The request is repeated when the guest goes on, so a
//! shortage that passes costs a second, and no test fails for an error that no device had.
//! <https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html>

use crate::qmp::Qmp;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a guest goes on after an error before its device counts as failed.
const REPEATS: usize = 60;
/// Between an error and the repetition of its request.
const PAUSE: Duration = Duration::from_secs(1);

/// What a thread has heard from a running emulator about its disks. The thread ends with the emulator.
pub struct DiskErrors(Arc<Mutex<Option<String>>>);

impl DiskErrors {
    /// Listens on `socket`, a control socket that is used for nothing else. With `repeat`, the request is repeated after
    /// an error; otherwise the first one is final, because a recording cannot hold a request twice.
    pub fn listen(socket: &Path, repeat: bool) -> Result<Self> {
        let mut qmp = Qmp::connect(socket)?;
        qmp.wait_forever()?;
        let last = Arc::new(Mutex::new(None));
        let heard = last.clone();
        std::thread::spawn(move || {
            let mut left = if repeat { REPEATS } else { 0 };
            // An error is the end of the emulator.
            while let Ok(event) = qmp.event() {
                let Some(reason) = reason(&event) else { continue };
                if left == 0 {
                    *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    return;
                }
                left -= 1;
                println!("the build machine refused a guest's disk: {reason}; the request is repeated");
                std::thread::sleep(PAUSE);
                if qmp.execute("cont", json!({})).is_err() {
                    return;
                }
            }
        });
        Ok(DiskErrors(last))
    }

    /// An error when the build machine refused the disk for good.
    pub fn check(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(reason) => bail!("keep the device running: the build machine refused its disk: {reason}"),
            None => Ok(()),
        }
    }
}

/// What was refused and why, when this event says so.
fn reason(event: &Value) -> Option<String> {
    if event["event"] != "BLOCK_IO_ERROR" {
        return None;
    }
    let data = &event["data"];
    let text = |key: &str| data[key].as_str().unwrap_or("unknown").to_owned();
    Some(format!("{} of {}: {}", text("operation"), text("node-name"), text("reason")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    const REFUSED: &str = r##"{"event": "BLOCK_IO_ERROR", "data": {"device": "disk", "node-name": "#block1", "operation": "write", "action": "stop", "reason": "Input/output error"}}"##;

    /// An emulator that greets, refuses two writes and ends; returns what it was asked.
    fn emulator(listener: UnixListener, answers: bool) -> Vec<String> {
        let (stream, _) = listener.accept().unwrap();
        let mut out: UnixStream = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream).lines();
        let mut asked = Vec::new();
        writeln!(out, r#"{{"QMP": {{}}}}"#).unwrap();
        asked.push(lines.next().unwrap().unwrap());
        writeln!(out, r#"{{"return": {{}}}}"#).unwrap();
        for _ in 0..2 {
            writeln!(out, r#"{{"event": "STOP"}}"#).unwrap();
            writeln!(out, "{REFUSED}").unwrap();
            if answers {
                asked.push(lines.next().unwrap().unwrap());
                writeln!(out, r#"{{"return": {{}}}}"#).unwrap();
            }
        }
        asked
    }

    fn listening(repeat: bool) -> (DiskErrors, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("events");
        let listener = UnixListener::bind(&socket).unwrap();
        let emulator = std::thread::spawn(move || emulator(listener, repeat));
        let errors = DiskErrors::listen(&socket, repeat).unwrap();
        (errors, emulator.join().unwrap())
    }

    #[test]
    fn a_guest_goes_on_after_an_error() {
        let (errors, asked) = listening(true);
        errors.check().unwrap();
        let asked: Vec<Value> = asked.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let commands: Vec<&str> = asked.iter().map(|a| a["execute"].as_str().unwrap()).collect();
        assert_eq!(commands, ["qmp_capabilities", "cont", "cont"]);
    }

    #[test]
    fn a_recorded_guest_does_not() {
        let (errors, asked) = listening(false);
        assert_eq!(asked.len(), 1);
        let error =
            crate::wait::until("an error", Duration::from_secs(20), || Ok(errors.check().err())).unwrap().to_string();
        assert_eq!(
            error,
            "keep the device running: the build machine refused its disk: write of #block1: Input/output error"
        );
    }
}
