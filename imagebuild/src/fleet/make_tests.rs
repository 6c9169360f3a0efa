// SPDX-License-Identifier: Apache-2.0
//! Tests of making seeds from a table.

use super::*;

const BASE: &str = r#"
version = 1
[cluster]
apiserver = "10.0.0.1:6443"
token = "abcdef.0123456789abcdef"
ca-cert-hashes = ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
[node]
name = "edge-{serial}"
labels = { "topology.kubernetes.io/zone" = "{place}" }
"#;

fn made(csv: &str, base: &str) -> Result<Vec<Device>, String> {
    from(csv.as_bytes(), &base.parse().unwrap(), false).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_row_is_the_base_with_its_templates_and_values() {
    let csv = "serial,place,network.addresses,network.gateway,cluster.token,note\n\
               10000000a3f2b1c0,shop-12,10.0.0.21/24;2001:db8::21/64,10.0.0.254,ghijkl.0123456789abcdef,\n\
               10000000a3f2b1c1,shop-13,,,,spare\n";
    let devices = made(csv, BASE).unwrap();
    let ids: Vec<_> = devices.iter().map(|d| (d.line, &*d.id, d.name.as_deref())).collect();
    let name = |end: &str| format!("edge-10000000a3f2b1c{end}");
    assert_eq!(ids, [(2, &*name("0"), Some(&*name("0"))), (3, &*name("1"), Some(&*name("1")))]);
    let first: Table = devices[0].seed.parse().unwrap();
    assert_eq!(first["node"]["labels"]["topology.kubernetes.io/zone"].as_str(), Some("shop-12"));
    assert_eq!(first["network"]["addresses"].as_array().unwrap().len(), 2);
    assert_eq!(first["cluster"]["token"].as_str(), Some("ghijkl.0123456789abcdef"));
    // What a row leaves empty is the base's.
    let second: Table = devices[1].seed.parse().unwrap();
    assert_eq!(second["cluster"]["token"].as_str(), Some("abcdef.0123456789abcdef"));
    assert!(!second.contains_key("network"));
    assert_eq!(devices[1].columns["note"], "spare");
}

#[test]
fn what_the_device_fills_in_stays_unless_a_column_has_it() {
    let devices = made("mac,place\ndc:a6:32:01:02:03,a\n", BASE).unwrap();
    assert!(devices[0].seed.contains("name = \"edge-{serial}\"\n"), "{}", devices[0].seed);
    assert_eq!((&*devices[0].id, &devices[0].name), ("dc-a6-32-01-02-03", &None));
}

#[test]
fn everything_that_is_wrong_is_listed_at_once() {
    let csv = "node.name,serial,place,network.vlan,node.labels.x\n\
               a,1,p,1,\n\
               A,2,p,2,\n\
               c,1,p,x,\n\
               d,3,,4,\n\
               e,4,p,5000,\n\
               f,5,p,,bad value\n";
    let error = made(csv, BASE).unwrap_err();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "nothing was written",
            "row 3: name \"a\" is that of row 2, too",
            "row 4: network.vlan must be a whole number",
            "row 5: column \"place\" is empty, and node.labels.topology.kubernetes.io/zone in the base uses it",
            "row 6: FB107: vlan in [network] must be a number from 1 to 4094",
            "row 7: FB107: malformed label \"x\" in [node]: expected a label value: at most 63 characters A-Z, a-z, 0-9, -, _ and .",
        ]
    );
    let serial = made("node.name,serial,place\na,X,p\nb,x,p\n", BASE).unwrap_err();
    assert_eq!(serial, "nothing was written\nrow 3: serial \"x\" is that of row 2, too");
    let columns = made("node.nmae,place,place\na,b,c\n", BASE).unwrap_err();
    assert_eq!(
        columns,
        "nothing was written\nrow 1: column \"node.nmae\" is no key of a seed, and what is for the sheet alone begins \
         with x-; did you mean node.name?\nrow 1: column \"place\" is there twice"
    );
}

