// SPDX-License-Identifier: Apache-2.0
//! `[access]` and `[harden]`: what is read, and what is refused by which message.

use super::table_tests::{read, seed};
use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn who_may_log_in_is_read() {
    assert_eq!(read(&seed("")).access, Access::default());
    let access = read(&seed(&format!(
        "[access]\nssh-keys = [\"{ED25519} someone at work\", \"{ED25519}\"]\nssh-from = [\"10.0.0.0/24\", \"fd00::1\"]\nuser = \"ops\"\n"
    )))
    .access;
    assert_eq!(access.user, "ops");
    let keys: Vec<String> = access.keys.iter().map(ToString::to_string).collect();
    assert_eq!(keys, [format!("{ED25519} someone at work"), ED25519.to_owned()]);
    assert_eq!(access.from.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/24", "fd00::1/128"]);
}

#[test]
fn who_may_not_log_in_is_refused() {
    const KEY: &str =
        "seed.toml:7: malformed ssh-keys in [access]: expected a line of a .pub file, as in ssh-ed25519 AAAA… name";
    let refused = |more: &str, text: &str| {
        let error = parse(seed(more).as_bytes()).expect_err(more).to_string();
        assert!(error == text || text == KEY && error.starts_with(KEY), "{error}");
    };
    refused("[access]\nssh-keys = \"ssh-ed25519\"\n", KEY);
    refused(&format!("[access]\nssh-keys = '''command=\"x\" {ED25519}'''\n"), KEY);
    refused("[access]\nssh-keys = \"ssh-dss AAAAB3NzaC1kc3MAAAAA\"\n", KEY);
    refused(
        "[access]\nssh-keys = \"ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n",
        KEY,
    );
    refused(
        "[access]\nssh-keys = \"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAgD/\"\n",
        "seed.toml:7: malformed ssh-keys in [access]: expected an RSA key of at least 3072 bits, or better ssh-ed25519",
    );
    refused("[access]\nuser = \"ops\"\n", "seed.toml:7: user in [access] is nothing without ssh-keys");
    refused("[access]\nssh-from = \"::/0\"\n", "seed.toml:7: ssh-from in [access] is nothing without ssh-keys");
    refused(
        &format!("[access]\nuser = \"root\"\nssh-keys = \"{ED25519}\"\n"),
        "seed.toml:7: malformed user in [access]: expected the name of an account for people, a-z, 0-9, - and _, not root",
    );
    refused("[access]\npassword = \"x\"\n", "seed.toml:7: unknown key \"password\" in [access]");
}

#[test]
fn what_differs_on_the_hardened_host_is_read() {
    assert_eq!(read(&seed("[harden]\n")).harden, Harden::default());
    let harden = read(&seed(
        "[harden]\nopen = [\"udp/8472\", \"tcp/30000-30010\"]\nkubelet-from = \"10.0.0.7\"\negress = []\nmodules = \
         \"nfs-layout\"\nsysctl = { \"net.ipv4.conf.all.rp_filter\" = \"2\" }\n",
    ))
    .harden;
    assert_eq!(harden.open.iter().map(ToString::to_string).collect::<Vec<_>>(), ["udp/8472", "tcp/30000-30010"]);
    assert_eq!(harden.kubelet_from[0].to_string(), "10.0.0.7/32");
    assert_eq!(harden.egress, Some(Vec::new()));
    assert_eq!(harden.modules, ["nfs_layout"]);
    assert_eq!(harden.sysctl["net.ipv4.conf.all.rp_filter"], "2");
}

#[test]
fn what_cannot_be_told_a_host_is_refused() {
    const PORT: &str = "seed.toml:7: malformed open in [harden]: expected PROTOCOL/PORT or PROTOCOL/FIRST-LAST, as in udp/8472 or tcp/30000-30010";
    const NET: &str = "seed.toml:7: malformed kubelet-from in [harden]: expected an address or a network, as in 10.0.0.7, 10.0.0.0/24 or 2001:db8::/64";
    const SETTING: &str = "seed.toml:7: value of \"vm.swappiness\" in [harden] sysctl must be a string in quotes";
    for (more, text) in [
        ("open = \"8472\"", PORT),
        ("open = \"tcp/0\"", PORT),
        ("open = \"tcp/+80\"", PORT),
        ("open = \"tcp/70000\"", PORT),
        ("open = \"icmp/8\"", PORT),
        (
            "open = \"tcp/2-1\"",
            "seed.toml:7: malformed open in [harden]: expected the first port before the last, as in tcp/30000-30010",
        ),
        ("kubelet-from = \"example.com\"", NET),
        (
            "kubelet-from = \"10.0.0.7/24\"",
            "seed.toml:7: malformed kubelet-from in [harden]: expected a network without bits behind its prefix, as in 10.0.0.0/24",
        ),
        ("sysctl = 1", "seed.toml:7: sysctl in [harden] must be a table: sysctl = { \"NAME\" = \"VALUE\" }"),
        ("sysctl = { \"vm.swappiness\" = 1 }", SETTING),
        ("sysctl = { \"vm.swappiness\" = \"1\\n2\" }", SETTING),
        ("sysctl = { \"../x\" = \"1\" }", "seed.toml:7: unknown setting \"../x\" in [harden] sysctl"),
        ("sysctl = { \"kernel..x\" = \"1\" }", "seed.toml:7: unknown setting \"kernel..x\" in [harden] sysctl"),
        (
            "modules = \"a b\"",
            "seed.toml:7: malformed modules in [harden]: expected the name of a kernel module, as in sctp",
        ),
        ("firewall = false", "seed.toml:7: unknown key \"firewall\" in [harden]"),
    ] {
        assert_eq!(parse(seed(&format!("[harden]\n{more}\n")).as_bytes()).expect_err(more).to_string(), text);
    }
}
