// SPDX-License-Identifier: Apache-2.0
//! `join`, `[network]`, `[time]`, `[kubelet]` and `[registries]`: what is read, and what is refused by which message.

use super::*;

const PIN: &str = "sha256:a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1c2d3e4f5a0b1";
const TOKEN: &str = "abcdef.q7w2e9r4t1y6u8i3";

/// A seed that is read; `more` begins in line 6.
pub(super) fn seed(more: &str) -> String {
    format!(
        "version = 1\n[cluster]\napiserver = \"10.0.2.2:6443\"\ntoken = \"{TOKEN}\"\nca-cert-hashes = [\"{PIN}\"]\n{more}"
    )
}

/// A seed by kubeadm's line, which stands in line 2; `more` begins in line 3.
fn by_line(flags: &str, more: &str) -> String {
    format!("version = 1\njoin = \"kubeadm join 10.0.2.2:6443 --token {TOKEN} {flags}\"\n{more}")
}

fn pinned() -> String {
    format!("--discovery-token-ca-cert-hash {PIN}")
}

pub(super) fn read(text: &str) -> Seed {
    parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn kubeadms_line_is_a_cluster() {
    let plain = read(&seed(""));
    for text in [
        by_line(&pinned(), ""),
        format!("version = 1\njoin = \"\"\"\nkubeadm join 10.0.2.2:6443 --token {TOKEN} \\\n\t{}\n\"\"\"\n", pinned()),
        format!("version = 1\njoin = '''kubeadm join 10.0.2.2:6443 --token {TOKEN} \\\n\t{}'''\n", pinned()),
        by_line(&pinned(), "[node]\nrole = \"edge\"\n"),
    ] {
        assert_eq!(read(&text).membership, plain.membership, "{text}");
    }
    let named = read(&by_line(&format!("{} --node-name shop-1", pinned()), ""));
    assert_eq!(named.node.name.unwrap().render(|_| None).unwrap(), "shop-1");
    let expires = read(&by_line(&pinned(), "[cluster]\ntoken-expires = 2026-11-23T12:00:00Z\n"));
    assert!(expires.join().unwrap().token_expires.is_some());
    // The device overwrites the token in the line too, and it stays the same seed.
    let text = by_line(&pinned(), "");
    let spent = read(&text.replace("q7w2e9r4t1y6u8i3", JoinToken::ERASED));
    assert!(spent.join().unwrap().token.is_erased());
    assert_eq!(spent.digest(), read(&text).digest());
}

#[test]
fn every_new_key() {
    let seed = read(&seed(
        r#"
[network]
interface = "02-00-5E-00-53-01"
addresses = ["192.0.2.10/24", "2001:db8::10/64"]
gateway = ["192.0.2.1", "fe80::1"]
dns = "192.0.2.53"
vlan = 42
proxy = "http://user:hunter22@proxy:3128"
no-proxy = [".example.com", "10.0.0.0/8"]
[time]
servers = ["192.0.2.1", "NTP.example.com"]
[kubelet.config]
maxPods = 60
evictionHard = { "memory.available" = "50Mi" }
featureGates.NodeSwap = true
memoryThrottlingFactor = 0.9
[registries."docker.io"]
mirrors = ["https://mirror.example:5000/", "http://192.0.2.7/v2/hub"]
[registries."*"]
mirrors = "https://all.example"
"#,
    ));
    let network = seed.network;
    assert_eq!(network.interface, Some(Interface::Mac("02:00:5e:00:53:01".into())));
    assert!(!network.dhcp && network.wifi.is_none());
    let ips: Vec<String> = network.node_ips().iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["192.0.2.10", "2001:db8::10"]);
    let both = Network { dhcp: true, ..network.clone() };
    assert!(both.node_ips().is_empty() && Network::default().node_ips().is_empty());
    assert_eq!(
        network.addresses.iter().map(|a| a.to_string()).collect::<Vec<_>>(),
        ["192.0.2.10/24", "2001:db8::10/64"]
    );
    assert_eq!(network.gateway.iter().map(|a| a.to_string()).collect::<Vec<_>>(), ["192.0.2.1", "fe80::1"]);
    assert_eq!((network.dns.len(), network.vlan), (1, Some(42)));
    assert_eq!(*network.via.proxy.as_ref().unwrap().url(), "http://user:hunter22@proxy:3128");
    assert_eq!(network.via.direct.iter().map(|d| d.as_str()).collect::<Vec<_>>(), [".example.com", "10.0.0.0/8"]);
    assert_eq!(seed.time.servers, ["192.0.2.1", "ntp.example.com"]);
    assert_eq!(
        serde_json::to_string(&seed.kubelet.config).unwrap(),
        r#"{"evictionHard":{"memory.available":"50Mi"},"featureGates":{"NodeSwap":true},"maxPods":60,"memoryThrottlingFactor":0.9}"#
    );
    let shown: Vec<String> = seed
        .registries
        .iter()
        .flat_map(|r| r.mirrors.iter().map(|m| format!("{} {} {}", r.name, m.url, m.whole_path)))
        .collect();
    assert_eq!(
        shown,
        [
            "* https://all.example false",
            "docker.io https://mirror.example:5000 false",
            "docker.io http://192.0.2.7/v2/hub true"
        ]
    );
}

