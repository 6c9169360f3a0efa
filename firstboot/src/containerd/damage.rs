// SPDX-License-Identifier: Apache-2.0
//! What tells a damaged state of containerd from a runtime that is only slow, stopped or set up wrongly: systemd, containerd's
//! own fatal messages of this boot, and what is on the disk of the bundle's images. Only looks.
//!
//! Nothing counts that a pod's author, a registry or a client of the runtime can make: their images, their blobs, and the
//! names, addresses and answers of theirs that containerd logs.

use super::{RUNTIME, prepared};
use crate::bundle::{BUNDLE_DIR, Manifest};
use crate::host::Host;
use crate::paths::CONTAINERD_ROOT;
use anyhow::Result;

/// What bbolt says when it finds its file torn, at the end of an error (go.etcd.io/bbolt, errors.go and db.go).
const TORN: [&str; 3] = ["invalid database", "checksum error", "file size too small"];
/// A line of the stack of a panic, which nothing indents or quotes.
const STACK: &str = "go.etcd.io/bbolt.";
/// How the names of containerd's plugins begin, several of which keep a data base. They are compiled in.
const PLUGIN: &str = "io.containerd.";
/// The key of the view by which containerd is asked for a layer; containerd collects one that is left over.
const VIEW: &str = "firstboot-pause";
/// So many starts by systemd after the first are no accident.
const RESTARTS: u32 = 2;

/// What systemd says of containerd.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Runs,
    Starts,
    /// It ended, and systemd keeps starting it.
    Fails,
    Stopped,
}

impl Unit {
    pub(crate) fn asked(host: &Host) -> Result<Unit> {
        // A question, and no effect.
        let said = host.sys().run(&["systemctl", "show", "--property=ActiveState,NRestarts", RUNTIME], None)?;
        let value = |key: &str| said.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
        let restarts: u32 = value("NRestarts").parse().unwrap_or(0);
        Ok(match value("ActiveState") {
            "active" | "reloading" => Unit::Runs,
            // One that says nothing has no such unit.
            "inactive" | "failed" | "" => Unit::Stopped,
            _ if restarts >= RESTARTS => Unit::Fails,
            _ => Unit::Starts,
        })
    }
}

/// What containerd has logged in this boot; nothing where there is no log.
fn log(host: &Host) -> String {
    let log =
        ["journalctl", "--quiet", "--no-pager", "--boot", "--unit=containerd.service", "--output=cat", "--lines=2000"];
    host.sys().run(&log, None).unwrap_or_default()
}

/// Why containerd's state is damaged, by its own word in this boot.
pub(crate) fn sign(host: &Host) -> Option<String> {
    log(host).lines().find_map(fatal).map(|sign| format!("it says \"{sign}\""))
}

/// What a line of the log says of a torn data base: in a message by which containerd ends, or goes on without the plugin that
/// keeps it, or in the stack of a panic.
fn fatal(line: &str) -> Option<&'static str> {
    if line.starts_with(STACK) {
        return Some(STACK.trim_end_matches('.'));
    }
    // What main.go prints before it ends.
    if let Some(error) = line.strip_prefix("containerd: ") {
        return torn(error);
    }
    // Any other line without a time is not of containerd's logger.
    let value = |key: &str| fields(line).find(|(k, _)| *k == key).map(|(_, value)| value);
    value("time")?;
    let (level, error) = (value("level")?, value("error"));
    let plugin = value("msg") == Some("failed to load plugin") && value("id").is_some_and(|id| id.starts_with(PLUGIN));
    match level {
        "fatal" | "panic" => error.or_else(|| value("msg")).and_then(torn),
        "warning" | "error" if plugin => error.and_then(torn),
        _ => None,
    }
}

/// What bbolt said, where that is the cause of an error: its last part.
fn torn(error: &str) -> Option<&'static str> {
    let cause = error.rsplit(": ").next().unwrap_or(error);
    // `file size too small 100`
    TORN.into_iter()
        .find(|sign| cause.strip_prefix(sign).is_some_and(|r| r.bytes().all(|b| b" 0123456789".contains(&b))))
}

/// The fields of a line of logrus's text format (TextFormatter.printColored is never used: the output is no terminal). A
/// value that is not a plain word is quoted, and quotation marks in it are escaped, so no value holds another field.
fn fields(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (key, value) = rest.trim_start().split_once('=')?;
        let end = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                1 + quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?
            }
            None => value.find(' ').unwrap_or(value.len()),
        };
        let (found, after) = value.split_at(end);
        rest = after.strip_prefix('"').unwrap_or(after);
        Some((key, found.strip_prefix('"').unwrap_or(found)))
    })
}

/// Where containerd keeps blobs, below its directory.
const BLOBS: &str = "io.containerd.content.v1.content/blobs/sha256";
/// Where the overlayfs snapshotter keeps directories of layers, below it.
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Why the state of a runtime that answers is to blame for the images of the bundle that it lacks, or for pods that do not
/// start. None where a person has removed an image: its blobs are then gone as well.
pub(crate) fn of_images(host: &Host, bundle: &Manifest, missing: &[String]) -> Result<Option<String>> {
    if !missing.is_empty() && missing.len() == bundle.images.len() {
        return Ok(Some("it knows no image of the bundle".to_owned()));
    }
    let lost = bundle.images.iter().filter(|image| missing.contains(&image.name));
    for blob in lost.flat_map(|image| &image.content) {
        let found = host.read(&format!("{CONTAINERD_ROOT}/{BLOBS}/{blob}"))?;
        // Other images' blobs are other programs' data, and are not read.
        if found.is_some() && found != host.read(&format!("{}/{BLOBS}/{blob}", prepared::template()))? {
            return Ok(Some(format!("blob {blob} is damaged")));
        }
    }
    lost_pause(host, bundle)
}

