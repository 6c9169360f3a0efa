// SPDX-License-Identifier: Apache-2.0
//! Kernel modules that no node needs. The kernel loads a protocol or a file system as soon as a program requests it by
//! name, and bugs survive longest in rarely used modules. These modules cannot be loaded unless the seed allows it.
//!
//! The image contains the list for modprobe (modprobe.d(5)); where the seed allows some modules, a file of the same
//! name below /etc replaces it. USB storage is not on the list: a seed may come on a stick, and devices boot from USB
//! disks. `llc` is not on it because bridges need it. FAT is not on it either, though firstboot itself never mounts one.

use super::overrides::SeedOverrides;
use crate::check::Finding;
use crate::harden::overrides::AuditContext;
use crate::host::Host;
use anyhow::Result;
use std::collections::BTreeSet;

/// Read by modprobe, and by udev.
pub const FILE: &str = "/usr/lib/modprobe.d/firstboot-deny.conf";
/// Replaces [`FILE`].
const SEED_FILE: &str = "/etc/modprobe.d/firstboot-deny.conf";

/// Modules that a node needs.
const NODE_FILE: &str = "/etc/modules-load.d/firstboot.conf";

/// Modules, each with the reason. A kernel may have them built in; `modprobe` detects that.
pub(crate) const NEEDED: &[(&str, &str)] = &[
    ("overlay", "containerd's snapshotter"),
    ("br_netfilter", "bridged pod traffic passes the packet filter"),
    ("nf_conntrack", "kube-proxy reads its table"),
];

/// Modules, each with the reason. Modules that depend on one of them cannot be loaded either.
const DENIED: &[(&str, &str)] = &[
    ("cramfs", "file system of old boot disks"),
    ("freevxfs", "file system of old UNIX servers"),
    ("hfs", "file system of old Apple disks"),
    ("hfsplus", "file system of Apple disks"),
    ("jffs2", "file system of raw flash chips"),
    ("udf", "file system of optical disks"),
    ("squashfs", "file system of snaps, which are not used here"),
    ("adfs", "file system of Acorn computers"),
    ("affs", "file system of Amiga computers"),
    ("befs", "file system of BeOS"),
    ("bfs", "file system of UnixWare's boot disks"),
    ("efs", "file system of old SGI disks"),
    ("hpfs", "file system of OS/2"),
    ("jfs", "file system of AIX and OS/2"),
    ("minix", "file system of Minix"),
    ("nilfs2", "a log as a file system, rarely used"),
    ("omfs", "file system of music players"),
    ("qnx4", "file system of QNX 4"),
    ("qnx6", "file system of QNX 6"),
    ("reiserfs", "no longer maintained"),
    ("sysv", "file system of old UNIX systems"),
    ("ufs", "file system of BSD systems"),
    ("dccp", "transport protocol that no workload uses; many faults"),
    ("sctp", "transport protocol; a cluster with SCTP Services names it in the seed"),
    ("rds", "transport protocol of database clusters; many faults"),
    ("tipc", "transport protocol of telephone exchanges; many faults"),
    ("can", "bus of vehicles and machines; a gateway to one names it in the seed"),
    ("atm", "networks of telephone companies"),
    ("ax25", "amateur radio"),
    ("netrom", "amateur radio"),
    ("rose", "amateur radio"),
    ("x25", "packet networks of the past"),
    ("lapb", "packet networks of the past"),
    ("appletalk", "networks of old Apple computers"),
    ("ipx", "networks of old Novell servers"),
    ("p8022", "carrier of IPX"),
    ("phonet", "modems of old Nokia telephones"),
    ("caif", "modems of ST-Ericsson"),
    ("rxrpc", "carrier of AFS"),
    ("kcm", "multiplexer in the kernel, rarely used"),
    ("smc", "remote memory of mainframes"),
    ("ieee802154", "wireless sensors; a gateway to them names it in the seed"),
    ("nfc", "contactless cards"),
    ("bluetooth", "wireless keyboards and sensors; a gateway to them names it in the seed"),
    ("n_gsm", "multiplexer of modems on a serial line; many faults"),
    ("n_hdlc", "a line discipline with many faults"),
    ("slip", "networks over serial lines"),
    ("firewire_core", "a plug that reads and writes all memory"),
    ("thunderbolt", "a plug that reaches the memory bus"),
    ("floppy", "drives of the past; many faults"),
    ("vivid", "a made-up camera for tests; was a way to root"),
    ("pcspkr", "a beeper, which no node needs"),
];