#[test]
fn one_error_of_all_rows_is_one_line_without_the_value() {
    let rows: String = (0..100).map(|n| format!("n{n},p\n")).collect();
    let base = BASE.replace("abcdef.0123456789abcdef", "verysecret");
    let error = made(&format!("node.name,place\n{rows}"), &base).unwrap_err();
    assert_eq!(
        error,
        "nothing was written\nrows 2, 3, 4, 5, 6, 7, 8, 9 and 92 more: FB107: malformed token in [cluster]: expected 6 \
         and 16 characters a-z0-9, as in abcdef.0123456789abcdef"
    );
    let brace = made("node.name,place\na,p\n", &BASE.replace("0123456789abcdef\"\n", "{hidden}\"\n")).unwrap_err();
    assert_eq!(
        brace,
        "nothing was written\nrow 2: cluster.token in the base has braces with no column's name: write {{ for a brace"
    );
    let none = made("place\np\n", &BASE.replace("edge-{serial}", "edge-{mac}")).unwrap_err();
    assert_eq!(
        none,
        "nothing was written\nrow 2: it has neither node.name nor serial nor mac: its seed could not be named"
    );
}

#[test]
fn braces_can_be_written() {
    let columns = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    assert_eq!(filled("x{{y}{a}", "p", &columns), Ok("x{y}1".into()));
    assert_eq!(
        filled("{a", "p", &columns),
        Err("p in the base has a brace that is not closed: write {{ for a brace".into())
    );
}

#[test]
fn a_base_that_is_no_toml_is_named_by_its_line_without_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.toml");
    std::fs::write(&path, "version = 1\n[cluster]\ntoken = \"abcdef.0123456789abcdef\n").unwrap();
    let error = format!("{:#}", read_base(&path).unwrap_err());
    assert!(error.starts_with(&format!("read {}: line 3: ", path.display())), "{error}");
    assert!(!error.contains("0123456789abcdef"), "{error}");
}

#[test]
fn a_key_of_the_base_that_no_seed_has_is_named_by_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("base.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        read_base(&path).map(drop).map_err(|error| format!("{error:#}"))
    };
    let error = read("version = 1\n[node]\nnmae = \"{place}-{serial}\"\n").unwrap_err();
    assert!(error.starts_with(&format!("read {}: line 3: unknown key \"nmae\" in [node]", path.display())), "{error}");
    // What rows fill in, and what they bring.
    read("version = 1\n[node]\nname = \"{place}-{serial}\"\n[network]\ndhcp = false\n").unwrap();
}

#[test]
fn ten_thousand_rows_are_made() {
    let rows: String = (0..10_000).map(|n| format!("n{n},p{n}\n")).collect();
    let devices = made(&format!("node.name,place\n{rows}"), BASE).unwrap();
    assert_eq!((devices.len(), &*devices[9_999].id, devices[9_999].line), (10_000, "n9999", 10_001));
}

