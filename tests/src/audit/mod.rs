// SPDX-License-Identifier: Apache-2.0
//! `make audit`: what auditors' tools say of one device before firstboot and after it, in one run.
//!
//! *Before* is the image's Debian as anybody else would be given it: without firstboot, without what the image holds
//! of its hardening, and without the hardening words of the kernel's command line. *After* is the same image, joined.
//! Both run Lynis by its files, which are no package of the image and are laid on the disk for the run alone.

mod before;
pub mod lynis;

use crate::{FOUND, OFF, add_script, cis, device_options, found, own_arch};
use anyhow::{Context, Result, ensure};
use imagebuild::debian::Debian;
use lynis::Said;
use qemu::control_plane::ControlPlane;
use qemu::device::Device;
use qemu::journey;
use qemu::progress::Progress;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Lynis takes ten minutes under emulation, and more beside other work.
const LONG: Duration = Duration::from_secs(45 * 60);
/// Says that the script is done.
const DONE: &str = "firstboot-test: audited";

/// Runs Lynis, and what systemd thinks of its units.
const TOOLS: &str = r#"
out=/var/lib/firstboot-test
tar --extract --file=$out/lynis.tar --directory=/
cd /usr/share/lynis
sh /usr/sbin/lynis audit system --quick --no-colors --quiet --report-file $out/lynis.dat --logfile $out/lynis.log >$out/lynis.out 2>&1
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

/// What `make audit` found.
pub struct Audited {
    /// Lynis, of the joined device.
    pub lynis: Said,
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
    progress.say("device without firstboot");
    let mut device = Device::new(&image, &device_options("plain"))?;
    device.disk().write_file(&format!("{FOUND}/lynis.tar"), &tools, 0o600)?;
    before::strip(device.disk())?;
    add_script(device.disk(), TOOLS)?;
    device.power_on()?;
    device.wait_console(DONE, LONG)?;
    device.power_off(OFF)?;
    let before = Found::on(&device)?;
    progress.say(&format!("Lynis: {} of 100 before", before.lynis.index));

    progress.say("device with firstboot");
    let plane = ControlPlane::start(&Default::default())?;
    let (device, token) = journey::seeded(&plane, &image, &device_options("audited"))?;
    device.disk().write_file(&format!("{FOUND}/lynis.tar"), &tools, 0o600)?;
    add_script(device.disk(), &format!("{JOINED}{}{TOOLS}", cis::SCRIPT))?;
    let mut joined = journey::join(&plane, device, token, progress)?;
    let path = format!("/api/v1/nodes/{}/proxy/configz", joined.name);
    let configz = plane.kubectl(&["get", "--raw", &path])?;
    let configz: Value = serde_json::from_str(&configz).context("read /configz")?;
    joined.device.wait_console(DONE, LONG)?;
    joined.device.power_off(OFF)?;
    let after = Found::on(&joined.device)?;
    progress.say(&format!("Lynis: {} of 100 after", after.lynis.index));
    let verdicts = cis::verdicts(&cis::Facts::new(|name| found(&joined.device, name).unwrap_or_default(), &configz));
    let audit: Value = serde_json::from_str(&found(&joined.device, "audit.json")?).context("read firstboot's audit")?;
    let report = json!({
        "target": format!("generic-{arch}"),
        "lynis": { "version": before.lynis.version, "before": before.lynis.shown(), "after": after.lynis.shown() },
        "systemd": { "before": before.units, "after": after.units },
        "cis-kubernetes-4": verdicts.iter().map(|(id, asks, verdict, found)| json!({
            "id": id, "asks": asks, "verdict": format!("{verdict:?}").to_uppercase(), "found": found,
        })).collect::<Vec<_>>(),
        "firstboot-audit": audit,
    });
    Ok(Audited { lynis: after.lynis, report })
}

/// What the tools said on one device.
struct Found {
    lynis: Said,
    units: Value,
}

impl Found {
    fn on(device: &Device) -> Result<Self> {
        let report = found(device, "lynis.dat")?;
        let lynis = Said::read(&report).with_context(|| match found(device, "lynis.out") {
            Ok(said) => format!("read Lynis's report; it said: {said}"),
            Err(_) => "read Lynis's report".to_owned(),
        })?;
        let units = serde_json::from_str(&found(device, "units.json")?).context("read what systemd-analyze says")?;
        Ok(Found { lynis, units })
    }
}

/// Lynis's files as Debian packs them, in one archive.
fn tools(arch: &str) -> Result<Vec<u8>> {
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

fn archive(folder: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new("tar");
    command.args(["--create", "--owner=0", "--group=0", "--file=-", "--directory"]).arg(folder).arg(".");
    let bytes = imagebuild::cmd::output(&mut command).context("pack Lynis")?;
    ensure!(!bytes.is_empty(), "pack Lynis: it has no files");
    Ok(bytes)
}