/// The list without the allowed modules.
fn text(allowed: &[String]) -> String {
    let lines: String = DENIED
        .iter()
        .filter(|(name, _)| !allowed.iter().any(|a| a == name))
        // `install` covers requests by name, `blacklist` covers hardware that requests by alias.
        .map(|(name, why)| format!("# {why}\ninstall {name} /bin/false\nblacklist {name}\n"))
        .collect();
    format!("# Written by firstboot.\n{lines}")
}

/// The file in the image.
pub fn file() -> String {
    text(&[])
}

fn seed_file(kept: &SeedOverrides) -> Option<String> {
    let allowed = &kept.harden.modules;
    (!allowed.is_empty()).then(|| text(allowed))
}

pub(super) fn check(host: &Host, kept: &SeedOverrides) -> Result<bool> {
    let seed = host.read(SEED_FILE)?;
    Ok(host.read(FILE)?.as_deref() == Some(file().as_bytes())
        && seed.as_deref() == seed_file(kept).as_ref().map(String::as_bytes))
}

pub(super) fn apply(host: &Host, kept: &SeedOverrides) -> Result<()> {
    host.ensure(FILE, &file())?;
    host.keep_or_remove(SEED_FILE, seed_file(kept).as_deref())
}

/// What modprobe reports that it would do, and what the kernel has loaded all the same.
pub(crate) fn audit(context: &AuditContext<'_>) -> Result<Vec<Finding>> {
    let configuration = context.host.run(&["modprobe", "--showconfig"])?;
    let loaded = loaded(context.host)?.unwrap_or_default();
    let refused: BTreeSet<String> = configuration
        .lines()
        .filter_map(|l| l.strip_prefix("install ")?.strip_suffix(" /bin/false"))
        .map(|name| name.replace('-', "_"))
        .collect();
    let one = |(name, why): &(&str, &str)| {
        let found = match (loaded.contains(*name), refused.contains(*name)) {
            (true, _) => "loaded",
            (false, true) => "refused",
            (false, false) => "not refused",
        };
        // Allowed modules may be loaded or not.
        let allowed = context.kept.harden.modules.iter().any(|a| a == name);
        let exception = allowed.then_some(if found == "refused" { "not refused" } else { found });
        Finding::compare(format!("modules/{name}"), "refused", exception, Some(found.to_owned()), why)
    };
    Ok(DENIED.iter().map(one).collect())
}

/// The file with the modules that a node needs.
fn node_file() -> String {
    let lines: String = NEEDED.iter().map(|(name, why)| format!("# {why}\n{name}\n")).collect();
    format!("# Written by firstboot.\n{lines}")
}

/// Modules that the kernel has loaded; `None` when it has none at all because everything is built in.
fn loaded(host: &Host) -> Result<Option<BTreeSet<String>>> {
    let text = host.read_text("/proc/modules")?;
    Ok(text.map(|text| text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()))
}

/// Whether a module is built into the running kernel. /sys/module does not say it of a module without parameters.
fn is_built_in(host: &Host, name: &str) -> Result<bool> {
    let release = host.read_text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
    let list = host.read_text(&format!("/lib/modules/{release}/modules.builtin"))?.unwrap_or_default();
    let file = format!("{name}.ko");
    let listed = list.lines().filter_map(|path| path.rsplit('/').next()).any(|leaf| leaf.replace('-', "_") == file);
    Ok(listed || host.exists(&format!("/sys/module/{name}"))?)
}

