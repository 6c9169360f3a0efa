// SPDX-License-Identifier: Apache-2.0
//! Carries out one step of a reset. Each may be done twice: after a power cut all of them are gone through again.
//!
//! What concerns others (cluster, pods, packets) is tried and reported; what is on this device's disk has to succeed, or the
//! reset stops, and goes on at the next boot.

use super::plan::{Step, asked_by, destroys};
use super::{cluster, packets};
use crate::containerd::cri::{self, Cri};
use crate::control_plane::etcd;
use crate::control_plane::others::{BOOT, INTERVAL};
use crate::fault::{Code, Fault, OwnedBy, Owner};
use crate::firewall;
use crate::flush::FlushSite;
use crate::harden::sysctl::SHOWN_FILE;
use crate::host::exclusions::Exclusions;
use crate::host::{Host, STATE_DIR, mounts};
use crate::identity::{MACHINE_ID, came_with_image};
use crate::image::ImageInfo;
use crate::journal::facts::{self, Fact};
use crate::journal::{JOURNAL, JOURNAL_COPY, Record};
use crate::network::networkd::configured_vlan;
use crate::paths::HOSTNAME;
use crate::status::STATUS_FOR_ALL;
use anyhow::{Context, Result};
use std::cell::Cell;
use std::time::Duration;

/// How long the runtime has to end all pods.
const PODS: Duration = Duration::from_secs(120);

/// A reset at work.
pub(super) struct Work<'a> {
    pub host: &'a Host,
    pub keep: &'a Exclusions,
    /// The cluster did not answer: it is not asked again.
    pub deaf: Cell<bool>,
}

