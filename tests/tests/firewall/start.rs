// SPDX-License-Identifier: Apache-2.0
//! S21: what is asked of the packet filter before a link comes up, by either manager of networks.

use super::fixture::Fixture;

const UNITS: [&str; 2] = [
    include_str!("../../../firstboot/units/systemd-networkd.service.d/10-firstboot.conf"),
    include_str!("../../../firstboot/units/NetworkManager.service.d/10-firstboot.conf"),
];

/// Whether a unit with this drop-in starts on this device: every condition is a program and its words, in single
/// quotation marks where they hold blanks.
fn starts(fixture: &Fixture, unit: &str) -> bool {
    let conditions: Vec<&str> = unit.lines().filter_map(|l| l.strip_prefix("ExecCondition=+")).collect();
    assert!(!conditions.is_empty(), "{unit}");
    conditions.iter().all(|line| {
        let quoted: Vec<&str> = line.split('\'').collect();
        let words = quoted.iter().enumerate().flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().collect::<Vec<_>>(),
            _ => vec![*part],
        });
        let words: Vec<&str> = words.collect();
        fixture.device.run(words[0], &words[1..]).is_ok()
    })
}

#[test]
fn s21_no_link_without_the_whole_filter() {
    if !e2e::can_network() {
        return;
    }
    let fixture = Fixture::new(&[9100]);
    let all = |wanted: bool, why: &str| {
        for unit in UNITS {
            assert_eq!(starts(&fixture, unit), wanted, "{why}: {unit}");
        }
    };
    all(false, "no table");
    let more = "[harden]\nopen = \"tcp/9100\"\negress = \"192.0.2.0/24\"\n";
    for seed in ["", more] {
        fixture.filter(seed);
        all(true, "as it is loaded");
    }
    for change in [
        "flush table inet firstboot",
        "flush chain inet firstboot input",
        "add chain inet firstboot input { policy accept ; }",
        "add chain inet firstboot forward { policy accept ; }",
        "delete table inet firstboot",
    ] {
        fixture.filter("");
        fixture.nft(&change.split(' ').collect::<Vec<_>>());
        all(false, change);
    }
    // A chain of that name that no packet passes.
    fixture.load("table inet firstboot {\n chain input {\n ct state established,related accept\n }\n}\n");
    all(false, "no hook");
}