#[test]
fn a_radio_network() {
    let text = seed("[network.wifi]\nssid = \"Café 1\"\npassword = \"correct horse\"\ncountry = \"de\"\n");
    let seed = read(&text);
    let wifi = seed.network.wifi.clone().unwrap();
    assert_eq!((wifi.ssid.as_str(), wifi.country.as_str(), wifi.security), ("Café 1", "DE", Security::Both));
    assert_eq!(wifi.password.unwrap().expose(), "correct horse");
    assert!(seed.network.dhcp);
    assert!(!format!("{seed:?}").contains("correct horse"));
    // From the digest, which is kept, a weak password could be found by trying.
    assert_eq!(read(&text.replace("correct horse", "battery staple")).digest(), seed.digest());
    assert_ne!(read(&text.replace("Café 1", "Café 2")).digest(), seed.digest());
    let proxied =
        |password: &str| read(&super::table_tests::seed(&format!("[network]\nproxy = \"http://a:{password}@b:1\"\n")));
    assert_eq!(proxied("one").digest(), proxied("two").digest());
    assert!(!format!("{:?}", proxied("hunter22")).contains("hunter22"));
}

#[test]
fn without_the_tables() {
    let seed = read(&seed(""));
    assert_eq!(seed.network, Network::default());
    assert!(seed.network.dhcp && seed.time.servers.is_empty());
    assert!(seed.kubelet.config.is_empty() && seed.registries.is_empty());
}