/// Why no pod starts, where the runtime knows the pause image: its layer is gone with the snapshotter's data base, or is not
/// in this image's bundle any more. Only the layer that containerd has for the bundle's own pause image counts, by the
/// digest of its content. It is asked for that only where no snapshot has the names that the bundle's layer has.
pub(crate) fn lost_pause(host: &Host, bundle: &Manifest) -> Result<Option<String>> {
    let pause = bundle.images.iter().find(|image| image.name == bundle.sandbox_image);
    let Some((pause, top)) = pause.and_then(|pause| Some((pause, pause.layers.last()?))) else { return Ok(None) };
    let directory = format!("{CONTAINERD_ROOT}/{SNAPSHOTS}");
    let names = host.list(&format!("{BUNDLE_DIR}/layers/{top}"))?;
    for snapshot in host.list(&directory)? {
        if !names.is_empty() && host.list(&format!("{directory}/{snapshot}/fs"))? == names {
            return Ok(None);
        }
    }
    Ok(match layer_of(host, &pause.chain_id) {
        Layer::At(layer) if layer.starts_with(&directory) && host.list(&layer)?.is_empty() => {
            Some(format!("the pause image's layer {layer} is empty"))
        }
        Layer::Gone => Some("the pause image's layer is gone".to_owned()),
        Layer::Torn(sign) => Some(format!("it says \"{sign}\"")),
        Layer::At(_) | Layer::Unknown => None,
    })
}

/// Where a layer is.
enum Layer {
    At(String),
    Gone,
    /// The data base that says so is torn.
    Torn(&'static str),
    /// containerd does not say, or not in words that are known.
    Unknown,
}

/// Asks containerd's snapshotter for the directory of a layer. That takes a read-only view of it, which is removed again:
/// nothing else tells where a layer is. A view is no effect on this device: containerd collects what is left over.
fn layer_of(host: &Host, chain_id: &str) -> Layer {
    let head = ["/usr/bin/ctr", "--namespace", "k8s.io", "--timeout", "10s", "snapshots", "--snapshotter", "overlayfs"];
    let run = |tail: &[&str]| host.sys().run(&[&head, tail].concat(), None);
    // Of an earlier boot that was cut off here.
    let _ = run(&["remove", VIEW]);
    let said = run(&["view", "--target", "/", VIEW, chain_id]);
    let _ = run(&["remove", VIEW]);
    match said {
        // `mount -t bind DIRECTORY / -o ro,rbind`
        Ok(text) => text.split_whitespace().nth(3).map_or(Layer::Unknown, |layer| Layer::At(layer.to_owned())),
        Err(error) => {
            let text = format!("{error:#}");
            let gone = text.ends_with(&format!("parent snapshot {chain_id} does not exist: not found"));
            match torn(&text) {
                Some(sign) => Layer::Torn(sign),
                None if gone => Layer::Gone,
                None => Layer::Unknown,
            }
        }
    }
}

/// Why a runtime that does not answer has to be set aside; none where nothing says that its state is to blame.
pub(crate) fn damage(host: &Host) -> Result<Option<String>> {
    Ok(match Unit::asked(host)? {
        Unit::Runs | Unit::Fails => sign(host),
        Unit::Starts | Unit::Stopped => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What containerd 2.4 logged with a data base that was cut short, and lines of other versions of the same message.
    #[test]
    fn its_own_fatal_messages_are_known() {
        let time = "time=\"2026-11-28T17:57:45.861484860Z\"";
        for (line, sign) in [
            (
                format!(
                    "{time} level=warning msg=\"failed to load plugin\" error=\"invalid database\" \
                     id=io.containerd.metadata.v1.bolt type=io.containerd.metadata.v1"
                ),
                "invalid database",
            ),
            (
                format!(
                    "{time} level=error msg=\"failed to load plugin\" error=\"open: \\\"x\\\": checksum error\" \
                     id=io.containerd.snapshotter.v1.overlayfs type=io.containerd.snapshotter.v1"
                ),
                "checksum error",
            ),
            (format!("{time} level=fatal msg=\"run CRI\" error=\"file size too small 100\""), "file size too small"),
            ("containerd: load required plugin x: checksum error".to_owned(), "checksum error"),
            ("go.etcd.io/bbolt.(*Tx).page(0xbc131a4b9a0?, 0xbc131db8600?)".to_owned(), "go.etcd.io/bbolt"),
        ] {
            assert_eq!(fatal(&line), Some(sign), "{line}");
        }
        // The same error of another plugin, one without a time, and one whose cause is another.
        for line in [
            format!("{time} level=warning msg=\"failed to load plugin\" error=\"invalid database\" id=example"),
            "level=fatal error=\"checksum error\"".to_owned(),
            format!("{time} level=fatal error=\"checksum error: no space left on device\""),
            format!("{time} level=fatal error=\"checksum errors\""),
        ] {
            assert_eq!(fatal(&line), None, "{line}");
        }
    }

    #[test]
    fn s06_a_value_holds_no_other_field() {
        let line = r#"a=1 b="x level=fatal \"c=2\" \\" d="" e=z"#;
        let found: Vec<_> = fields(line).collect();
        assert_eq!(found, [("a", "1"), ("b", r#"x level=fatal \"c=2\" \\"#), ("d", ""), ("e", "z")]);
        assert_eq!(fields("a=\"open level=fatal").count(), 0);
        assert_eq!(fields("no field").count(), 0);
    }
}
