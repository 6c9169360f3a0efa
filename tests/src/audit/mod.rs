// SPDX-License-Identifier: Apache-2.0
//! `make audit`: what auditors' tools say of one device before firstboot and after it, in one run.
//!
//! *Before* is the image's Debian as anybody else would be given it: without firstboot, without what the image holds
//! of its hardening, and without the hardening words of the kernel's command line. *After* is the same image, joined.
//! Both allow a login by SSH, which the auditor needs: before by Debian's own sshd_config, after by a key in the seed.
//! Both run Lynis by its files, which are no package of the image and are laid on the disk for the run alone.

mod before;
pub mod lynis;

use crate::ports::{LINK_LOCAL, open_to_strangers};
use crate::{APPROVER, OFF, SOON, UNUSED_KEY, add_script, cis, configz, device_options, found, own_arch};
use anyhow::{Context, Result, bail, ensure};
use imagebuild::arch::Arch;
use imagebuild::debian::Debian;
use lynis::Said;
use qemu::control_plane::{self, ControlPlane};
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::link::site::{CONTROL_PLANE, STRANGER_V6, Scan, Site};
use qemu::progress::Progress;
use qemu::seed::Seed;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Lynis takes ten minutes under emulation, and four times as long when other work runs.
const LONG: Duration = Duration::from_secs(90 * 60);
const NAME: &str = "edge-audited";
/// Its files, on the device.
const LYNIS: &str = "/etc/lynis.tar";
/// Says that the script is done.
const DONE: &str = "firstboot-test: audited";

/// Runs Lynis, and what systemd thinks of its units.
const TOOLS: &str = r#"
out=/var/lib/firstboot-test
mkdir -p $out/lynis
tar --extract --file=/etc/lynis.tar --directory=$out/lynis
cp -r $out/lynis/etc/lynis /etc/
cd $out/lynis/usr/share/lynis
sh $out/lynis/usr/sbin/lynis audit system --quick --no-colors --quiet --report-file $out/lynis.dat --logfile $out/lynis.log >$out/lynis.out 2>&1
systemd-analyze security --no-pager --json=short >$out/units.json 2>/dev/null
sync
echo "firstboot-test: audited"
"#;

/// Waits for the join, then asks firstboot itself.
const JOINED: &str = r#"
until grep -q '"joined"' /var/lib/firstboot/status.json 2>/dev/null; do sleep 1; done
out=/var/lib/firstboot-test
mkdir -p $out
/usr/bin/firstboot audit --json >$out/audit.json 2>$out/audit.err
"#;

/// As an administrator who installs Debian and needs a login.
const SSH: &str = "\
ssh-keygen -q -A
systemctl start ssh.service
";
/// Who may log in to the joined device.
const OPERATOR: &str = "10.0.2.4";

/// What `make audit` found.
pub struct Audited {
    /// Lynis, of the joined device.
    pub lynis: Said,
    /// Ports of the joined device that are open to strangers.
    pub ports: Vec<String>,
    /// All of it, for `report.json`.
    pub report: Value,
}

/// Audits a device before and after.
///
/// # Errors
/// When a device does not come up, or a tool does not run.
pub fn run(progress: &mut Progress) -> Result<Audited> {
    let arch = own_arch();
    progress.say("tools");
    let tools = tools(arch)?;
    let image = crate::image(arch)?;
    progress.say("a joined device");
    let (joins, has_joined) = channel();
    let (before, after) = std::thread::scope(|scope| -> Result<(Found, Joined)> {
        let after = scope.spawn(|| joined(&image, &tools, joins));
        // Lynis keeps one processor busy, a boot and a join all of them: so the second begins when the first has joined. One
        // that does not join is reported at once.
        let before = has_joined.recv().ok().map(|()| {
            progress.say(&format!("{NAME} is Ready; a device without firstboot, and Lynis on both"));
            plain(&image, &tools)
        });
        let after = after.join().unwrap_or_else(|_| bail!("look at the joined device"))?;
        Ok((before.context("look at the device without firstboot")??, after))
    })?;
    progress.say(&format!("Lynis: {} of 100 before, {} after", before.lynis.index, after.found.lynis.index));
    progress.say(&format!("open ports before: {}", before.ports.join(", ")));
    let report = json!({
        "target": format!("generic-{arch}"),
        "lynis": {
            "version": before.lynis.version, "before": before.lynis.shown(), "after": after.found.lynis.shown(),
        },
        "systemd": { "before": before.units, "after": after.found.units },
        "open-ports": {
            "before": before.ports, "before-seed": after.before_seed, "while-joining": after.while_joining,
            "after": after.found.ports,
            "after-from-control-plane": after.from_control_plane,
        },
        "cis-kubernetes-4": after.verdicts.iter().map(|(id, asks, verdict, found)| json!({
            "id": id, "asks": asks, "verdict": format!("{verdict:?}").to_uppercase(), "found": found,
        })).collect::<Vec<_>>(),
        "firstboot-audit": after.audit,
    });
    Ok(Audited { lynis: after.found.lynis, ports: after.found.ports, report })
}