/// (seed, message).
fn bad() -> Vec<(String, &'static str)> {
    let network = |lines: &str| seed(&format!("[network]\n{lines}\n"));
    let wifi = |lines: &str| {
        let rest = "ssid = \"a\"\npassword = \"12345678\"\ncountry = \"DE\"\n";
        let key = lines.split(' ').next().unwrap_or_default();
        let rest: Vec<&str> = rest.lines().filter(|l| !l.starts_with(key)).collect();
        seed(&format!("[network.wifi]\n{lines}\n{}\n", rest.join("\n")))
    };
    let kubelet = |line: &str| seed(&format!("[kubelet.config]\n{line}\n"));
    let registry = |name: &str, lines: &str| seed(&format!("[registries.\"{name}\"]\n{lines}\n"));
    const ADDRESS: &str = "seed.toml:7: malformed addresses in [network]: expected an address with the prefix length of its \
                           network, as in 192.0.2.10/24";
    const SERVER: &str = "seed.toml:7: malformed dns in [network]: expected an IP address, as in 192.0.2.1";
    const INTERFACE: &str = "seed.toml:7: malformed interface in [network]: expected an interface name as in eth0, or a MAC \
                             address as in 02:00:5e:00:53:01";
    const PASSWORD: &str = "seed.toml:7: malformed password in [network.wifi]: expected a passphrase, 8 to 63 ASCII \
                            characters, or a key, 64 hexadecimal digits";
    const SSID: &str = "seed.toml:7: malformed ssid in [network.wifi]: expected the network's name, 1 to 32 bytes";
    const MIRROR: &str = "seed.toml:7: malformed mirrors in [registries.docker.io]: expected https://HOST[:PORT][/PATH], as in \
                          https://mirror.example:5000";
    const REGISTRY: &str = ": expected HOST, HOST:PORT or *, as in [registries.\"docker.io\"]";
    const URL: &str = ": expected HOST or HOST:PORT without https:// and path, as in [registries.\"docker.io\"]";
    let static_address = "addresses = \"192.0.2.10/24\"\n";
    let mut all = vec![
        // join
        ("version = 1\njoin = 1\n".to_owned(), "seed.toml:2: join must be a string in quotes"),
        (
            by_line("", ""),
            "seed.toml:2: join has no --discovery-token-ca-cert-hash: without it the cluster cannot be distinguished from an \
             impostor (ca-cert in [cluster] does as well)",
        ),
        (
            by_line("--control-plane", ""),
            "seed.toml:2: malformed join: --control-plane is refused: use the seed join-control-plane.toml of the first control plane instead",
        ),
        (
            by_line(&pinned(), "[cluster]\napiserver = \"a\"\n"),
            "seed.toml:4: join and apiserver in [cluster] are both set: the line says it already",
        ),
        (
            by_line(&pinned(), &format!("[cluster]\ntoken = \"{TOKEN}\"\n")),
            "seed.toml:4: join and token in [cluster] are both set: the line says it already",
        ),
        (
            by_line(&pinned(), &format!("[cluster]\nca-cert-hashes = [\"{PIN}\"]\n")),
            "seed.toml:4: join and ca-cert-hashes in [cluster] are both set: the line says it already",
        ),
        (
            by_line(&format!("{} --node-name a", pinned()), "[node]\nname = \"a\"\n"),
            "seed.toml:2: --node-name in join and name in [node] are both set: give one",
        ),
        (
            seed("[node.labels]\njoin = \"kubeadm join a:1\"\n"),
            "seed.toml:7: malformed label \"join\" in [node]; it belongs at the top, before any table",
        ),
        (
            kubelet("join = \"kubeadm join a:1\""),
            "seed.toml:7: unknown field \"join\" in [kubelet.config]; it belongs at the top, before any table",
        ),
        (
            seed("[registries]\njoin = \"kubeadm join a:1\"\n"),
            "seed.toml:7: malformed registry \"join\" in [registries]; it belongs at the top, before any table",
        ),
        (
            format!("version = 1\njoin = \"kubeadm join a:1 --token abcdef.q7w2e9r4't1y6u8i3' {}\"\n", pinned()),
            "seed.toml: write the token in one piece, without escapes: it could not be erased",
        ),
        (
            seed("").replace("q7w2", "\\u00717w2"),
            "seed.toml: write the token in one piece, without escapes: it could not be erased",
        ),
        // [network]
        (network("dhpc = true"), "seed.toml:7: unknown key \"dhpc\" in [network]; did you mean dhcp?"),
        (network("interface = 1"), "seed.toml:7: interface in [network] must be a string in quotes"),
        (network("interface = \"an interface\""), INTERFACE),
        (network("interface = \"interfacenumber1\""), INTERFACE),
        (network("interface = \"lo\""), INTERFACE),
        (network("interface = \"02:00:5e:00:53\""), INTERFACE),
        (
            network("interface = \"ff:ff:ff:ff:ff:ff\""),
            "seed.toml:7: malformed interface in [network]: expected the MAC address of one interface",
        ),
        (network("dhcp = \"yes\""), "seed.toml:7: dhcp in [network] must be true or false, without quotes"),
        (network("dhcp = false"), "seed.toml:7: addresses is missing in [network]: they are required without DHCP"),
        (network("addresses = \"192.0.2.10\""), ADDRESS),
        (network("addresses = \"192.0.2.0/24\""), ADDRESS),
        (network("addresses = \"192.0.2.255/24\""), ADDRESS),
        (network("addresses = \"192.0.2.10/33\""), ADDRESS),
        (network("addresses = \"127.0.0.1/8\""), ADDRESS),
        (
            network("addresses = \"fe80::1/64\""),
            "seed.toml:7: malformed addresses in [network]: expected no link-local address: kubelet takes none for its node's",
        ),
        (network("addresses = \"224.0.0.1/4\""), ADDRESS),
        (
            network("addresses = [\"10.0.2.10/24\", \"10.0.2.10/25\"]"),
            "seed.toml:7: addresses in [network] names one address twice",
        ),
        (
            network(static_address),
            "seed.toml:6: gateway is missing in [network]: no API server is within the networks of addresses",
        ),
        (
            network(&format!("gateway = \"192.0.2.255\"\n{static_address}")),
            "seed.toml:7: gateway in [network] is the network's own address or its broadcast address",
        ),
        (
            network(&format!("gateway = \"2001:db8::1\"\n{static_address}")),
            "seed.toml:7: gateway in [network] is an IPv6 address, but addresses has none of that family",
        ),
        (
            network(&format!("gateway = \"192.0.2.10\"\n{static_address}")),
            "seed.toml:7: gateway in [network] is an address of this device itself",
        ),
        (
            network(&format!("gateway = [\"192.0.2.1\", \"192.0.2.2\"]\n{static_address}")),
            "seed.toml:7: gateway in [network] names two of one address family",
        ),
        (network("dns = \"dns.example.com\""), SERVER),
        (network("dns = [\"0.0.0.0\"]"), SERVER),
        (network("dns = [\"127.0.0.53\"]"), SERVER),
        (network("vlan = 0"), "seed.toml:7: vlan in [network] must be a number from 1 to 4094"),
        (network("vlan = 4095"), "seed.toml:7: vlan in [network] must be a number from 1 to 4094"),
        (network("vlan = \"42\""), "seed.toml:7: vlan in [network] must be a number from 1 to 4094, without quotes"),
        (
            network("vlan = 42\nwifi = { ssid = \"a\", password = \"12345678\", country = \"DE\" }"),
            "seed.toml:7: vlan and wifi are both set in [network]: a Wi-Fi network carries no VLANs",
        ),
        (
            network("wifi = \"home\""),
            "seed.toml:7: wifi in [network] must be a table: wifi = { ssid = \"…\", password = \"…\", country = \"DE\" }",
        ),
        (
            network("wifi = { ssid = \"a\", password = \"12345678\" }"),
            "seed.toml:7: country is missing in [network.wifi]",
        ),
        (
            network("wifi = { ssid = \"a\", country = \"DE\" }"),
            "seed.toml:7: password is missing in [network.wifi]; a network without one takes security = \"open\"",
        ),
        (wifi("psk = \"12345678\""), "seed.toml:7: unknown key \"psk\" in [network.wifi]; did you mean password?"),
        (wifi("ssid = \"\""), SSID),
        (wifi("ssid = \"üüüüüüüüüüüüüüüüü\""), SSID),
        (wifi("ssid = \"a\\nb\""), SSID),
        (wifi("password = \"1234567\""), PASSWORD),
        (
            wifi("country = \"DEU\""),
            "seed.toml:7: malformed country in [network.wifi]: expected a country's code of ISO 3166-1, two letters, as in \
             DE",
        ),
        (
            wifi("security = \"wep\""),
            "seed.toml:7: malformed security in [network.wifi]: expected \"wpa2+wpa3\", \"wpa2\", \"wpa3\" or \
             \"open\"",
        ),
        (
            network("proxy = \"proxy:3128\""),
            "seed.toml:7: malformed proxy in [network]: expected http://HOST:PORT or http://USER:PASSWORD@HOST:PORT",
        ),
        (
            network("proxy = \"https://proxy:3128\""),
            "seed.toml:6: proxy in [network] is https://, which kubelet verifies by the cluster's CA alone: add API \
             server 10.0.2.2 to no-proxy, or use http://",
        ),
        (
            network("proxy = \"socks5://proxy:3128\""),
            "seed.toml:7: malformed proxy in [network]: expected a proxy with http:// or https://",
        ),
        (
            network("proxy = \"http://proxy:3128\"\nno-proxy = \"a,b\""),
            "seed.toml:8: malformed no-proxy in [network]: expected a host, .DOMAIN, an address, ADDRESS/PREFIX, or *",
        ),
        (network("no-proxy = \"*\""), "seed.toml:7: no-proxy in [network] says nothing without proxy"),
        // [time]
        (seed("[time]\nserver = \"a\"\n"), "seed.toml:7: unknown key \"server\" in [time]; did you mean servers?"),
        (
            seed("[time]\nservers = [\"https://a\"]\n"),
            "seed.toml:7: malformed servers in [time]: expected a host name or an IP address, as in ntp.example.com",
        ),
        // [kubelet]
        (
            seed("[kubelet]\nmaxPods = 60\n"),
            "seed.toml:7: unknown key \"maxPods\" in [kubelet]; maxPods belongs in [kubelet.config]",
        ),
        (seed("[kubelet]\nconfig = 1\n"), "seed.toml:7: config in [kubelet] must be a table: [kubelet.config]"),
        (kubelet("maxpods = 60"), "seed.toml:7: unknown field \"maxpods\" in [kubelet.config]; did you mean maxPods?"),
        (
            kubelet("maxPods = \"60\""),
            "seed.toml:7: maxPods in [kubelet.config] must be a whole number, without quotes",
        ),
        (
            kubelet("shutdownGracePeriod = \"1 minute\""),
            "seed.toml:7: shutdownGracePeriod in [kubelet.config] must be a duration in quotes, as in \"1m30s\"",
        ),
        (
            kubelet("evictionHard = { a = 1 }"),
            "seed.toml:7: evictionHard in [kubelet.config] must be a table of strings in quotes",
        ),
        (
            kubelet("featureGates = { A = \"true\" }"),
            "seed.toml:7: featureGates in [kubelet.config] must be a table of true and false",
        ),
        (
            kubelet("clusterDNS = \"10.0.0.1\""),
            "seed.toml:7: clusterDNS in [kubelet.config] must be a list of strings in quotes",
        ),
        (
            kubelet("memoryThrottlingFactor = inf"),
            "seed.toml:7: memoryThrottlingFactor in [kubelet.config] must be a number",
        ),
        (kubelet("logging = 2026-01-01"), "seed.toml:7: logging in [kubelet.config] must be a table"),
        (
            kubelet("resolvConf = \"resolv.conf\""),
            "seed.toml:7: resolvConf in [kubelet.config] must be an absolute path",
        ),
        (
            kubelet("authentication.x509.clientCAFile = \"/a\""),
            "seed.toml:7: authentication in [kubelet.config] is refused: the cluster says who may talk to kubelet",
        ),
        // [registries]
        (
            seed("[registries]\n\"docker.io\" = \"https://a\"\n"),
            "seed.toml:7: registry \"docker.io\" in [registries] must be a table",
        ),
        (registry("docker.io", ""), "seed.toml:6: mirrors is missing in [registries.docker.io]"),
        // Found by fuzzing: written one as the other, they are the same table of hosts.toml.
        (
            registry("docker.io", "mirrors = ['https://a.example', 'https://A.example:443/']"),
            "seed.toml:6: mirrors in [registries.docker.io] names one mirror twice",
        ),
        (
            registry("docker.io", "skip-verify = true"),
            "seed.toml:7: unknown key \"skip-verify\" in [registries.docker.io]: no key skips the verification of \
             certificates: give the registry's CA as ca",
        ),
        (
            registry("docker.io", "mirrors = \"https://a\"\nskip-verify = true"),
            "seed.toml:8: unknown key \"skip-verify\" in [registries.docker.io]: no key skips the verification of \
             certificates: give the registry's CA as ca",
        ),
        (registry("docker.io", "mirrors = \"mirror.example\""), MIRROR),
        (registry("docker.io", "mirrors = \"https://a?b\""), MIRROR),
        (registry("docker.io", "mirrors = \"https://a/$b\""), MIRROR),
        (
            registry("docker.io", "mirrors = \"https://user:hunter22@a\""),
            "seed.toml:7: malformed mirrors in [registries.docker.io]: expected a URL without user name and password: \
             write them as username and password in this table",
        ),
        (
            registry("docker.io", "ca = \"a\""),
            "seed.toml:7: malformed ca in [registries.docker.io]: expected a certificate in PEM, from -----BEGIN \
             CERTIFICATE----- to -----END CERTIFICATE-----",
        ),
    ];
    for (name, why) in [("docker.io/library", URL), ("https://a", URL), ("a:0", REGISTRY), ("a.b:080", REGISTRY)] {
        let text: &'static str = format!("seed.toml:6: malformed registry \"{name}\" in [registries]{why}").leak();
        all.push((registry(name, "mirrors = \"https://a\""), text));
    }
    all
}

