// SPDX-License-Identifier: Apache-2.0
//! `Preseed::parse`: nothing shown depends on the password of the Wi-Fi, whatever Raspberry Pi Imager wrote; what a seed says
//! itself stays.

use firstboot::fault::Fault;
use firstboot::seed::preseed::Preseed;
use firstboot::seed::{Seed, parse};

use crate::secrets::{twin, value};

/// A seed that says all of it itself.
const WHOLE: &str = "version = 1\n[cluster]\napiserver = \"10.0.0.1\"\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = \
    \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n[node]\nname = \"own\"\n[network]\n\
    interface = \"eth0\"\n[access]\nssh-keys = \"ssh-ed25519 \
    AAAAC3NzaC1lZDI1NTE5AAAAIHl2Vb5d7bGm3mzS1mUvU1RtO1QkGq0pQZ5r0n7yq1aB me\"\n";

/// Everything that can be seen of a result.
fn shown(result: &Result<Preseed, Fault>) -> String {
    match result {
        Ok(preseed) => format!("{preseed:?}"),
        Err(fault) => format!("{} {fault}", fault.code),
    }
}

fn whole() -> Seed {
    parse(WHOLE.as_bytes()).expect("it is a seed")
}

pub fn run(input: &[u8]) {
    let result = Preseed::parse(input);
    let output = shown(&result);
    assert!(result.is_ok() || !output.chars().any(char::is_control), "more than a line: {output:?}");
    if let Ok(preseed) = result {
        let mut seed = whole();
        preseed.complete(&mut seed);
        assert_eq!(seed, whole(), "what the seed says has changed");
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let passwords: Vec<_> = ["wlan", "user"].iter().filter_map(|table| value(text, table, "password")).collect();
    if !passwords.is_empty() {
        assert_eq!(output, shown(&Preseed::parse(twin(text, passwords).as_bytes())), "it depends on a password");
    }
}
