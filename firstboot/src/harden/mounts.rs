// SPDX-License-Identifier: Apache-2.0
//! Mounts: world-writable directories have no device, set-ID or executable file; the root of our own images is verified
//! and read-only, and what is beside it has no devices and no set-ID files.
//!
//! Nothing is applied here: the image's fstab and the initrd do it. containerd unpacks below its own directory, and pods
//! have their own /tmp and /dev/shm.

use crate::boot_report::BootReport;
use crate::check::Finding;
use crate::harden::overrides::AuditContext;
use crate::host::mounts::mounted;
use anyhow::Result;

/// Mount point, the line of fstab(5), the reason.
type Mount = (&'static str, &'static str, &'static str);

/// The mounts besides the root file system.
#[rustfmt::skip]
const MOUNTS: &[Mount] = &[
    ("/tmp", "tmpfs /tmp tmpfs nodev,nosuid,noexec,mode=1777,size=25% 0 0", "lost at power-off, and at most a quarter of the memory"),
    ("/var/tmp", "tmpfs /var/tmp tmpfs nodev,nosuid,noexec,mode=1777,size=10% 0 0", "no account fills the root file system: lost at power-off as well, and at most a tenth of the memory"),
    ("/dev/shm", "tmpfs /dev/shm tmpfs nodev,nosuid,noexec,mode=1777 0 0", "memory that programs share holds data, no programs"),
];

/// What the initrd mounts in our own images: mount point, options, and the reason.
const VERIFIED: &[(&str, &[&str], &str)] = &[
    ("/", &["ro"], "no file of the system can be changed, and a changed block of it cannot be read (dm-verity)"),
    ("/data", &["nodev", "nosuid"], "data brings neither devices nor set-ID programs"),
    ("/etc", &["nodev", "nosuid"], "settings bring neither devices nor set-ID programs"),
    ("/var", &["nodev", "nosuid"], "data brings neither devices nor set-ID programs"),
];
/// How the device mapper's mapping of a verified root is called.
const VERITY_UUID: &str = "/sys/block/dm-0/dm/uuid";

/// Options that every mount has.
const OPTIONS: [&str; 3] = ["nodev", "nosuid", "noexec"];

/// The lines of the image's fstab.
pub fn fstab() -> String {
    MOUNTS.iter().map(|(_, line, why)| format!("# {why}\n{line}\n")).collect()
}

/// Compares the current mounts.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    // The last mount of a path is on top.
    let mounts = mounted(context.host)?;
    let one = |(path, _, why): &Mount| {
        let found = mounts.iter().rev().find(|mount| mount.point == *path).map(|mount| {
            let has = |name: &&&str| mount.options.split(',').any(|o| o == **name);
            let options = OPTIONS.iter().filter(has).copied().collect::<Vec<_>>().join(",");
            // On any other file system it is not bounded.
            if mount.kind == "tmpfs" { options } else { format!("{options} on {}", mount.kind) }
        });
        Finding::compare(format!("mounts{path}"), &OPTIONS.join(","), None, found, why)
    };
    let mut findings: Vec<Finding> = MOUNTS.iter().map(one).collect();
    // A base image of others has a root of its own.
    if BootReport::read(context.host).is_some() {
        findings.extend(VERIFIED.iter().map(|(path, options, why)| {
            let found = mounts.iter().rev().find(|mount| mount.point == *path).map(|mount| {
                let has = |name: &&&str| mount.options.split(',').any(|o| o == **name);
                options.iter().filter(has).copied().collect::<Vec<_>>().join(",")
            });
            Finding::compare(format!("mounts{path}"), &options.join(","), None, found, why)
        }));
        let root = mounts.iter().rev().find(|mount| mount.point == "/");
        let uuid = context.host.read_text(VERITY_UUID)?.unwrap_or_default();
        let verified = root.is_some_and(|root| root.kind == "erofs") && uuid.starts_with("CRYPT-VERITY-");
        let (found, why) = (if verified { "dm-verity" } else { "no" }, "a changed block of the root is a read error");
        findings.push(Finding::compare("mounts/verified".to_owned(), "dm-verity", None, Some(found.to_owned()), why));
    }
    let fat: Vec<&str> = mounts.iter().filter(|mount| mount.kind == "vfat").map(|mount| mount.point.as_str()).collect();
    let found = if fat.is_empty() { "none".to_owned() } else { fat.join(", ") };
    let why = "the boot and EFI system partitions are not mounted: nothing that runs reaches kernel, initrd or seed by a path";
    findings.push(Finding::compare("mounts/fat".to_owned(), "none", None, Some(found), why));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::harden::overrides::SeedOverrides;
    use crate::host::Host;
    use crate::host::fake::Fake;

    const MOUNTED: &str = "22 1 254:3 / / rw,noatime shared:1 - ext4 /dev/vda3 rw,errors=remount-ro\n\
        30 22 0:24 / /tmp rw,nosuid,nodev,noexec,relatime shared:13 - tmpfs tmpfs rw,size=250000k\n\
        31 22 0:25 / /var/tmp rw,nosuid,nodev,noexec,relatime shared:14 - tmpfs tmpfs rw,size=100000k\n\
        25 23 0:20 / /dev/shm rw,nosuid,nodev,noexec shared:4 - tmpfs tmpfs rw\n";

    fn states(text: &str) -> Vec<(String, Verdict, String)> {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        host.write("/proc/self/mountinfo", text.as_bytes(), 0o644).unwrap();
        let findings = audit(&AuditContext { host: &host, kept: SeedOverrides::default() }).unwrap();
        findings.into_iter().map(|f| (f.id, f.state, f.found)).collect()
    }

    #[test]
    fn options_of_the_top_mount_count() {
        assert!(states(MOUNTED).iter().all(|(_, state, _)| *state == Verdict::Ok));
        let over = format!("{MOUNTED}40 30 0:30 / /tmp rw,nosuid - tmpfs tmpfs rw\n");
        assert_eq!(states(&over)[0], ("mounts/tmp".to_owned(), Verdict::Drift, "nosuid".to_owned()));
        let absent = MOUNTED.replace(" /var/tmp rw", " /mnt rw");
        assert_eq!(states(&absent)[1], ("mounts/var/tmp".to_owned(), Verdict::Drift, "missing".to_owned()));
        let efi = format!("{MOUNTED}40 22 254:2 / /efi ro - vfat /dev/vda2 ro\n");
        assert_eq!(states(&efi)[3], ("mounts/fat".to_owned(), Verdict::Drift, "/efi".to_owned()));
    }

    #[test]
    fn a_verified_root_is_audited_where_the_initrd_made_it() {
        let verified = "22 1 253:0 / / ro,noatime - erofs /dev/mapper/root ro\n\
            23 22 254:5 / /data rw,nosuid,nodev,noatime - ext4 /dev/vda5 rw\n\
            24 22 254:5 /var /var rw,nosuid,nodev,noatime - ext4 /dev/vda5 rw\n\
            25 22 0:26 / /etc rw,nosuid,nodev,noatime - overlay etc rw\n";
        let of = |uuid: &str, text: &str| {
            let dir = tempfile::tempdir().unwrap();
            let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
            host.write("/proc/self/mountinfo", text.as_bytes(), 0o644).unwrap();
            host.write(VERITY_UUID, uuid.as_bytes(), 0o644).unwrap();
            let report = br#"{"version":1,"slot":"a","root":"/dev/vda3","data":"/dev/vda5","state":"kept"}"#;
            host.write(crate::boot_report::BOOT_REPORT, report, 0o644).unwrap();
            let findings = audit(&AuditContext { host: &host, kept: SeedOverrides::default() }).unwrap();
            let drifted = findings.into_iter().filter(|f| f.state != Verdict::Ok);
            drifted.map(|f| f.id).filter(|id| !id.starts_with("mounts/tmp")).collect::<Vec<_>>()
        };
        let temporary = ["mounts/var/tmp", "mounts/dev/shm"];
        let drifted = |uuid, text: &str| {
            let all = of(uuid, text);
            all.into_iter().filter(|id| !temporary.contains(&id.as_str())).collect::<Vec<_>>()
        };
        assert!(drifted("CRYPT-VERITY-ab-root\n", verified).is_empty());
        assert_eq!(drifted("", verified), ["mounts/verified"]);
        assert_eq!(drifted("CRYPT-VERITY-ab-root", &verified.replace("/ / ro", "/ / rw")), ["mounts/"]);
        assert_eq!(drifted("CRYPT-VERITY-ab-root", &verified.replace("/var rw,nosuid", "/var rw")), ["mounts/var"]);
    }

    #[test]
    fn s13_directories_of_all_accounts_are_not_on_the_root_file_system() {
        for dir in ["/tmp", "/var/tmp", "/dev/shm"] {
            let (_, line, _) = MOUNTS.iter().find(|(path, ..)| *path == dir).unwrap();
            assert!(line.starts_with("tmpfs "), "{line}");
        }
        // Something else is mounted there, or nothing but the root.
        let bind = "31 22 254:3 /var/tmp /var/tmp rw,nosuid,nodev,noexec shared:1 - ext4 /dev/vda3 rw\n";
        let found = states(&format!("{MOUNTED}{bind}"));
        assert_eq!(found[1], ("mounts/var/tmp".to_owned(), Verdict::Drift, "nodev,nosuid,noexec on ext4".to_owned()));
    }

    #[test]
    fn every_line_has_every_option() {
        for (path, line, _) in MOUNTS {
            let fields: Vec<&str> = line.split(' ').collect();
            assert_eq!((fields.len(), fields[1]), (6, *path));
            assert!(OPTIONS.iter().all(|o| fields[3].split(',').any(|f| f == *o)), "{line}");
        }
    }
}
