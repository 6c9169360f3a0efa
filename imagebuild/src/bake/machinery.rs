// SPDX-License-Identifier: Apache-2.0
//! What images of others do by themselves at their first boots, by name, and how firstboot keeps out of its way: as data.
//!
//! Each row was made from the project's own sources or documentation, named with it; none was tried on the vendor's image.

/// One such mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machinery {
    /// What the report calls it.
    pub name: &'static str,
    /// It is there when one of these paths is.
    pub paths: &'static [&'static str],
    /// It is there when the kernel's command line has this.
    pub word: Option<&'static str>,
    /// Units that firstboot comes after.
    pub after: &'static [&'static str],
    /// A setting that keeps it from what is firstboot's: path and text.
    pub setting: Option<(&'static str, &'static str)>,
    /// What it does, for the report.
    pub does: &'static str,
}

/// The list. Order is that of the report.
pub const KNOWN: &[Machinery] = &[
    // <https://cloudinit.readthedocs.io/en/latest/reference/modules.html>: set_hostname, update_hostname, update_etc_hosts,
    // package_update_upgrade_install. cloud-init-network.service is the newer name of cloud-init.service.
    Machinery {
        name: "cloud-init",
        paths: &["/etc/cloud/cloud.cfg"],
        word: None,
        after: &["cloud-init-local.service", "cloud-init.service", "cloud-init-network.service"],
        setting: Some((
            "/etc/cloud/cloud.cfg.d/99-firstboot.cfg",
            "# Written by firstboot: host name and /etc/hosts are its own, and nothing restarts the device.\n\
             preserve_hostname: true\nmanage_etc_hosts: false\npackage_reboot_if_required: false\n",
        )),
        does: "sets accounts and SSH keys; its host name and /etc/hosts are switched off",
    },
    // Raspberry Pi Imager writes firstrun.sh, and `systemd.run=` to cmdline.txt: that boot has another target, and restarts.
    Machinery {
        name: "firstrun.sh of Raspberry Pi Imager",
        paths: &[],
        word: Some("systemd.run="),
        after: &[],
        setting: None,
        does: "runs alone at the first boot and restarts; firstboot begins at the second",
    },
    // raspberrypi-sys-mods: init=/usr/lib/raspberrypi-sys-mods/firstboot. raspi-config: init_resize.sh.
    Machinery {
        name: "root resize of Raspberry Pi OS",
        paths: &[],
        word: Some("init=/usr/lib/"),
        after: &[],
        setting: None,
        does: "lengthens the root before systemd starts and restarts; firstboot begins at the second boot",
    },
    Machinery {
        name: "rpi-resize",
        paths: &["/usr/lib/systemd/system/rpi-resize.service", "/etc/init.d/resize2fs_once"],
        word: None,
        after: &["rpi-resize.service", "resize2fs_once.service"],
        setting: None,
        does: "lengthens the root; firstboot waits for it",
    },
    // <https://raspberrypi.github.io/rpi-image-gen/layer/rpi-preseed.html>
    Machinery {
        name: "rpi-preseed",
        paths: &["/usr/lib/systemd/system/rpi-preseed.service", "/usr/lib/rpi-preseed"],
        word: None,
        after: &["rpi-preseed.service", "rpi-preseed-early.service"],
        setting: None,
        does: "applies rpi-preseed.toml; firstboot waits for it, and its host name stays",
    },
    // userconf-pi
    Machinery {
        name: "userconf-pi",
        paths: &["/usr/lib/systemd/system/userconfig.service"],
        word: None,
        after: &["userconfig.service"],
        setting: None,
        does: "asks for an account on the console where none was made; firstboot waits for the answer",
    },
    // armbian/build, packages/bsp/common/usr/lib/armbian
    Machinery {
        name: "Armbian's first run",
        paths: &["/etc/armbian-release", "/usr/lib/armbian/armbian-firstrun"],
        word: None,
        after: &["armbian-firstrun.service", "armbian-firstrun-config.service", "armbian-resize-filesystem.service"],
        setting: None,
        does: "makes SSH host keys and lengthens the root, and asks for accounts at the first log-in",
    },
    Machinery {
        name: "snapd",
        paths: &["/usr/lib/systemd/system/snapd.service"],
        word: None,
        after: &[],
        setting: None,
        does: "updates snaps by itself",
    },
    // <https://github.com/mvo5/unattended-upgrades>, 50unattended-upgrades
    Machinery {
        name: "unattended-upgrades",
        paths: &["/usr/bin/unattended-upgrade"],
        word: None,
        after: &[],
        setting: Some((
            "/etc/apt/apt.conf.d/99firstboot",
            "// Written by firstboot: a node is restarted by its cluster's owner.\n\
             Unattended-Upgrade::Automatic-Reboot \"false\";\n",
        )),
        does: "installs security updates; its restarts are switched off",
    },
    Machinery {
        name: "systemd-firstboot",
        paths: &["/usr/lib/systemd/system/systemd-firstboot.service"],
        word: None,
        after: &["systemd-firstboot.service"],
        setting: None,
        does: "asks for what /etc lacks where it has a console to ask on; firstboot waits for it",
    },
];

