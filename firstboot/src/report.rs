// SPDX-License-Identifier: Apache-2.0
//! Messages for people: console lines, the status file on the boot partition, `firstboot status`.
//!
//! The one place that prints. Nothing here ever sees a secret.

use crate::boot_partition::{BootPartition, SeedLocator, internal_partition};
use crate::fault::{Fault, Owner};
use crate::host::kept::STATUS;
use crate::host::{Field, Host};
use crate::image::ImageInfo;
use crate::journal::facts::Fact;
use crate::leds::{self, Light};
use crate::status::{STATUS_FILE, STATUS_FOR_ALL, STATUS_NAME, State, Status, Versions, next_try, padded};
use crate::status_page::{HTML_NAME, html_file};
use crate::text::{one_line, timestamp, unix_seconds};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// Shows the last status to accounts that may not read firstboot's directory, and by lights, at a later boot: that of a
/// sealed device writes nothing to its disk.
///
/// # Errors
/// When a file cannot be read or written.
pub fn show_again(host: &Host) -> Result<()> {
    let Some(json) = host.read_kept(STATUS_FILE).bytes else { return Ok(()) };
    host.write(STATUS_FOR_ALL, &json, 0o644)?;
    // One that is torn is written again as soon as there is something to tell.
    if let Ok(status) = serde_json::from_slice(&json) {
        leds::update(host, &lights(host), Light::of(&status));
    }
    Ok(())
}

/// Lights that the image names.
fn lights(host: &Host) -> Vec<String> {
    ImageInfo::read(host).map(|image| image.leds).unwrap_or_default()
}

/// What a status says of a device besides how far it is. The reporter is given it, for it is gathered from parts that
/// themselves report.
pub trait Facts {
    /// Where the seed has this host more open than others, one line each.
    fn exceptions(&self, host: &Host) -> Vec<String>;
    /// Which version of what the image brings.
    fn versions(&self, host: &Host) -> Versions;
    /// How many seeds were destroyed with the join, where the card had more than one; else 0.
    fn seeds_destroyed(&self, host: &Host) -> usize;
    /// Until when the node's certificate is good, seconds since 1970 UTC; none before it has one.
    fn certificate_until(&self, host: &Host) -> Option<u64>;
    /// Warnings besides those of the preflight checks, one line each.
    fn warnings(&self, host: &Host) -> Vec<String>;
}

/// Tells people; keeps the status while it changes.
pub struct Reporter<'a> {
    host: &'a Host,
    facts: &'a dyn Facts,
    boot: Option<BootPartition>,
    lights: Vec<String>,
    /// What was reported last, perhaps by the process before: since when it has been so.
    last: Status,
    /// The status as last reported.
    pub status: Status,
}

impl<'a> Reporter<'a> {
    /// A reporter that writes to the boot partition, if there is one.
    pub fn new(host: &'a Host, facts: &'a dyn Facts, boot: Option<BootPartition>, image: String) -> Self {
        let (exceptions, versions) = (facts.exceptions(host), facts.versions(host));
        let status = Status { image, exceptions, versions, ..Status::default() };
        // Without it only the time is lost since when it has been so.
        Reporter { host, facts, boot, lights: lights(host), last: Self::last(host).unwrap_or_default(), status }
    }

    /// What was reported last, perhaps by the process before; none where that is torn.
    pub(crate) fn last(host: &Host) -> Option<Status> {
        serde_json::from_slice(&host.read_kept(STATUS_FILE).bytes?).ok()
    }

    /// Notes the time when it has come to another place.
    fn note_since(&mut self) {
        let same = self.last.since > 0 && self.last.place() == self.status.place();
        self.status.since = if same { self.last.since } else { unix_seconds(self.host.now()) };
        self.last = self.status.clone();
    }

    /// Says one line on the console; the log has node and phase beside it.
    pub fn say(&self, line: &str) {
        self.say_with(line, &[]);
    }

