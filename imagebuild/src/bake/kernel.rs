// SPDX-License-Identifier: Apache-2.0
//! Whether a kernel of a base can run a node: by its configuration and by the modules that are there.

use std::collections::BTreeSet;

/// The oldest kernel, of those that Kubernetes is tested with, that has all that is used here: loop devices by one call
/// (5.8), and the form of EROFS that images have (5.13).
const OLDEST: (u32, u32) = (5, 15);

/// What a kernel needs: the option, and the module that it makes where it is not built in; empty where it makes none.
#[rustfmt::skip]
const NEEDED: &[(&str, &str)] = &[
    // The bundle: one file.
    ("BLK_DEV_LOOP", "loop"), ("EROFS_FS", "erofs"), ("EROFS_FS_ZIP", ""),
    // A node, as kubeadm checks it (k8s.io/system-validators), and pod networks.
    ("NAMESPACES", ""), ("NET_NS", ""), ("PID_NS", ""), ("IPC_NS", ""), ("UTS_NS", ""), ("CGROUPS", ""), ("MEMCG", ""),
    ("CPUSETS", ""), ("CGROUP_PIDS", ""), ("CGROUP_BPF", ""), ("CGROUP_SCHED", ""), ("FAIR_GROUP_SCHED", ""),
    ("OVERLAY_FS", "overlay"), ("BRIDGE_NETFILTER", "br_netfilter"), ("VETH", "veth"), ("BRIDGE", "bridge"),
    ("NETFILTER_XT_MATCH_COMMENT", "xt_comment"),
    // The packet filter, and the process that joins without privileges.
    ("NF_TABLES", "nf_tables"), ("NFT_CT", "nft_ct"), ("NFT_NAT", "nft_nat"), ("NFT_LIMIT", "nft_limit"),
    ("SECCOMP_FILTER", ""),
];

/// What verifies the bundle as it is read; without it, all of it is checked at each boot.
const VERITY: &[(&str, &str)] = &[("BLK_DEV_DM", "dm-mod"), ("DM_VERITY", "dm-verity")];

/// Whether a kernel has dm-verity.
pub fn has_verity(configuration: Option<&str>, modules: &BTreeSet<String>) -> bool {
    absent(VERITY, configuration, modules).is_empty()
}

/// What a kernel lacks, as `CONFIG_…` and as modules; empty when nothing. Without a configuration only modules are looked at.
pub fn lacks(release: &str, configuration: Option<&str>, modules: &BTreeSet<String>) -> Vec<String> {
    let mut lacks = Vec::new();
    if version(release) < OLDEST {
        lacks.push(format!("a kernel of version {}.{} or later", OLDEST.0, OLDEST.1));
    }
    lacks.extend(absent(NEEDED, configuration, modules));
    lacks
}

/// What of a list is not there.
fn absent(list: &[(&str, &str)], configuration: Option<&str>, modules: &BTreeSet<String>) -> Vec<String> {
    let mut lacks = Vec::new();
    for (option, module) in list {
        let module_there = module.is_empty() || modules.contains(&name(module));
        match configuration.map(|text| value(text, option)) {
            Some(Some('y')) => {}
            Some(Some(_)) if module_there => {}
            Some(Some(_)) => lacks.push(format!("module {module}")),
            Some(None) => lacks.push(format!("CONFIG_{option}")),
            None if module_there => {}
            None => lacks.push(format!("module {module}")),
        }
    }
    lacks
}

/// Major and minor number of a release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `y` or `m`; `None` for an option that is not set.
fn value(configuration: &str, option: &str) -> Option<char> {
    let line =
        configuration.lines().find_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
    line.and_then(|value| value.chars().next()).filter(|c| ['y', 'm'].contains(c))
}

/// The kernel holds `-` and `_` for the same.
fn name(module: &str) -> String {
    module.replace('-', "_")
}

/// Names of the modules in `modules.dep` and `modules.builtin`.
pub fn modules(lists: &[String]) -> BTreeSet<String> {
    let path = |line: &str| {
        let path = line.split(':').next().unwrap_or(line);
        let file = path.rsplit('/').next().unwrap_or(path);
        name(file.split(".ko").next().unwrap_or(file))
    };
    lists.iter().flat_map(|list| list.lines()).map(path).filter(|name| !name.is_empty()).collect()
}

/// Words that switch the memory cgroup on in a Raspberry Pi's own kernel, whose device tree has it off.
const MEMORY_CGROUP: &str = "cgroup_enable=memory cgroup_memory=1";
/// What is missing where they are.
pub const NO_MEMORY_CGROUP: &str = "switch the memory cgroup on: bake with --enable-memory-cgroup, or append \
     cgroup_enable=memory cgroup_memory=1 to the single line of cmdline.txt";

