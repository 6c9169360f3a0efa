// SPDX-License-Identifier: Apache-2.0
//! Random seeds, most of whose values are right or nearly so: what people write, what other tools take, and what is one
//! character away from either.

use fastrand::Rng;
use serde::Deserialize;
use std::fmt::Write;
use std::sync::OnceLock;

/// Characters that some program reads otherwise than as themselves.
const ODD: &str = "%\"'\\$#;:,=@/?&|<>(){}[]*!~^`+-._ \tñ€\u{a0}\u{200b}0aZ";

/// Values by key.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Values {
    apiserver: Vec<String>,
    name: Vec<String>,
    labels: Vec<(String, String)>,
    taints: Vec<String>,
    addresses: Vec<String>,
    ip: Vec<String>,
    interface: Vec<String>,
    proxy: Vec<String>,
    no_proxy: Vec<String>,
    ssid: Vec<String>,
    password: Vec<String>,
    country: Vec<String>,
    security: Vec<String>,
    servers: Vec<String>,
    registry: Vec<String>,
    mirrors: Vec<String>,
    ssh_keys: Vec<String>,
    user: Vec<String>,
    networks: Vec<String>,
    open: Vec<String>,
}

#[allow(clippy::expect_used)] // a file of this program
fn values() -> &'static Values {
    static VALUES: OnceLock<Values> = OnceLock::new();
    VALUES.get_or_init(|| toml::from_str(include_str!("values.toml")).expect("read values.toml"))
}

/// A seed that is accepted with any right line of `[kubelet.config]` at its end.
pub const KUBELET_SEED: &str = "version = 1\n[cluster]\ntoken = \"abcdef.0123456789abcdef\"\napiserver = \"10.0.0.1:6443\"\n\
    ca-cert-hashes = \"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\"\n[kubelet.config]\n";

/// Cases of `[kubelet.config]`, each of one or more lines of TOML.
pub fn kubelet_cases() -> &'static [Vec<String>] {
    static CASES: OnceLock<Vec<Vec<String>>> = OnceLock::new();
    CASES.get_or_init(|| {
        let lines = include_str!("kubelet_values.txt").lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split("; ").map(str::to_owned).collect()).collect()
    })
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A value, in one of sixteen cases with one character put in, taken out or changed; in TOML's quotes.
fn value(rng: &mut Rng, all: &[String]) -> String {
    let text = &all[rng.usize(..all.len())];
    quoted(&if rng.u8(..16) == 0 { changed(rng, text) } else { text.clone() })
}

/// The same with one character put in, taken out or changed.
fn changed(rng: &mut Rng, text: &str) -> String {
    let mut text: Vec<char> = text.chars().collect();
    let at = rng.usize(..=text.len());
    let c = ODD.chars().nth(rng.usize(..ODD.chars().count())).unwrap_or_default();
    match rng.u8(..3) {
        0 => text.insert(at, c),
        1 if at < text.len() => text[at] = c,
        _ if at < text.len() => drop(text.remove(at)),
        _ => {}
    }
    text.into_iter().collect()
}

fn list(rng: &mut Rng, all: &[String], most: usize) -> String {
    let values: Vec<String> = (0..rng.usize(1..=most)).map(|_| value(rng, all)).collect();
    format!("[{}]", values.join(", "))
}

/// The text of a seed. Every table may be there, every key of it too.
pub fn seed(rng: &mut Rng) -> String {
    let mut text = "version = 1\n[cluster]\ntoken = \"abcdef.0123456789abcdef\"\n".to_owned();
    let _ = writeln!(text, "apiserver = {}", list(rng, &values().apiserver, 2));
    let _ = writeln!(text, "ca-cert-hashes = \"sha256:{}\"", "0a".repeat(32));
    let mut section = |rng: &mut Rng, name: &str, often: u8, keys: &mut dyn FnMut(&mut Rng) -> String| {
        if rng.u8(..8) < often {
            let _ = write!(text, "[{name}]\n{}", keys(rng));
        }
    };
    section(rng, "node", 4, &mut node);
    section(rng, "network", 5, &mut network);
    section(rng, "time", 2, &mut |rng| format!("servers = {}\n", list(rng, &values().servers, 2)));
    section(rng, "kubelet.config", 2, &mut kubelet);
    let registry = value(rng, &values().registry);
    section(rng, &format!("registries.{registry}"), 2, &mut registries);
    section(rng, "access", 2, &mut access);
    section(rng, "harden", 2, &mut harden);
    text
}

/// Makes a value.
type Make<'a> = &'a dyn Fn(&mut Rng) -> String;