#[test]
fn refused_by_exact_message() {
    for (text, want) in bad() {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), want, "{text}");
        for secret in ["q7w2e9r4t1y6u8i3", "hunter22", "12345678"] {
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
    }
}

#[test]
fn fields_of_kubelet_that_belong_to_others() {
    for (field, why) in kubelet_fields::OWNED {
        let text = seed(&format!("[kubelet.config]\n{field} = 1\n"));
        let want = format!("seed.toml:7: {field} in [kubelet.config] is refused: {why}");
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), want);
    }
}

#[test]
fn networks_without_a_gateway_that_reach_the_cluster_all_the_same() {
    for lines in [
        "addresses = \"10.0.2.15/24\"",
        "addresses = \"192.0.2.10/24\"\ndhcp = true",
        "addresses = \"192.0.2.10/24\"\nproxy = \"http://192.0.2.1:3128\"",
        "addresses = \"10.0.2.15/32\"\ndhcp = true",
    ] {
        read(&seed(&format!("[network]\n{lines}\n")));
    }
    let named = seed("[network]\naddresses = \"192.0.2.10/24\"\n").replace("10.0.2.2:6443", "api.example.com");
    read(&named);
}

/// Cuts, and one character replaced, at every place: read or refused, without a panic and without a secret.
#[test]
fn every_cut_is_read_or_refused_without_the_secrets() {
    let tables = "[network]\ninterface = \"eth0\"\naddresses = [\"10.0.2.15/24\", \"fd00::1/64\"]\ngateway = \"10.0.2.1\"\n\
                  proxy = \"http://a:correcthorse@b:3128\"\nno-proxy = [\"*.x.y:1\", \"[::1]:2\"]\n[network.wifi]\nssid = \
                  \"a\"\npassword = \"batterystaple\"\ncountry = \"DE\"\n[kubelet.config]\nshutdownGracePeriod = \"1m30s\"\n\
                  [registries.\"a.b:5000\"]\nmirrors = \"https://m.n/p\"\n";
    let whole = by_line(&format!("'--node-name' \\\\\\n \\\"x-1\\\" {}", pinned()), tables);
    read(&whole);
    for (end, c) in whole.char_indices() {
        let replaced = |by: &str| format!("{}{by}{}", &whole[..end], &whole[end + c.len_utf8()..]);
        for text in [whole[..end].to_owned(), whole[end..].to_owned(), replaced("?"), replaced("\\"), replaced("é")] {
            if let Err(error) = parse(text.as_bytes()) {
                let shown = format!("{error} {error:?}");
                for secret in ["q7w2e9r4t1y6u8i3", "correcthorse", "batterystaple"] {
                    assert!(!shown.contains(secret), "{shown}");
                }
            }
        }
    }
}
