// SPDX-License-Identifier: Apache-2.0
//! QEMU's control socket (QMP): one command, one answer. <https://www.qemu.org/docs/master/interop/qmp-spec.html>

use anyhow::{Context, Result, bail};
use imagebuild::cmd::quoted;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(20);

/// An open control connection.
pub struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects and negotiates.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER)).context("set a time limit on the control socket")?;
        let mut qmp = Qmp(BufReader::new(stream));
        if qmp.line()?.get("QMP").is_none() {
            bail!("greet qemu: its answer is no greeting");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; returns what it returned. Events in between are skipped.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}").with_context(|| format!("send {command} to qemu"))?;
        loop {
            let mut answer = self.line().with_context(|| format!("read qemu's answer to {command}"))?;
            if let Some(error) = answer.get("error") {
                bail!("run {command} in qemu: {}", error["desc"].as_str().unwrap_or("no reason given"));
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// From now on reads wait without a limit, for [`event`](Qmp::event).
    pub fn wait_forever(&mut self) -> Result<()> {
        self.0.get_ref().set_read_timeout(None).context("lift the time limit of the control socket")
    }

    /// The next event, as soon as there is one.
    ///
    /// # Errors
    /// When the emulator has ended.
    pub fn event(&mut self) -> Result<Value> {
        loop {
            let line = self.line()?;
            if line.get("event").is_some() {
                return Ok(line);
            }
        }
    }

    /// Bytes that the guest has written to its disk since power-on, whether they were zeros or not.
    ///
    /// # Errors
    /// When there is no disk of this name (`-drive id=`, `-blockdev node-name=`).
    pub fn written(&mut self, disk: &str) -> Result<u64> {
        let all = self.execute("query-blockstats", json!({}))?;
        let ours = |entry: &&Value| entry["device"] == disk || entry["node-name"] == disk;
        let entry = all.as_array().and_then(|all| all.iter().find(ours));
        entry
            .and_then(|entry| entry["stats"]["wr_bytes"].as_u64())
            .with_context(|| format!("find statistics of {disk}"))
    }

    /// The 32 bits at a physical address of the guest, which may be a register.
    ///
    /// # Errors
    /// When there is nothing at that address.
    pub fn word_at(&mut self, address: u64) -> Result<u32> {
        let line = format!("xp /1wx {address:#x}");
        let said = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        // `000000003f100020: 0x00001005`
        let value = said.as_str().and_then(|text| text.trim().split_once(": 0x"));
        let value = value.and_then(|(_, digits)| u32::from_str_radix(digits, 16).ok());
        value.with_context(|| format!("read the guest's memory at {address:#x}: qemu says {said}"))
    }

    /// Begins to write the guest's memory and its devices to a file. The guest has to be paused.
    pub fn send(&mut self, memory: &Path) -> Result<()> {
        // By default no faster than a network of a gigabit.
        self.execute("migrate-set-parameters", json!({ "max-bandwidth": u64::from(u32::MAX) * 8 }))?;
        // QEMU 8.2 has file:, the ones before do not.
        self.execute("migrate", json!({ "uri": format!("exec:cat >{}", quoted(&memory.display().to_string())) }))
            .map(drop)
    }

    /// Begins to read what [`send`](Qmp::send) wrote, into an emulator that was started to wait for it.
    pub fn receive(&mut self, memory: &Path) -> Result<()> {
        self.execute(
            "migrate-incoming",
            json!({ "uri": format!("exec:cat {}", quoted(&memory.display().to_string())) }),
        )
        .map(drop)
    }

    /// Whether all of it is written or read.
    ///
    /// # Errors
    /// When that failed.
    pub fn transferred(&mut self) -> Result<Option<()>> {
        let state = self.execute("query-migrate", json!({}))?;
        match state["status"].as_str() {
            Some("completed") => Ok(Some(())),
            Some("failed" | "cancelled") => {
                bail!("copy a guest's memory: {}", state["error-desc"].as_str().unwrap_or("no reason given"))
            }
            _ => Ok(None),
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line).context("read qemu's control socket")? == 0 {
            bail!("read qemu's control socket: it was closed");
        }
        serde_json::from_str(&line).context("parse a line of qemu's control socket")
    }
}