/// A line for each key, each there in one of two cases.
fn keys(rng: &mut Rng, all: &[(&str, Make<'_>)]) -> String {
    let mut text = String::new();
    for (key, make) in all {
        if rng.bool() {
            let _ = writeln!(text, "{key} = {}", make(rng));
        }
    }
    text
}

fn node(rng: &mut Rng) -> String {
    let labels = |rng: &mut Rng| {
        let mut all: Vec<(String, String)> =
            (0..rng.usize(1..=3)).map(|_| values().labels[rng.usize(..values().labels.len())].clone()).collect();
        all.sort_unstable();
        all.dedup_by(|(a, _), (b, _)| a == b);
        let all: Vec<String> = all.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
        format!("{{ {} }}", all.join(", "))
    };
    keys(
        rng,
        &[
            ("name", &|rng| value(rng, &values().name)),
            ("role", &|rng| quoted(if rng.bool() { "edge" } else { "worker" })),
            ("labels", &labels),
            ("taints", &|rng| list(rng, &values().taints, 3)),
        ],
    )
}

fn network(rng: &mut Rng) -> String {
    let wifi = |rng: &mut Rng| {
        let mut parts = vec![
            format!("ssid = {}", value(rng, &values().ssid)),
            format!("country = {}", value(rng, &values().country)),
        ];
        if rng.u8(..8) > 0 {
            parts.push(format!("password = {}", value(rng, &values().password)));
        }
        if rng.bool() {
            parts.push(format!("security = {}", value(rng, &values().security)));
        }
        if rng.u8(..8) == 0 {
            parts.push(format!("hidden = {}", rng.bool()));
        }
        format!("{{ {} }}", parts.join(", "))
    };
    let mut text = keys(
        rng,
        &[
            ("interface", &|rng| value(rng, &values().interface)),
            ("addresses", &|rng| list(rng, &values().addresses, 2)),
            ("gateway", &|rng| list(rng, &values().ip, 2)),
            ("dns", &|rng| list(rng, &values().ip, 2)),
            ("proxy", &|rng| value(rng, &values().proxy)),
            ("no-proxy", &|rng| list(rng, &values().no_proxy, 3)),
        ],
    );
    let mut often = |eighths: u8, line: &dyn Fn(&mut Rng) -> String| {
        if rng.u8(..8) < eighths {
            text += &line(rng);
        }
    };
    often(2, &|rng| format!("dhcp = {}\n", rng.bool()));
    often(1, &|rng| format!("vlan = {}\n", rng.u16(..4100)));
    often(3, &|rng| format!("wifi = {}\n", wifi(rng)));
    text
}

/// Lines of `[kubelet.config]`, mostly cases that are right by themselves: few seeds of several tables would be accepted
/// otherwise.
pub fn kubelet(rng: &mut Rng) -> String {
    static RIGHT: OnceLock<Vec<&'static Vec<String>>> = OnceLock::new();
    let right = RIGHT.get_or_init(|| {
        let seed = |case: &Vec<String>| format!("{KUBELET_SEED}{}\n", case.join("\n"));
        kubelet_cases().iter().filter(|case| firstboot::seed::parse(seed(case).as_bytes()).is_ok()).collect()
    });
    let case = |rng: &mut Rng| match rng.u8(..8) {
        0 => &kubelet_cases()[rng.usize(..kubelet_cases().len())],
        _ => right[rng.usize(..right.len())],
    };
    let mut all: Vec<&String> = (0..rng.usize(1..=2)).flat_map(|_| case(rng)).collect();
    all.sort_unstable();
    all.dedup_by(|a, b| a.split(' ').next() == b.split(' ').next());
    all.into_iter()
        .map(|line| format!("{}\n", if rng.u8(..16) == 0 { changed(rng, line) } else { line.clone() }))
        .collect()
}

fn registries(rng: &mut Rng) -> String {
    let mut text = String::new();
    if rng.u8(..8) > 0 {
        let _ = writeln!(text, "mirrors = {}", list(rng, &values().mirrors, 3));
    }
    if rng.u8(..4) == 0 {
        let _ =
            writeln!(text, "username = {}\npassword = {}", value(rng, &values().user), value(rng, &values().password));
    }
    text
}

fn access(rng: &mut Rng) -> String {
    keys(
        rng,
        &[
            ("ssh-keys", &|rng| list(rng, &values().ssh_keys, 2)),
            ("ssh-from", &|rng| list(rng, &values().networks, 2)),
            ("user", &|rng| value(rng, &values().user)),
        ],
    )
}

fn harden(rng: &mut Rng) -> String {
    keys(
        rng,
        &[
            ("open", &|rng| list(rng, &values().open, 3)),
            ("kubelet-from", &|rng| list(rng, &values().networks, 2)),
            ("egress", &|rng| list(rng, &values().networks, 2)),
            ("forward", &|rng| rng.bool().to_string()),
        ],
    )
}
