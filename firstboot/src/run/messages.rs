// SPDX-License-Identifier: Apache-2.0
//! What the loop says to people: on the console, on the card and for `firstboot status`.

use super::facts::DeviceFacts;
use super::seed_file::SeedFile;
use crate::boot_partition::{BootPartition, SeedLocator};
use crate::containerd::repair::Progress;
use crate::fault::{Code, Fault};
use crate::host::Host;
use crate::image::ImageInfo;
use crate::journal::facts::Fact;
use crate::node::kubelet_serving_cert::{self, APPROVE};
use crate::phases::seal::seeds_destroyed;
use crate::report::{Facts, Reporter, describe, reporter_with};
use crate::status::{STATUS_NAME, State, Status, padded};
use crate::text::{timestamp, unix_seconds};
use std::time::{Duration, SystemTime};

/// A sealed device whose credential is good: it needs no seed, and one that is there is left alone, with the reason.
pub(super) fn refuse_seeds(
    host: &Host,
    image: &ImageInfo,
    until: SystemTime,
    seen: Option<&SeedFile>,
    refused: Option<&(SeedFile, Fault)>,
) -> Result<(), Fault> {
    if let Some(found) = seen.filter(|found| !found.place.removable) {
        let node = host.journal().fact(Fact::Node).unwrap_or_default().to_owned();
        let text = format!(
            "take {}: this device is node {node} and its certificate is good until {}; the file is left alone, remove it",
            found.name,
            timestamp(unix_seconds(until))
        );
        report_refusal(host, image, found, &Fault::new(Code::SeedNotTaken, text));
    } else if let Some((found, fault)) = refused {
        report_refusal(host, image, found, fault);
    }
    Ok(())
}

/// A seed on a node that works, which is left alone for this reason.
pub(super) fn report_refusal(host: &Host, image: &ImageInfo, found: &SeedFile, fault: &Fault) {
    reporter(host, found, image).refuses(fault);
}

pub(super) fn reporter<'a>(host: &'a Host, found: &SeedFile, image: &ImageInfo) -> Reporter<'a> {
    reporter_at(host, found.boot.clone(), image)
}

/// One that writes to this boot partition, if there is one.
pub(super) fn reporter_at<'a>(host: &'a Host, boot: Option<BootPartition>, image: &ImageInfo) -> Reporter<'a> {
    Reporter::new(host, &DeviceFacts, boot, describe(image))
}

/// How the repair of the runtime goes on, as the status has it.
pub(crate) fn report_repair(host: &Host, places: SeedLocator<'_>, progress: &Progress<'_>) {
    let mut reporter = reporter_with(host, &DeviceFacts, places);
    reporter.status.state = match progress {
        Progress::Begun => State::Working,
        Progress::Rebuilt => State::Joined,
        Progress::Failed(fault) => return reporter.failed(None, fault, None),
    };
    reporter.write();
}

pub(super) fn finished(host: &Host, found: &SeedFile, image: &ImageInfo, until: Option<&str>, started: Duration) {
    let mut reporter = reporter(host, found, image);
    if !host.journal().sealed() {
        reporter.say(&format!("stopped after phase {}, as asked", until.unwrap_or_default()));
        return;
    }
    report_join(host, &mut reporter, found.place.removable);
    let node = host.journal().fact(Fact::Node).unwrap_or_default().to_owned();
    let seed = match (found.place.removable, seeds_destroyed(host)) {
        (true, _) => "seed left on its stick".to_owned(),
        (false, 0) => "seed destroyed".to_owned(),
        (false, count) => format!("{count} seeds destroyed"),
    };
    let took = host.sys().uptime().saturating_sub(started).as_secs_f64();
    reporter.say(&format!("node {node} is Ready, {seed} ({took:.1} s)"));
    host.sys().notify(&format!("STATUS=node {node} is Ready"));
}

/// The last word about a join.
pub(super) fn report_join(host: &Host, reporter: &mut Reporter<'_>, removable: bool) {
    reporter.status.state = State::Joined;
    if removable {
        reporter.status.advice =
            Some("keep the stick labelled SEED safe, or delete the token: the stick still holds it".into());
    }
    manual_steps(host, reporter);
    reporter.write();
}

/// The same at a later boot, where the power went before it was said, or a seed was refused that is gone: the status would
/// speak of that for ever. `before` is the status at the start of this process: one that was written since is about a stick
/// that is there now (run/stick.rs).
pub(super) fn report_late_join(
    host: &Host,
    image: &ImageInfo,
    boot: Option<BootPartition>,
    removable: bool,
    before: Option<&Status>,
) {
    let said = |last: &Status| {
        let card = boot.as_ref().map(|boot| boot.read(STATUS_NAME).ok().flatten());
        let warned = DeviceFacts.warnings(host).iter().all(|warning| last.warnings.contains(warning));
        let card_tells = |text: Option<Vec<u8>>| text.as_deref() == Some(&padded(&last.text())[..]);
        let stale = last.code.is_some() && before == Some(last);
        last.state == State::Joined && !stale && warned && card.is_none_or(card_tells)
    };
    if !Reporter::last(host).as_ref().is_some_and(said) {
        report_join(host, &mut reporter_at(host, boot, image), removable);
    }
}

/// Names what an administrator of the cluster has to do for this node: no node may do it itself.
pub(super) fn manual_steps(host: &Host, reporter: &mut Reporter<'_>) {
    let signed = kubelet_serving_cert::is_signed(host).unwrap_or(false);
    let mut commands: Vec<String> = host.journal().lines(Fact::ManualSteps);
    commands.retain(|command| !signed || !command.starts_with(APPROVE));
    for command in &commands {
        reporter.say(&format!("left for an administrator of the cluster: {command}"));
    }
    reporter.status.manual_steps = commands;
}