    /// The same with more fields. Their names are in docs/operations.md.
    fn say_with(&self, line: &str, more: &[Field<'_>]) {
        let node = self.host.journal().fact(Fact::Node).unwrap_or_default().to_owned();
        let phase = self.status.phase.as_deref().and_then(|phase| phase.split(' ').next_back()).unwrap_or_default();
        let mut fields = vec![("FIRSTBOOT_NODE", node.as_str()), ("FIRSTBOOT_PHASE", phase)];
        fields.extend_from_slice(more);
        fields.retain(|(_, value)| !value.is_empty());
        self.host.sys().say_with(&format!("firstboot: {line}"), &fields);
    }

    /// A phase begins.
    pub fn begins(&mut self, number: usize, of: usize, phase: &str) {
        self.status.state = State::Working;
        self.status.phase = Some(format!("{number}/{of} {phase}"));
        self.status.next_try_seconds = None;
        self.note_since();
        leds::update(self.host, &self.lights, Light::of(&self.status));
        self.host.sys().notify(&format!("STATUS=phase {number}/{of} {phase}"));
    }

    /// A phase holds.
    pub fn holds(&mut self, number: usize, of: usize, phase: &str, took: Option<Duration>) {
        if let Some(took) = took {
            let seconds = format!("{:.2}", took.as_secs_f64());
            self.say_with(&format!("phase {number}/{of} {phase} done {seconds} s"), &[("FIRSTBOOT_SECONDS", &seconds)]);
            self.clear_fault();
        }
    }

    /// Nothing is wrong any more.
    pub fn clear_fault(&mut self) {
        self.status.clear_fault();
    }

    /// Something failed; `next` is when it is tried again, if it is.
    pub fn failed(&mut self, phase: Option<(usize, usize, &str)>, fault: &Fault, next: Option<Duration>) {
        let error = one_line(&fault.to_string());
        let at = phase.map_or_else(String::new, |(n, of, p)| format!("phase {n}/{of} {p} "));
        let then = match (next, fault.owner()) {
            (Some(next), _) => format!("next try {}", next_try(next.as_secs(), unix_seconds(self.host.now()))),
            (None, Owner::Seed) => "waiting for a changed seed".to_owned(),
            (None, _) => STOPPED.to_owned(),
        };
        self.status.state = if next.is_some() { State::Retrying } else { State::Stopped };
        self.status.phase = phase.map(|(n, of, p)| format!("{n}/{of} {p}"));
        // Priority 3 is an error, 4 a warning: what is tried again may heal by itself.
        let priority = if next.is_some() { "4" } else { "3" };
        self.say_fault(&format!("{at}failed ({}): {error}; {then}", fault.tag()), fault, priority);
        self.status.show_fault(fault);
        self.status.next_try_seconds = next.map(|n| n.as_secs());
        self.write();
    }

    /// A seed is needed, for the reason in `fault`.
    pub(crate) fn waits(&mut self, fault: &Fault) {
        self.say_fault(&format!("waiting for a seed ({}): {fault}", fault.tag()), fault, "6");
        self.status.state = State::Waiting;
        self.status.show_fault(fault);
        self.write();
    }

    /// A seed was found on a node that works, and is left alone for the reason in `fault`.
    pub(crate) fn refuses(&mut self, fault: &Fault) {
        self.say_fault(&format!("refused ({}): {fault}", fault.tag()), fault, "4");
        self.status.state = State::Joined;
        self.status.show_fault(fault);
        self.write();
    }

    /// Says a line about a fault, whose parts the log has beside it.
    fn say_fault(&self, line: &str, fault: &Fault, priority: &str) {
        let error = one_line(&fault.to_string());
        let fields = [
            ("FIRSTBOOT_OWNER", fault.owner().word()),
            ("FIRSTBOOT_CODE", fault.code.as_str()),
            ("FIRSTBOOT_ERROR", error.as_str()),
            ("PRIORITY", priority),
        ];
        self.say_with(line, &fields);
    }

    /// Writes the status to the boot partition and for `firstboot status`. What fails here is said on the console
    /// and does not stop the work: a card that cannot be written must not keep a node from joining.
    pub fn write(&mut self) {
        self.note_since();
        // First: it works where nothing can be written any more.
        leds::update(self.host, &self.lights, Light::of(&self.status));
        self.status.written = unix_seconds(self.host.now());
        self.status.certificate_until = self.facts.certificate_until(self.host);
        self.status.seeds_destroyed = self.facts.seeds_destroyed(self.host);
        self.status.node = self.host.journal().fact(Fact::Node).map(str::to_owned);
        self.status.phases = self.host.journal().seconds();
        let warnings = self.host.journal().fact(Fact::Warnings).unwrap_or_default().to_owned();
        self.status.warnings = warnings.lines().map(str::to_owned).chain(self.facts.warnings(self.host)).collect();
        if let Err(error) = self.write_files() {
            self.say(&format!("status not written: {error:#}"));
        }
    }

    fn write_files(&self) -> Result<()> {
        let json = serde_json::to_vec(&self.status).context("encode the status")?;
        // Each for itself: where a disk is full or read-only, the card still tells. And the card first: what is kept on
        // the disk says that it was reported.
        let on_card = self
            .boot
            .as_ref()
            .map_or(Ok(()), |boot| self.host.change_boot("write", STATUS_NAME, || self.write_card(boot)));
        let on_disk = [self.host.keep(STATUS, &json), self.host.write(STATUS_FOR_ALL, &json, 0o644)];
        let failed: Vec<String> =
            std::iter::once(on_card).chain(on_disk).filter_map(|r| r.err().map(|e| format!("{e:#}"))).collect();
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }
}

impl Reporter<'_> {
    /// The text and the page on the boot partition. A card of an older image has no page, and gets none: a new file would
    /// change its directory.
    fn write_card(&self, boot: &BootPartition) -> Result<()> {
        boot.write(STATUS_NAME, &padded(&self.status.text()))?;
        match boot.list()?.iter().any(|name| name.eq_ignore_ascii_case(HTML_NAME)) {
            true => boot.write(HTML_NAME, &html_file(&self.status)),
            false => Ok(()),
        }
    }
}