/// Names of interfaces that pod networks make. A network manager whose files match all Ethernet, as `Type=ether` does, would
/// otherwise take pods' interfaces out of their bridge and ask for addresses on them.
const POD_LINKS: [&str; 9] =
    ["cni*", "veth*", "kube-*", "flannel*", "cali*", "vxlan.calico", "cilium_*", "lxc*", "nodelocaldns"];

/// The file by which systemd-networkd leaves pods' interfaces alone (systemd.network(5), `Unmanaged=`). The first file that
/// matches counts, by its name in all directories.
pub fn networkd_and_pods() -> (String, String) {
    let names = POD_LINKS.join(" ");
    let text = format!(
        "# Written by firstboot: interfaces of pods are their network's.\n[Match]\nName={names}\n\n[Link]\nUnmanaged=yes\n"
    );
    ("/usr/lib/systemd/network/00-firstboot-pods.network".to_owned(), text)
}

/// The same for NetworkManager (NetworkManager.conf(5), `unmanaged-devices`).
pub fn network_manager_and_pods() -> (String, String) {
    let names: Vec<String> = POD_LINKS.iter().map(|name| format!("interface-name:{name}")).collect();
    let names = names.join(";");
    let text = format!(
        "# Written by firstboot: interfaces of pods are their network's.\n[keyfile]\nunmanaged-devices+={names}\n"
    );
    ("/usr/lib/NetworkManager/conf.d/90-firstboot-pods.conf".to_owned(), text)
}

/// What cloud-init is not to run, whatever user data of the device says: `manage_etc_hosts: true` there is worth more than
/// `false` in a file of the image, and Raspberry Pi Imager writes it.
const NOT_OF_CLOUD_INIT: [&str; 3] = ["set_hostname", "update_hostname", "update_etc_hosts"];

/// The list `cloud_init_modules` of the image's `cloud.cfg` without [`NOT_OF_CLOUD_INIT`], to be appended to cloud-init's
/// setting; `None` where there is no such list.
pub fn cloud_init_modules(configuration: &str) -> Option<String> {
    let mut text = "cloud_init_modules:\n".to_owned();
    let list = configuration.lines().skip_while(|line| line.trim_end() != "cloud_init_modules:").skip(1);
    let items = list.take_while(|line| line.starts_with([' ', '-', '#']) || line.trim().is_empty());
    let mut any = false;
    for item in items.filter_map(|line| line.trim().strip_prefix('-')) {
        let name = item.trim().trim_start_matches('[').split([',', ']', ' ']).next().unwrap_or_default();
        if !NOT_OF_CLOUD_INIT.contains(&name.replace('-', "_").as_str()) {
            text += &format!("  - {}\n", item.trim());
            any = true;
        }
    }
    any.then_some(text)
}

/// The drop-in of `firstboot.service` that puts it after all of these; `None` where there is nothing to wait for. A unit that
/// is not there is no error in it (systemd.unit(5), "After=").
pub fn drop_in(found: &[&Machinery]) -> Option<String> {
    let units: Vec<&str> = found.iter().flat_map(|machinery| machinery.after).copied().collect();
    (!units.is_empty()).then(|| {
        format!("# What this image does by itself at its first boot comes first.\n[Unit]\nAfter={}\n", units.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_can_be_found_and_none_waits_for_what_waits_for_firstboot() {
        for machinery in KNOWN {
            assert!(!machinery.paths.is_empty() || machinery.word.is_some(), "{}", machinery.name);
            // cloud-final.service is after multi-user.target, before which firstboot.service is.
            assert!(
                !machinery.after.contains(&"cloud-final.service") && !machinery.after.contains(&"multi-user.target")
            );
            assert!(machinery.setting.is_none_or(|(path, text)| path.starts_with("/etc/") && text.ends_with('\n')));
        }
        let mut names: Vec<&str> = KNOWN.iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
    }

    #[test]
    fn cloud_init_keeps_all_modules_but_those_that_name_the_host() {
        let list = "a: 1\ncloud_init_modules:\n - growpart\n # c\n - set_hostname\n - update-hostname\n - [update_etc_hosts, \
                    always]\n - ssh\n\ncloud_config_modules:\n - mounts\n";
        assert_eq!(cloud_init_modules(list).as_deref(), Some("cloud_init_modules:\n  - growpart\n  - ssh\n"));
        assert_eq!(cloud_init_modules("users: []\n"), None);
    }

    #[test]
    fn the_drop_in_names_all_units() {
        let found: Vec<&Machinery> = KNOWN.iter().filter(|m| ["snapd", "rpi-resize"].contains(&m.name)).collect();
        let text = drop_in(&found).unwrap_or_default();
        assert!(text.ends_with("[Unit]\nAfter=rpi-resize.service resize2fs_once.service\n"), "{text}");
        assert_eq!(drop_in(&[&KNOWN[7]]), None, "{}", KNOWN[7].name);
    }
}
