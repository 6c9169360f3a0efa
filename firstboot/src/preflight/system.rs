// SPDX-License-Identifier: Apache-2.0
//! The kernel: release, configuration and cgroups, as `k8s.io/system-validators` 1.12 requires them.
//!
//! One check is less strict: a kernel that does not expose its configuration is a warning, not an error, because
//! kubelet does not read it either. The memory controller has a check of its own, [`cgroup_memory`]: it is off on whole
//! families of boards, and the fix depends on the board.

use super::check::CheckContext;
use super::check::Finding::{self, Error, Fine, Warning};
use crate::fault::Code;
use crate::host::Host;
use anyhow::Result;
use std::collections::BTreeSet;

/// Option names without `CONFIG_`; `A|B` requires one of both.
const REQUIRED: &[&str] = &[
    "NAMESPACES",
    "NET_NS",
    "PID_NS",
    "IPC_NS",
    "UTS_NS",
    "CPUSETS",
    "MEMCG",
    "INET",
    "EXT4_FS",
    "PROC_FS",
    "NETFILTER_XT_TARGET_REDIRECT|IP_NF_TARGET_REDIRECT",
    "NETFILTER_XT_MATCH_COMMENT",
    "FAIR_GROUP_SCHED",
    "CGROUPS",
    "CGROUP_BPF",
    "CGROUP_PIDS",
    "CGROUP_SCHED",
    // Required by firstboot: containerd's snapshotter, pods on a bridge.
    "OVERLAY_FS",
    "BRIDGE_NETFILTER",
];
const OPTIONAL: &[&str] = &["BLK_DEV_DM", "CFS_BANDWIDTH", "SECCOMP", "SECCOMP_FILTER", "CGROUP_HUGETLB"];
/// cgroup v2 controllers besides `memory`.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "pids"];
const CGROUPS: &str = "/sys/fs/cgroup/cgroup.controllers";

pub(super) fn verification(context: &CheckContext<'_>) -> Result<Finding> {
    let host = context.host;
    let release = host.read_text("/proc/sys/kernel/osrelease")?.unwrap_or_default();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    if !tested(&release) {
        warnings.push(format!("Kubernetes is not tested with kernel {release} (5.4, 5.10, 5.15, 6 and later)"));
    }
    match host.read_text(CGROUPS)? {
        None => errors.push("use cgroup v2: /sys/fs/cgroup is not; kubelet does not start with v1".to_owned()),
        Some(there) => {
            let missing = missing_controllers(&there);
            if !missing.is_empty() {
                errors.push(format!("find cgroup controller {}: this kernel has it off", missing.join(", ")));
            }
        }
    }
    match configuration(host, &release)? {
        None => warnings.push(format!("the configuration of kernel {release} cannot be read")),
        Some(set) => {
            let lacks = |list: &[&str]| -> Vec<String> {
                let has = |option: &str| option.split('|').any(|o| set.contains(o));
                list.iter().filter(|o| !has(o)).map(|o| format!("CONFIG_{o}")).collect()
            };
            let (required, optional) = (lacks(REQUIRED), lacks(OPTIONAL));
            if !required.is_empty() {
                errors.push(format!("use a kernel with {}: kernel {release} lacks it", required.join(", ")));
            }
            if !optional.is_empty() {
                warnings.push(format!("kernel {release} lacks {}", optional.join(", ")));
            }
        }
    }
    let all = |mut first: Vec<String>, then: Vec<String>| {
        first.extend(then);
        first.join("; ")
    };
    Ok(match (errors.is_empty(), warnings.is_empty()) {
        (true, true) => Fine(format!("kernel {release}, cgroup v2")),
        (true, false) => Warning(Code::KernelUnfit, all(warnings, Vec::new())),
        (false, _) => Error(Code::KernelUnfit, all(errors, warnings)),
    })
}

/// Whether Kubernetes is tested with this kernel.
fn tested(release: &str) -> bool {
    let mut numbers = release.split(['.', '-', '+']).map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(5), Some(minor)) => [4, 10, 15].contains(&minor),
        (Some(major), _) => major >= 6,
        _ => false,
    }
}

fn missing_controllers(there: &str) -> Vec<&'static str> {
    CONTROLLERS.iter().copied().filter(|c| !there.split_whitespace().any(|t| t == *c)).collect()
}

/// Options that are built in or modules, without `CONFIG_`; `None` when the configuration is not available.
fn configuration(host: &Host, release: &str) -> Result<Option<BTreeSet<String>>> {
    let files = [
        format!("/boot/config-{release}"),
        format!("/usr/lib/modules/{release}/config"),
        format!("/usr/lib/kernel/config-{release}"),
        format!("/usr/lib/ostree-boot/config-{release}"),
        format!("/usr/src/linux-headers-{release}/.config"),
    ];
    for path in files {
        if let Some(bytes) = host.read(&path)? {
            return Ok(Some(options(&String::from_utf8_lossy(&bytes))));
        }
    }
    if host.size_and_mode("/proc/config.gz")?.is_none() {
        return Ok(None);
    }
    Ok(Some(options(&host.run(&["gzip", "-dc", "/proc/config.gz"])?)))
}

fn options(text: &str) -> BTreeSet<String> {
    let set = |line: &str| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        ["y", "m"].contains(&value).then(|| name.to_owned())
    };
    text.lines().filter_map(set).collect()
}

pub(super) fn cgroup_memory(context: &CheckContext<'_>) -> Result<Finding> {
    // Without cgroup v2 there is no such file, and SystemVerification reports that.
    let Some(there) = context.host.read_text(CGROUPS)? else { return Ok(Fine("not looked at: no cgroup v2".into())) };
    if there.split_whitespace().any(|c| c == "memory") {
        return Ok(Fine("cgroup controller memory is on".into()));
    }
    let model = context.host.read_text("/sys/firmware/devicetree/base/model")?.unwrap_or_default();
    // Raspberry Pi kernels read these options from another file.
    let fix = match model.starts_with("Raspberry Pi") {
        true => "append cgroup_enable=memory cgroup_memory=1 to the single line of /boot/firmware/cmdline.txt",
        false => "add cgroup_enable=memory cgroup_memory=1 to the kernel command line",
    };
    Ok(Error(Code::CgroupMemory, format!("find cgroup controller memory: it is off; {fix}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tested_kernels() {
        for good in ["5.4.0", "5.10.110-v8+", "5.15.0-1-arm64", "6.12.57+deb13-amd64", "7.0.1"] {
            assert!(tested(good), "{good}");
        }
        for other in ["4.19.1", "5.9.0", "5.14.3", "", "x"] {
            assert!(!tested(other), "{other}");
        }
    }

    #[test]
    fn disabled_options_are_absent() {
        let text = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=n\nCONFIG_E=\"y\"\n";
        assert_eq!(options(text).into_iter().collect::<Vec<_>>(), ["A", "B"]);
    }
}