/// What on a kernel's command line makes a node impossible, one line each.
pub fn command_line_faults(lines: &[String], raspberry_pi: bool) -> Vec<String> {
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let has = |word: &str| words.contains(&word);
    let mut faults = Vec::new();
    let v1 = [
        "systemd.unified_cgroup_hierarchy=0",
        "systemd.unified_cgroup_hierarchy=no",
        "systemd.legacy_systemd_cgroup_controller",
    ];
    if let Some(word) = v1.iter().find(|word| has(word)) {
        faults.push(format!("use cgroup v2: remove {word} from the kernel command line"));
    }
    if has("cgroup_disable=memory") {
        faults
            .push("switch the memory cgroup on: remove cgroup_disable=memory from the kernel command line".to_owned());
    } else if raspberry_pi && !has("cgroup_enable=memory") {
        faults.push(NO_MEMORY_CGROUP.to_owned());
    }
    faults
}

/// A Raspberry Pi's cmdline.txt with the memory cgroup on. The firmware reads the first line alone.
pub fn with_memory_cgroup(cmdline: &str) -> String {
    let (line, rest) = cmdline.split_once('\n').unwrap_or((cmdline, ""));
    format!("{} {MEMORY_CGROUP}\n{rest}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> String {
        NEEDED
            .iter()
            .map(|(option, module)| format!("CONFIG_{option}={}\n", if module.is_empty() { 'y' } else { 'm' }))
            .collect()
    }

    fn all_modules() -> BTreeSet<String> {
        let list: String = NEEDED.iter().map(|(_, m)| format!("kernel/x/{m}.ko.xz: kernel/y.ko.xz\n")).collect();
        modules(&[list])
    }

    #[test]
    fn a_kernel_with_everything_lacks_nothing() {
        assert_eq!(lacks("6.12.57+deb13-amd64", Some(&whole()), &all_modules()), [""; 0]);
        assert_eq!(lacks("6.12.57+deb13-amd64", None, &all_modules()), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_missing_is_named() {
        let text = whole().replace("CONFIG_EROFS_FS=m", "# CONFIG_EROFS_FS is not set").replace("CONFIG_MEMCG=y\n", "");
        let mut modules = all_modules();
        modules.remove("overlay");
        assert_eq!(
            lacks("5.10.0", Some(&text), &modules),
            ["a kernel of version 5.15 or later", "CONFIG_EROFS_FS", "CONFIG_MEMCG", "module overlay"]
        );
        assert_eq!(lacks("6.1.0", None, &modules), ["module overlay"]);
    }

    #[test]
    fn dm_verity_may_be_missing() {
        let list = modules(&["kernel/dm-mod.ko:\nkernel/dm-verity.ko:\n".to_owned()]);
        assert!(has_verity(None, &list) && !has_verity(None, &BTreeSet::new()));
        assert!(has_verity(Some("CONFIG_BLK_DEV_DM=y\nCONFIG_DM_VERITY=m\n"), &list));
        assert!(!has_verity(Some("CONFIG_BLK_DEV_DM=y\n"), &list));
    }

    #[test]
    fn the_command_line_of_a_raspberry_pi_needs_two_words() {
        let faults = |line: &str, pi| command_line_faults(&[line.to_owned()], pi);
        assert_eq!(faults("console=tty1 rootwait", true), [NO_MEMORY_CGROUP]);
        for (before, after) in [
            ("console=tty1 rootwait\n", "console=tty1 rootwait cgroup_enable=memory cgroup_memory=1\n"),
            ("rootwait \r\n# a note", "rootwait cgroup_enable=memory cgroup_memory=1\n# a note"),
            ("rootwait", "rootwait cgroup_enable=memory cgroup_memory=1\n"),
        ] {
            assert_eq!(with_memory_cgroup(before), after);
            assert_eq!(faults(after, true), [""; 0]);
        }
        assert_eq!(faults("console=tty1 cgroup_enable=memory cgroup_memory=1", true), [""; 0]);
        assert_eq!(faults("console=tty1", false), [""; 0]);
        assert_eq!(
            faults("systemd.unified_cgroup_hierarchy=0 cgroup_disable=memory", false),
            [
                "use cgroup v2: remove systemd.unified_cgroup_hierarchy=0 from the kernel command line",
                "switch the memory cgroup on: remove cgroup_disable=memory from the kernel command line"
            ]
        );
    }
}