#[test]
fn a_cluster_gives_what_base_and_table_must_not_have() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, base) = (dir.path().join("d.csv"), dir.path().join("base.toml"));
    let cluster = Cluster {
        apiserver: vec!["10.0.0.1:6443".into()],
        ca_cert_hashes: vec![format!("sha256:{}", "0".repeat(64))],
        ..Cluster::default()
    };
    let made = |table: &str, seed: &str| {
        std::fs::write(&csv, table).unwrap();
        std::fs::write(&base, seed).unwrap();
        devices_of(&csv, Some(&base), &cluster)
            .map_err(|error| format!("{error:#}").replace(dir.path().to_str().unwrap(), ""))
    };
    let mut devices =
        made("node.name\nShop-1\nshop-2\n", "[cluster]\napiserver = [\"api.example.com:6443\"]\n").unwrap();
    devices[0].set_token("abcdef.0123456789abcdef", &[]).unwrap();
    let seed: Table = devices[0].seed.parse().unwrap();
    assert_eq!(seed["cluster"]["token"].as_str(), Some("abcdef.0123456789abcdef"));
    // The base's own address counts: devices may need another one than this machine.
    assert_eq!(seed["cluster"]["apiserver"][0].as_str(), Some("api.example.com:6443"));
    assert!(devices[0].set_token("abc", &[]).is_err() && devices[0].seed.contains("abcdef."));
    // What the pod network needs open is added to what is open.
    let open = |devices: &mut Vec<Device>| {
        devices[0].set_token("abcdef.0123456789abcdef", &["udp/8472".to_owned()]).unwrap();
        devices[0].seed.parse::<Table>().unwrap()["harden"]["open"].clone()
    };
    assert_eq!(open(&mut devices), Value::from(vec!["udp/8472"]));
    assert_eq!(open(&mut devices), Value::from(vec!["udp/8472"]), "once");
    let mut single = made("node.name\na\n", "[harden]\nopen = \"tcp/80\"\n").unwrap();
    assert_eq!(open(&mut single), Value::from(vec!["tcp/80", "udp/8472"]));
    let mut others = made("node.name,harden.open\na,tcp/80;tcp/81\n", "").unwrap();
    assert_eq!(open(&mut others), Value::from(vec!["tcp/80", "tcp/81", "udp/8472"]));

    assert_eq!(
        made("node.name\na\n", "[cluster]\ntoken = \"abcdef.0123456789abcdef\"\nca-cert-hashes = []\n").unwrap_err(),
        "read /base.toml: token, ca-cert-hashes in [cluster]: with --kubeconfig the cluster gives this: remove it"
    );
    assert_eq!(
        made("node.name,cluster.token\na,\n", "").unwrap_err(),
        "make seeds from /d.csv: nothing was written\nrow 1: column \"cluster.token\": with --kubeconfig the cluster gives \
         this: remove it"
    );
    assert_eq!(
        made("serial\na\nb\n", "[node]\nname = \"edge-{serial}-{mac}\"\n").unwrap_err(),
        "make seeds from /d.csv: nothing was written\nrows 2, 3: node.name must be whole: its token is for the node of this \
         name alone"
    );
}

#[test]
fn what_is_seldom_meant_is_a_warning() {
    let base = BASE.replace("[node]", "token-expires = 2026-11-28T12:00:00Z\n[node]");
    let rows = "serial,place,network.addresses,network.gateway\n1,a,10.0.0.9/24,10.0.0.1\n2,a,10.0.0.8/24,10.0.0.1\n\
                3,b,10.0.0.9/24,10.0.0.1\n";
    // 2026-11-28T12:00:01Z
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_795_867_201);
    assert_eq!(
        warnings(&made(rows, &base).unwrap(), now),
        [
            "rows 2, 3, 4: token-expires is past: the token has ended, and no device joins with it",
            "rows 2, 4: they have the same address, 10.0.0.9"
        ]
    );
}

#[test]
fn rows_can_create_clusters_and_more_than_one_is_named() {
    let base = "version = 1\n[cluster]\ncreate = true\n";
    let header = "node.name,cluster.endpoint,cluster.pod-subnet,cluster.join-seed-hours,cluster.kubeadm.clusterName\n";
    let row = |name: &str| format!("{name},{name}.example.com,10.1.0.0/16;fd01::/48,0,{name}\n");
    let error = made(&format!("{header}{}", row("a")), base).unwrap_err();
    assert!(error.contains("row 2: FB108: pod-subnet and service-subnet in [cluster] are not of the same"), "{error}");
    let two = format!("{header}{}{}", row("a"), row("b")).replace(";fd01::/48", "");
    let devices = made(&two, base).unwrap();
    let seed: Table = devices[1].seed.parse().unwrap();
    let cluster = &seed["cluster"];
    assert_eq!(
        (cluster["endpoint"].as_str(), cluster["join-seed-hours"].as_integer()),
        (Some("b.example.com"), Some(0))
    );
    assert_eq!(cluster["kubeadm"]["clusterName"].as_str(), Some("b"));
    let now = SystemTime::now();
    assert_eq!(warnings(&devices, now), ["rows 2, 3: each of them creates a cluster of its own"]);
    assert!(warnings(&devices[..1], now).is_empty());
    let joins =
        made("node.name,cluster.create\na,true\n", &BASE.replace("{serial}", "x").replace("{place}", "p")).unwrap_err();
    assert!(joins.contains("a device creates a cluster or joins one, not both"), "{joins}");
}