/// What is done about a fault that only a person can do anything about.
const STOPPED: &str = "stopped";

/// Target, build time and build id of the image, for people.
pub(crate) fn describe(image: &ImageInfo) -> String {
    format!("{} built {} ({})", image.target, timestamp(image.build_time), image.build_id)
}

/// A reporter for a device on which any file may be damaged.
pub(crate) fn reporter_with<'a>(host: &'a Host, facts: &'a dyn Facts, places: SeedLocator<'_>) -> Reporter<'a> {
    let Ok(image) = ImageInfo::read(host) else { return Reporter::new(host, facts, None, String::new()) };
    let boot = places(&image.boot_label).ok().and_then(|places| internal_partition(&places));
    Reporter::new(host, facts, boot, describe(&image))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Code;
    use crate::host::fake::Fake;
    use crate::status::STATUS_SIZE;
    use std::time::SystemTime;

    /// A device of which there is nothing more to say.
    struct Nothing;

    impl Facts for Nothing {
        fn seeds_destroyed(&self, _: &Host) -> usize {
            0
        }
        fn exceptions(&self, _: &Host) -> Vec<String> {
            Vec::new()
        }

        fn versions(&self, _: &Host) -> Versions {
            Versions::default()
        }

        fn certificate_until(&self, _: &Host) -> Option<u64> {
            None
        }

        fn warnings(&self, _: &Host) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn a_fault_reads_as_a_person_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let (fake, seen) = Fake::new();
        seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_392_000)));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        let mut reporter = Reporter::new(&host, &Nothing, None, "generic-amd64".into());
        let fault = Fault::new(Code::ConnectionRefused, "connect to 10.0.0.1:6443: connection refused");
        let warnings = "Memory: 512 MiB of memory leave little for pods".to_owned();
        host.record(crate::journal::Record::Fact { name: Fact::Warnings, value: warnings }).unwrap();
        reporter.failed(Some((10, 14, "join")), &fault, Some(Duration::from_secs(12)));
        assert_eq!(
            seen.lines.take(),
            ["firstboot: phase 10/14 join failed (cluster, FB407): connect to 10.0.0.1:6443: connection refused; \
                 next try in 12 s, at 2026-11-23T00:00:12Z"]
        );
        let error = "connect to 10.0.0.1:6443: connection refused";
        let fields = format!(
            "FIRSTBOOT_PHASE=join FIRSTBOOT_OWNER=cluster FIRSTBOOT_CODE=FB407 FIRSTBOOT_ERROR={error} PRIORITY=4"
        );
        assert_eq!(seen.fields.take(), [fields]);
        let text = reporter.status.text();
        let head: Vec<&str> = text.lines().take(9).collect();
        assert_eq!(
            head,
            [
                "state: retrying",
                "phase: 10/14 join",
                "since: 2026-11-23T00:00:00Z",
                "owner: cluster",
                "code: FB407",
                "error: connect to 10.0.0.1:6443: connection refused",
                "advice: fix the cluster or the network, or change seed.toml; it keeps trying",
                "warning: Memory: 512 MiB of memory leave little for pods",
                "next try: in 12 s, at 2026-11-23T00:00:12Z",
            ]
        );
        let kept: Status = serde_json::from_slice(&host.read(STATUS_FILE).unwrap().unwrap()).unwrap();
        assert_eq!(kept, reporter.status);
        // The next boot begins with an empty /run.
        host.remove(STATUS_FOR_ALL).unwrap();
        show_again(&host).unwrap();
        assert_eq!(host.read(STATUS_FOR_ALL).unwrap(), host.read(STATUS_FILE).unwrap());
        assert_eq!(padded(&text).len(), STATUS_SIZE);
        // The next try begins, if need be in another process: what failed stays on show, and since when.
        seen.clock.set(Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_392_012)));
        reporter.last = Reporter::new(&host, &Nothing, None, String::new()).last;
        reporter.begins(10, 14, "join");
        reporter.write();
        let text = reporter.status.text();
        assert!(
            text.starts_with(
                "state: working\nphase: 10/14 join\nsince: 2026-11-23T00:00:00Z\nowner: cluster\ncode: FB407\n"
            ),
            "{text}"
        );
        assert!(text.contains("\nerror: connect to 10.0.0.1:6443: connection refused\nadvice: fix the cluster or the network, or change seed.toml; it keeps trying\nwarning: "), "{text}");
        // It holds: nothing is wrong any more, but something is left to do.
        host.record(crate::journal::Record::Fact { name: Fact::Node, value: "edge-1".into() }).unwrap();
        reporter.holds(10, 14, "join", Some(Duration::ZERO));
        assert_eq!(seen.fields.take(), ["FIRSTBOOT_NODE=edge-1 FIRSTBOOT_PHASE=join FIRSTBOOT_SECONDS=0.00"]);
        reporter.status.manual_steps = vec!["kubectl taint node e a:NoSchedule".into()];
        let text = reporter.status.text();
        assert!(
            text.starts_with("state: working\nphase: 10/14 join\nsince: 2026-11-23T00:00:00Z\nwarning: "),
            "{text}"
        );
        assert!(text.contains("\nleft to do: kubectl taint node e a:NoSchedule\n"), "{text}");
        reporter.begins(11, 14, "kubelet");
        assert_eq!(timestamp(reporter.status.since), "2026-11-23T00:00:12Z");
    }
}