/// Whether the file with the modules that a node needs is current, and the running kernel has each of them.
pub(crate) fn check_node(host: &Host) -> Result<bool> {
    if host.read(NODE_FILE)?.as_deref() != Some(node_file().as_bytes()) {
        return Ok(false);
    }
    let Some(loaded) = loaded(host)? else { return Ok(true) };
    for (name, _) in NEEDED {
        if !loaded.contains(*name) && !is_built_in(host, name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the file with the modules that a node needs.
pub(crate) fn write_node_file(host: &Host) -> Result<()> {
    host.write(NODE_FILE, node_file().as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::host::fake::Fake;

    fn kept(modules: &[&str]) -> SeedOverrides {
        let mut kept = SeedOverrides::default();
        kept.harden.modules = modules.iter().map(|m| (*m).to_owned()).collect();
        kept
    }

    #[test]
    fn allowed_module_leaves_the_list_and_returns_with_the_next_seed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        assert!(!check(&host, &kept(&[])).unwrap());
        apply(&host, &kept(&[])).unwrap();
        assert!(check(&host, &kept(&[])).unwrap() && host.read(SEED_FILE).unwrap().is_none());
        assert!(file().contains("# file system of old boot disks\ninstall cramfs /bin/false\nblacklist cramfs\n"));
        apply(&host, &kept(&["sctp"])).unwrap();
        let other = String::from_utf8(host.read(SEED_FILE).unwrap().unwrap()).unwrap();
        assert!(!other.contains("sctp") && other.contains("install dccp /bin/false\n"));
        assert_eq!(file().lines().count(), other.lines().count() + 3);
        assert!(check(&host, &kept(&["sctp"])).unwrap() && !check(&host, &kept(&[])).unwrap());
        apply(&host, &kept(&[])).unwrap();
        assert!(check(&host, &kept(&[])).unwrap());
    }

    #[test]
    fn audit_queries_modprobe_and_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let config = text(&["sctp".to_owned(), "x25".to_owned()]);
        let fake = Fake::new().0.answering(move |argv| (argv[0] == "modprobe").then(|| Ok(config.clone())));
        let host = Host::open(dir.path(), Box::new(fake)).unwrap();
        host.write("/proc/modules", b"tipc 1 0 - Live 0x0\nsctp 2 0 - Live 0x0\n", 0o644).unwrap();
        let findings = audit(&AuditContext { host: &host, kept: kept(&["sctp", "dccp"]) }).unwrap();
        let get = |name: &str| findings.iter().find(|f| f.id == format!("modules/{name}")).unwrap();
        assert_eq!((get("sctp").state, get("sctp").found.as_str()), (Verdict::Exception, "loaded"));
        assert_eq!((get("tipc").state, get("tipc").found.as_str()), (Verdict::Drift, "loaded"));
        assert_eq!((get("x25").state, get("x25").found.as_str()), (Verdict::Drift, "not refused"));
        // Allowed by the seed and still refused: the phase has not done its work.
        assert_eq!(get("dccp").state, Verdict::Drift);
        assert_eq!(findings.iter().filter(|f| f.state == Verdict::Ok).count(), DENIED.len() - 4);
    }

    #[test]
    fn needed_modules_are_loaded_or_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::open(dir.path(), Box::new(Fake::new().0)).unwrap();
        let put = |path: &str, text: &str| host.write(path, text.as_bytes(), 0o644).unwrap();
        assert!(!check_node(&host).unwrap());
        write_node_file(&host).unwrap();
        assert!(check_node(&host).unwrap(), "a kernel without modules");
        put("/proc/modules", "overlay 1 0 - Live 0x0\nnf_conntrack 2 0 - Live 0x0\n");
        assert!(!check_node(&host).unwrap());
        put("/proc/sys/kernel/osrelease", "6.12\n");
        put("/lib/modules/6.12/modules.builtin", "kernel/net/bridge/br-netfilter.ko\n");
        assert!(check_node(&host).unwrap());
        put("/proc/modules", "overlay 1 0 - Live 0x0\n");
        assert!(!check_node(&host).unwrap());
        put("/sys/module/nf_conntrack/parameters/hashsize", "1\n");
        assert!(check_node(&host).unwrap());
    }

    #[test]
    fn no_needed_module_is_refused() {
        let needed =
            ["overlay", "br_netfilter", "nf_conntrack", "bridge", "llc", "stp", "vxlan", "usb_storage", "vfat"];
        assert!(DENIED.iter().all(|(name, _)| !needed.contains(name)));
        // modprobe treats - and _ as equal; the seed's names use _.
        assert!(DENIED.iter().all(|(name, _)| !name.contains('-')));
    }
}