impl Work<'_> {
    pub(super) fn perform(&self, step: &Step) -> Result<()> {
        let host = self.host;
        match step {
            Step::Leave => self.leave(),
            Step::Member => return self.leave_etcd(),
            Step::Depart if self.deaf.get() => {}
            Step::Depart => {
                let failed = cluster::depart(host).unwrap_or_else(|fault| vec![fault]);
                self.report_all("tell the cluster", failed);
            }
            Step::Stop(unit) => return stop(host, unit),
            Step::Pods => self.report("stop pods", self.pods()),
            Step::Unmount(directories) => return self.unmount(directories),
            Step::Links => self.report("delete interfaces", self.links()),
            Step::Packets => self.report_all("delete packet rules", on_this_device(packets::clear(host))),
            Step::Tree(path) => {
                let keep = |p: &str| self.keep.covers(p);
                if let Some(temporary) = temporary(path) {
                    host.remove_tree(&temporary, &keep)?;
                }
                return host.remove_tree(path, &keep);
            }
            Step::Remove(path) => return remove(host, path),
            Step::Restore { path, backup } => {
                remove_temporary(host, path)?;
                return host.restore(path, backup);
            }
            Step::Directory(path) => return host.remove_directory(path),
            Step::HostName => self.report("take the host name", host_name(host)),
            Step::MachineId => return machine_id(host),
            Step::Filter => self.report("close the packet filter", firewall::guard(host).coded(Code::PacketFilter)),
            Step::State => return state(host),
            Step::Logs(path) => return self.logs(path),
            Step::Erase => self.erase(),
            Step::Journal => return journal(host),
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        self.host.sys().say(&format!("firstboot: reset: {text}"));
    }

    /// What failed is said, and the work goes on.
    fn report<E: Into<anyhow::Error>>(&self, what: &str, done: Result<(), E>) {
        self.report_all(what, done.owned_by(Owner::Host).err().into_iter().collect());
    }

    fn report_all(&self, what: &str, failed: Vec<Fault>) {
        for fault in failed {
            self.say(&format!("{what} ({}): {fault}; it goes on", fault.tag()));
        }
    }

    fn leave(&self) {
        let client = match cluster::reach(self.host) {
            Ok(Some(client)) => client,
            Ok(None) => return,
            Err(fault) => {
                self.deaf.set(true);
                self.report_all("leave the cluster", vec![fault]);
                return;
            }
        };
        self.report("cordon the node", client.cordon());
        match client.drain(cluster::DRAIN) {
            Ok(0) => {}
            Ok(left) => self.say(&format!("{left} pods were not evicted in time, and end now")),
            Err(fault) => {
                self.deaf.set(cluster::is_silent(&fault));
                self.report_all("evict pods", vec![fault]);
            }
        }
    }

    /// A member that is gone and still counts may cost the others their quorum. So this device stays one of them until they
    /// have let it go, unless it was said that the cluster may end.
    fn leave_etcd(&self) -> Result<()> {
        let ends = destroys(&self.host.journal());
        let until = self.host.sys().uptime() + if ends { Duration::ZERO } else { BOOT };
        loop {
            let Err(fault) = etcd::leave(self.host, &cluster::api_servers(self.host)) else { return Ok(()) };
            // Without a certificate for etcd nothing is left to ask with.
            if ends || fault.owner() != Owner::Cluster {
                self.say(&format!("etcd ends with this device, or keeps it as a member ({}): {fault}", fault.tag()));
                return Ok(());
            }
            if self.host.sys().uptime() >= until {
                let how = "write reset = \"destroy-cluster\" where the cluster may end with this device";
                anyhow::bail!("leave etcd: the other members do not let this device go: {fault}; {how}");
            }
            self.host.sys().sleep(INTERVAL);
        }
    }

    /// Ends and removes every pod, as long as the runtime answers; then whatever is left of any.
    fn pods(&self) -> Result<()> {
        self.report("stop pods", self.pods_by_runtime());
        stop(self.host, "kubepods.slice")
    }

    fn pods_by_runtime(&self) -> Result<()> {
        if !self.host.exists(cri::SOCKET.trim_start_matches("unix://"))? {
            return Ok(());
        }
        let cri = Cri::connect(self.host.sys())?;
        let until = self.host.sys().uptime() + PODS;
        for pod in cri.pods()? {
            self.host.sys().before_effect(&pod)?;
            if self.host.sys().uptime() > until {
                anyhow::bail!("the runtime takes longer than {} s", PODS.as_secs());
            }
            self.report("stop a pod", cri.remove_pod(&pod));
        }
        Ok(())
    }

    fn unmount(&self, directories: &[String]) -> Result<()> {
        // Of a runtime that has stopped, what holds containers together stays behind and keeps mounts busy.
        let _ = self.host.run(&["systemctl", "kill", "--signal=SIGKILL", super::plan::RUNTIME]);
        for mount in mounts::below(mounts::mounted(self.host)?, directories, self.keep) {
            self.host.unmount(&mount.point, mount.is_remote())?;
            if mount.is_namespace() {
                // It is empty, and gone at power-off.
                let _ = self.host.remove_entry(&mount.point);
            }
        }
        Ok(())
    }

    fn links(&self) -> Result<()> {
        let failed = packets::delete_links(self.host, configured_vlan(self.host)?.as_deref())?;
        self.report_all("delete interfaces", on_this_device(failed));
        Ok(())
    }

    /// Removes what services and pods of this life have logged. journald is asked to log to memory meanwhile: it would go on
    /// in files that are gone.
    fn logs(&self, path: &str) -> Result<()> {
        let ask = |what: &str| self.host.run(&["journalctl", what]).map(drop);
        self.report("have journald log to memory", ask("--relinquish-var"));
        self.host.empty_directory(path, &|p: &str| self.keep.covers(p))?;
        // A restart ends what is in memory, too.
        if asked_by(&self.host.journal()).is_none() {
            self.report("have journald log to the disk", ask("--flush"));
        }
        Ok(())
    }

    /// Makes old blocks unreadable, as far as a program can.
    fn erase(&self) {
        let zero = || -> Result<u64> {
            self.host.flush(FlushSite::ResetErase)?;
            self.host.sys().before_effect("zero")?;
            // Of our own images that is one file system; an image of others may have two.
            self.host.sys().zero_free_space(&["/var/lib", "/etc"])
        };
        self.say("zeroing free space; this takes as long as writing the disk full");
        match zero().owned_by(Owner::Host) {
            Ok(bytes) => self.say(&format!("{} MiB of free space zeroed", bytes >> 20)),
            Err(fault) => self.say(&format!("the free space still holds old blocks ({}): {fault}", fault.tag())),
        }
        match self.host.run(&["fstrim", "/var"]).owned_by(Owner::Host) {
            Ok(_) => self.say("free space trimmed; what a flash controller has put aside it may keep all the same"),
            Err(fault) => self.say(&format!("the medium does not know what is free ({}): {fault}", fault.tag())),
        }
    }
}

