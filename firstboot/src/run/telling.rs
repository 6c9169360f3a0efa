// SPDX-License-Identifier: Apache-2.0
//! What the loop says to people: on the console, on the card and for `firstboot status`.

use super::{Found, Places, image_info, own};
use crate::boot_partition::{BootPartition, STATUS_NAME};
use crate::fault::{Fault, Owner};
use crate::host::{Host, System};
use crate::image::{IMAGE_INFO, ImageInfo};
use crate::phases::LEFT_TO_DO;
use crate::report::{self, Reporter, Status, padded, timestamp, unix_seconds};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A sealed device whose credential is good: it needs no seed, and one that lies there is left alone, with the reason.
pub(super) fn refuse_seed(
    host: &Host,
    image: &ImageInfo,
    until: SystemTime,
    seen: Option<&Found>,
) -> Result<(), Fault> {
    let Some(found) = seen.filter(|found| !found.place.carried) else { return Ok(()) };
    let mut reporter = reporter(host, found, image);
    let node = host.journal().fact("node").unwrap_or_default().to_owned();
    let text = format!(
        "take {}: this device is node {node} and its certificate is good until {}; the file is left alone, remove it",
        found.name,
        timestamp(unix_seconds(until))
    );
    reporter.say(&format!("refused: {text}"));
    reporter.status.state = "joined".into();
    reporter.status.whose_move = Some(format!("{} ({})", Owner::Seed.word(), Owner::Seed.advice()));
    reporter.status.error = Some(text);
    reporter.write();
    Ok(())
}

pub(super) fn describe(image: &ImageInfo) -> String {
    format!("{} built {} ({})", image.target, timestamp(image.build_time), image.build_id)
}

pub(super) fn reporter<'a>(host: &'a Host, found: &Found, image: &ImageInfo) -> Reporter<'a> {
    Reporter::new(host, found.boot.clone(), describe(image))
}

/// Somebody who tells of a device of which it may be that nothing is whole any more.
pub(crate) fn reporter_beside<'a>(host: &'a Host, places: Places<'_>) -> Reporter<'a> {
    let Ok(image) = image_info(host) else { return Reporter::new(host, None, String::new()) };
    let boot = places(&image.boot_label).ok().and_then(|places| own(&places));
    Reporter::new(host, boot, describe(&image))
}

pub(super) fn finished(host: &Host, found: &Found, image: &ImageInfo, until: Option<&str>, started: Duration) {
    let mut reporter = reporter(host, found, image);
    if !host.journal().sealed() {
        reporter.say(&format!("stopped after phase {}, as asked", until.unwrap_or_default()));
        return;
    }
    tell_joined(host, &mut reporter, found.place.carried);
    let node = host.journal().fact("node").unwrap_or_default().to_owned();
    let seed = if found.place.carried { "seed left on its stick" } else { "seed destroyed" };
    let took = host.sys().uptime().saturating_sub(started).as_secs_f64();
    reporter.say(&format!("node {node} is Ready, {seed} ({took:.1} s)"));
    host.sys().notify(&format!("STATUS=node {node} is Ready"));
}

/// The last word about a join.
pub(super) fn tell_joined(host: &Host, reporter: &mut Reporter<'_>, carried: bool) {
    reporter.status.state = "joined".into();
    if carried {
        reporter.status.whose_move =
            Some("you (the stick labelled SEED still holds the token: keep it safe, or delete the token)".into());
    }
    left_to_do(host, reporter);
    reporter.write();
}

/// The same at a later boot, where the power went before it was said: the status would speak of work for ever.
pub(super) fn tell_joined_at_last(host: &Host, image: &ImageInfo, boot: Option<BootPartition>, carried: bool) {
    let said = |last: &Status| {
        let card = boot.as_ref().map(|boot| boot.read(STATUS_NAME).ok().flatten());
        last.state == "joined" && card.is_none_or(|text| text.as_deref() == Some(&padded(&last.text())[..]))
    };
    if !Reporter::last(host).as_ref().is_some_and(said) {
        tell_joined(host, &mut Reporter::new(host, boot, describe(image)), carried);
    }
}

/// A device whose own record cannot be opened, be its root file system read-only, full or worn: that is told all the same.
pub(super) fn without_host(root: &Path, sys: &dyn System, places: Places<'_>, error: anyhow::Error) -> Fault {
    let fault = Fault { owner: Owner::Host, cause: error, retry_after: None };
    let bytes = std::fs::read(root.join(IMAGE_INFO.trim_start_matches('/'))).unwrap_or_default();
    let image = serde_json::from_slice::<ImageInfo>(&bytes).ok();
    let there = image.as_ref().and_then(|image| places(&image.boot_label).ok());
    let shown = image.as_ref().map(describe).unwrap_or_default();
    report::failed_without_host(sys, there.and_then(|there| own(&there)).as_ref(), shown, &fault);
    fault
}

/// What fails outside of any phase is told as well.
pub(super) fn and_told<T>(host: &Host, places: Places<'_>, result: Result<T, Fault>) -> Result<T, Fault> {
    result.inspect_err(|fault| reporter_beside(host, places).failed(None, fault, None))
}

/// Names what an administrator of the cluster has to do for this node: no node may do it itself.
pub(super) fn left_to_do(host: &Host, reporter: &mut Reporter<'_>) {
    let commands: Vec<String> =
        host.journal().fact(LEFT_TO_DO).unwrap_or_default().lines().map(str::to_owned).collect();
    for command in &commands {
        reporter.say(&format!("left for an administrator of the cluster: {command}"));
    }
    reporter.status.left_to_do = commands;
}