/// The device without firstboot.
fn plain(image: &DiskImage, tools: &[u8]) -> Result<Found> {
    let site = Site::start()?;
    let options = Options { link: site.socket(), ..device_options("plain") };
    let mut device = Device::new(image, &options)?;
    add_script(device.disk(), &format!("{}{SSH}{TOOLS}", before::set_ids()))?;
    device.disk().write_file(LYNIS, tools, 0o600)?;
    before::strip(device.disk())?;
    device.power_on()?;
    let address = address(&site, &device)?;
    let ports = open_to_strangers(&site, &address)?;
    device.wait_console(DONE, LONG)?;
    device.power_off(OFF)?;
    Found::on(&device, ports)
}

/// Before it has a seed, a device requests no address, and does not answer at its link-local address.
fn has_no_answer(site: &Site) -> Result<String> {
    ensure!(site.address().is_none(), "find a device that has no address before it has a seed");
    match site.scan(STRANGER_V6, LINK_LOCAL, Scan::Tcp) {
        Err(error) if format!("{error:#}").contains("it scanned no host") => Ok("no address, and no answer".to_owned()),
        Err(error) => Err(error),
        Ok(open) => {
            bail!("find a device that does not answer before it has a seed: it answers at {LINK_LOCAL}, {open:?}")
        }
    }
}

/// The address that the device gets from its network.
fn address(site: &Site, device: &Device) -> Result<String> {
    qemu::wait::every(Duration::from_secs(1), "the device to have an address", SOON, || {
        device.check()?;
        Ok(site.address())
    })
}

/// The device with firstboot, looked at while it waits for a seed, while it waits for its certificate and after it has joined.
struct Joined {
    found: Found,
    before_seed: String,
    while_joining: Vec<String>,
    from_control_plane: Vec<String>,
    verdicts: Vec<cis::Row>,
    audit: Value,
}

/// `joins` is called when the device has joined.
fn joined(image: &DiskImage, tools: &[u8], joins: Sender<()>) -> Result<Joined> {
    let site = Site::start()?;
    let plane =
        ControlPlane::start(&control_plane::Options { namespace: Some(site.namespace()), ..Default::default() })?;
    plane.kubectl(&["delete", "clusterrolebinding", APPROVER])?;
    let options = Options { link: site.socket(), ..device_options("audited") };
    let mut device = Device::new(image, &options)?;
    let token = plane.create_token("2h")?;
    let more = format!("\n[access]\nssh-keys = [\"{UNUSED_KEY}\"]\nssh-from = [\"{OPERATOR}\"]\n");
    let seed = Seed { more, ..Seed::for_guest(&plane, &token)? }.text();
    add_script(device.disk(), &format!("{JOINED}{}{TOOLS}", cis::node::SCRIPT))?;
    device.disk().write_file(LYNIS, tools, 0o600)?;
    device.power_on()?;
    device.wait_status("state: waiting for a seed", SOON)?;
    let before_seed = has_no_answer(&site)?;
    device.change_seed(&seed)?;
    device.wait_status("waits for approval", SOON)?;
    let address = address(&site, &device)?;
    let while_joining = open_to_strangers(&site, &address)?;
    let requests = plane.csrs()?;
    let request = requests.first().context("find the device's request")?;
    plane.kubectl(&["certificate", "approve", &request.name])?;
    device.wait_console(&format!("node {NAME} is Ready"), SOON)?;
    let ports = open_to_strangers(&site, &address)?;
    let from_control_plane = site.scan(CONTROL_PLANE, &address, Scan::Tcp)?;
    let configz = configz(&plane, NAME)?;
    joins.send(()).context("tell that the device has joined")?;
    device.wait_console(DONE, LONG)?;
    device.power_off(OFF)?;
    let facts = cis::node::Facts::new(|name| found(&device, name).unwrap_or_default(), &configz);
    let verdicts = cis::verdicts(cis::node::CHECKS, &facts);
    let audit = serde_json::from_str(&found(&device, "audit.json")?).context("read firstboot's audit")?;
    Ok(Joined { found: Found::on(&device, ports)?, before_seed, while_joining, from_control_plane, verdicts, audit })
}

/// What the tools said on one device.
struct Found {
    lynis: Said,
    units: Value,
    /// Open to strangers.
    ports: Vec<String>,
}

impl Found {
    fn on(device: &Device, ports: Vec<String>) -> Result<Self> {
        let report = found(device, "lynis.dat")?;
        let lynis = Said::read(&report).with_context(|| match found(device, "lynis.out") {
            Ok(said) => format!("read Lynis's report; it said: {said}"),
            Err(_) => "read Lynis's report".to_owned(),
        })?;
        let units = serde_json::from_str(&found(device, "units.json")?).context("read what systemd-analyze says")?;
        Ok(Found { lynis, units, ports })
    }
}

/// Lynis's files as Debian packs them, in one archive.
fn tools(arch: Arch) -> Result<Vec<u8>> {
    let debian = Debian::open(arch)?;
    let scratch = imagebuild::repo::root()?.join("out/audit/lynis");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    }
    for package in debian.download(&["lynis"], false)? {
        debian.unpack(&package, &scratch)?;
    }
    archive(&scratch)
}

fn archive(dir: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--file=-", "--directory"]).arg(dir).arg(".");
    let bytes = imagebuild::cmd::output(&mut command).context("pack Lynis")?;
    ensure!(!bytes.is_empty(), "pack Lynis: it has no files");
    Ok(bytes)
}