/// Faults of this device with these texts.
fn on_this_device(failed: Vec<String>) -> Vec<Fault> {
    failed.into_iter().map(|text| Fault::new(Owner::Host.general(), text)).collect()
}

/// Stops a unit. One that could not be stopped because there is none is no fault.
pub(super) fn stop(host: &Host, unit: &str) -> Result<()> {
    let Err(error) = host.run(&["systemctl", "stop", unit]) else { return Ok(()) };
    let state = host.run(&["systemctl", "show", "--property=ActiveState", "--value", unit]).unwrap_or_default();
    match state.trim() {
        "inactive" | "failed" => Ok(()),
        _ => Err(error),
    }
}

fn remove(host: &Host, path: &str) -> Result<()> {
    remove_temporary(host, path)?;
    host.remove_entry(path)
}

/// What a power cut left of a file that was being written.
fn remove_temporary(host: &Host, path: &str) -> Result<()> {
    temporary(path).map_or(Ok(()), |temporary| host.remove_entry(&temporary))
}

/// Where a file or a directory is while it is being written.
fn temporary(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(directory, name)| format!("{directory}/.{name}.firstboot"))
}

/// The name that the device had before its first seed, where the image gives one.
fn host_name(host: &Host) -> Result<()> {
    match host.read_text(HOSTNAME)? {
        Some(name) => host.set_hostname(&name),
        None => Ok(()),
    }
}

/// Empty, as in an image: systemd makes another at the next boot, a new seed at once (machine-id(5)).
fn machine_id(host: &Host) -> Result<()> {
    let theirs = ImageInfo::read(host).is_ok_and(|image| came_with_image(host, &image).unwrap_or(false));
    if host.read_text(MACHINE_ID)?.is_none() || theirs {
        return Ok(());
    }
    let writer = host.create(MACHINE_ID, 0o444)?;
    host.finish(writer)
}

/// Everything that firstboot keeps for itself goes, but for the journal, which says that the rest is to go.
fn state(host: &Host) -> Result<()> {
    if host.journal().fact(Fact::Restored).is_none() {
        // Before the copies go: after that nothing could be put back from them.
        host.flush(FlushSite::ResetRestored)?;
        host.record(Record::Fact { name: Fact::Restored, value: facts::flag(true) })?;
    }
    // A reset that goes on after a power cut has shown its status there, and the next installation would keep a copy of it.
    host.remove_entry(STATUS_FOR_ALL)?;
    host.remove_entry(SHOWN_FILE)?;
    host.remove_directory("/run/firstboot")?;
    let keep = |path: &str| [JOURNAL, JOURNAL_COPY].contains(&path);
    host.empty_directory(STATE_DIR, &keep).with_context(|| format!("empty {STATE_DIR}"))
}

/// The last step: what is on record is gone but for what the next installation has to know.
fn journal(host: &Host) -> Result<()> {
    host.flush(FlushSite::ResetJournal)?;
    let boot = host.boot_id()?;
    let records = {
        let journal = host.journal();
        let node = journal.fact(Fact::Node).or(journal.fact(Fact::NodeBefore)).map(str::to_owned);
        let by = asked_by(&journal).map(str::to_owned);
        let restart = by.as_ref().and(boot);
        // A stick that was obeyed before is still not to be obeyed again.
        let by = by.or(journal.fact(Fact::ResetBy).map(str::to_owned));
        let fact = |name: Fact, value: Option<String>| value.map(|value| Record::Fact { name, value });
        [fact(Fact::NodeBefore, node), fact(Fact::ResetBy, by), fact(Fact::RestartDue, restart)]
    };
    host.renew_journal(&records.into_iter().flatten().collect::<Vec<_>>())
}
