// SPDX-License-Identifier: Apache-2.0
//! Which known key was meant by an unknown one.

use super::kubelet_fields::FIELDS;

/// Every key that a seed may have, by table; `""` is before any table.
pub(super) type Keys = [(&'static str, &'static [&'static str])];

/// Names that other programs have for a key, as [`plain`] gives them, with its table and its name here.
const OTHERS: [(&str, &str, &str); 67] = [
    ("apiserverendpoint", "cluster", "apiserver"),
    ("apiserveraddress", "cluster", "apiserver"),
    ("apiserverurl", "cluster", "apiserver"),
    ("controlplaneendpoint", "cluster", "apiserver"),
    ("endpoints", "cluster", "apiserver"),
    ("server", "cluster", "apiserver"),
    ("serverurl", "cluster", "apiserver"),
    ("master", "cluster", "apiserver"),
    ("url", "cluster", "apiserver"),
    ("bootstraptoken", "cluster", "token"),
    ("discoverytoken", "cluster", "token"),
    ("tlsbootstraptoken", "cluster", "token"),
    ("jointoken", "cluster", "token"),
    ("discoverytokencacerthash", "cluster", "ca-cert-hashes"),
    ("cacerthash", "cluster", "ca-cert-hashes"),
    ("cahash", "cluster", "ca-cert-hashes"),
    ("cahashes", "cluster", "ca-cert-hashes"),
    ("hash", "cluster", "ca-cert-hashes"),
    ("hashes", "cluster", "ca-cert-hashes"),
    ("cacertificate", "cluster", "ca-cert"),
    ("cafile", "cluster", "ca-cert"),
    ("certificateauthority", "cluster", "ca-cert"),
    ("certificateauthoritydata", "cluster", "ca-cert"),
    ("expires", "cluster", "token-expires"),
    ("tokenttl", "cluster", "token-expires"),
    ("hostname", "node", "name"),
    ("nodename", "node", "name"),
    ("hostnameoverride", "node", "name"),
    ("nodelabels", "node", "labels"),
    ("nodetaints", "node", "taints"),
    ("registerwithtaints", "node", "taints"),
    ("noderole", "node", "role"),
    ("httpproxy", "network", "proxy"),
    ("httpsproxy", "network", "proxy"),
    ("address", "network", "addresses"),
    ("ip", "network", "addresses"),
    ("ipaddress", "network", "addresses"),
    ("staticip", "network", "addresses"),
    ("nameserver", "network", "dns"),
    ("nameservers", "network", "dns"),
    ("dnsservers", "network", "dns"),
    ("gateway4", "network", "gateway"),
    ("gateway6", "network", "gateway"),
    ("router", "network", "gateway"),
    ("vlanid", "network", "vlan"),
    ("iface", "network", "interface"),
    ("nic", "network", "interface"),
    ("macaddress", "network", "interface"),
    ("dhcp4", "network", "dhcp"),
    ("psk", "network.wifi", "password"),
    ("passphrase", "network.wifi", "password"),
    ("wpapsk", "network.wifi", "password"),
    ("wifipassword", "network.wifi", "password"),
    ("presharedkey", "network.wifi", "password"),
    ("essid", "network.wifi", "ssid"),
    ("wifissid", "network.wifi", "ssid"),
    ("countrycode", "network.wifi", "country"),
    ("wificountry", "network.wifi", "country"),
    ("regulatorydomain", "network.wifi", "country"),
    ("ntp", "time", "servers"),
    ("ntpserver", "time", "servers"),
    ("ntpservers", "time", "servers"),
    ("timeservers", "time", "servers"),
    ("sshkey", "access", "ssh-keys"),
    ("sshauthorizedkeys", "access", "ssh-keys"),
    ("authorizedkeys", "access", "ssh-keys"),
    ("username", "access", "user"),
];

/// Names that people have for a table, as [`plain`] gives them, with its own.
const TABLES: [(&str, &str); 14] = [
    ("wifi", "network.wifi"),
    ("wlan", "network.wifi"),
    ("wireless", "network.wifi"),
    ("ntp", "time"),
    ("timesyncd", "time"),
    ("ssh", "access"),
    ("users", "access"),
    ("labels", "node.labels"),
    ("taints", "node"),
    ("mirrors", "registries"),
    ("firewall", "harden"),
    ("sysctl", "harden"),
    ("kubeletconfiguration", "kubelet.config"),
    ("kubeletconfig", "kubelet.config"),
];

/// A name without what spellings differ in: case, hyphens, underscores.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// The name that is closest to one with a typing error; nothing where none is close (restricted Damerau-Levenshtein
/// distance, a third of the longer one at most).
pub(super) fn closest<'a>(name: &str, all: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = plain(name);
    // No key is as long; a longer name would take time that grows with its square.
    if name.len() > 60 {
        return None;
    }
    let near = all.into_iter().map(|known| (strsim::osa_distance(&name, &plain(known)), known));
    let near = near.filter(|(distance, known)| distance * 3 <= plain(known).len().max(name.len()));
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// What to add to a message about an unknown key of a table: the key that was meant, or where it belongs.
pub(super) fn key(name: &str, table: &str, here: &[&str], keys: &Keys) -> String {
    let (name, is_registry) = (plain(name), table.starts_with("registries"));
    let same = |known: &&&str| plain(known) == name;
    let other = || OTHERS.iter().filter(|(other, ..)| *other == name);
    if let Some(known) = here.iter().find(same) {
        return format!("; did you mean {known}?");
    }
    if let Some((_, _, known)) = other().find(|(_, of, _)| *of == table) {
        return format!("; did you mean {known}?");
    }
    if is_registry && ["endpoint", "endpoints", "url", "mirror"].contains(&name.as_str()) {
        return "; did you mean mirrors?".to_owned();
    }
    if let Some(known) = closest(&name, here.iter().copied()) {
        return format!("; did you mean {known}?");
    }
    if let Some((_, keys)) = keys.iter().find(|(of, _)| of.is_empty())
        && keys.iter().any(|known| plain(known) == name)
    {
        return "; it belongs at the top, before any table".to_owned();
    }
    if keys.iter().any(|(of, _)| !of.is_empty() && plain(of) == name) {
        return format!("; it is a table of its own: [{name}]");
    }
    // A registry has names and passwords of its own, and a password is asked for in many places.
    let elsewhere = !is_registry && (name != "password" || table.is_empty() || table == "network");
    if elsewhere && let Some((of, known)) = keys.iter().find_map(|(of, all)| Some((of, all.iter().find(same)?))) {
        return match of.starts_with("registries") {
            true => format!("; {known} belongs in [{of}.\"NAME\"]"),
            false => format!("; {known} belongs in [{of}]"),
        };
    }
    if elsewhere && let Some((_, of, known)) = other().next() {
        return format!("; did you mean {known} in [{of}]?");
    }
    match FIELDS.iter().find(|(field, _)| plain(field) == name) {
        Some((field, _)) => format!("; {field} belongs in [kubelet.config]"),
        None => String::new(),
    }
}

/// What to add to a message about an unknown table.
pub(super) fn table(name: &str, tables: &[&str]) -> String {
    let same = tables.iter().find(|known| plain(known) == plain(name)).copied();
    let other = || TABLES.iter().find(|(other, _)| *other == plain(name)).map(|(_, known)| *known);
    let meant = same.or_else(other).or_else(|| closest(name, tables.iter().copied()));
    meant.map(|known| format!("; did you mean [{known}]?")).unwrap_or_default()
}

/// What to add to a message about an unknown field of kubelet's configuration.
pub(super) fn field(name: &str) -> String {
    let all = || FIELDS.iter().map(|(field, _)| *field);
    let meant = all().find(|field| plain(field) == plain(name)).or_else(|| closest(name, all()));
    meant.map(|field| format!("; did you mean {field}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::*;

    fn hint(name: &str, of: &str) -> String {
        let here = KEYS.iter().find(|(table, _)| *table == of).unwrap().1;
        key(name, of, here, KEYS)
    }

    #[test]
    fn the_key_that_was_meant() {
        for (name, of, want) in [
            ("ca_cert_hashes", "cluster", "ca-cert-hashes"),
            ("caCertHashes", "cluster", "ca-cert-hashes"),
            ("CA-CERT-HASHES", "cluster", "ca-cert-hashes"),
            ("discovery-token-ca-cert-hash", "cluster", "ca-cert-hashes"),
            ("ca-cert-hash", "cluster", "ca-cert-hashes"),
            ("apiServerEndpoint", "cluster", "apiserver"),
            ("api-server", "cluster", "apiserver"),
            ("apiservers", "cluster", "apiserver"),
            ("server", "cluster", "apiserver"),
            ("tokn", "cluster", "token"),
            ("Token", "cluster", "token"),
            ("hostname", "node", "name"),
            ("label", "node", "labels"),
            ("taint", "node", "taints"),
            ("dhpc", "network", "dhcp"),
            ("http_proxy", "network", "proxy"),
            ("no_proxy", "network", "no-proxy"),
            ("adress", "network", "addresses"),
            ("psk", "network.wifi", "password"),
            ("passphrase", "network.wifi", "password"),
            ("passwd", "network.wifi", "password"),
            ("ntp", "time", "servers"),
            ("server", "time", "servers"),
            ("ssh_authorized_keys", "access", "ssh-keys"),
            ("mirror", "registries", "mirrors"),
            ("endpoint", "registries", "mirrors"),
            ("kubelet_from", "harden", "kubelet-from"),
            ("Version", "", "version"),
            ("jion", "", "join"),
        ] {
            assert_eq!(hint(name, of), format!("; did you mean {want}?"), "{name} in [{of}]");
        }
    }

    #[test]
    fn the_table_that_it_belongs_to() {
        for (name, of, want) in [
            ("proxy", "cluster", "; proxy belongs in [network]"),
            ("apiserver", "", "; apiserver belongs in [cluster]"),
            ("join", "cluster", "; it belongs at the top, before any table"),
            ("node", "cluster", "; it is a table of its own: [node]"),
            ("maxPods", "kubelet", "; maxPods belongs in [kubelet.config]"),
            ("max_pods", "node", "; maxPods belongs in [kubelet.config]"),
            ("mirrors", "", "; mirrors belongs in [registries.\"NAME\"]"),
            ("ntp", "network", "; did you mean servers in [time]?"),
            ("passphrase", "network", "; did you mean password in [network.wifi]?"),
            ("hostname", "", "; did you mean name in [node]?"),
            ("password", "network", "; password belongs in [network.wifi]"),
            ("password", "access", ""),
            ("username", "registries", "; did you mean username?"),
            ("password", "cluster", ""),
            ("colour", "cluster", ""),
            ("x", "network", ""),
        ] {
            assert_eq!(hint(name, of), want, "{name} in [{of}]");
        }
    }

    #[test]
    fn tables_and_fields() {
        let tables = ["cluster", "node", "network", "time", "access", "kubelet", "registries", "harden"];
        for (name, want) in [
            ("clusters", "cluster"),
            ("Cluster", "cluster"),
            ("netwrok", "network"),
            ("wifi", "network.wifi"),
            ("registry", "registries"),
            ("ssh", "access"),
        ] {
            assert_eq!(table(name, &tables), format!("; did you mean [{want}]?"));
        }
        assert_eq!(table("x", &tables), "");
        for (name, want) in
            [("maxpods", "maxPods"), ("max-pods", "maxPods"), ("clusterDns", "clusterDNS"), ("maxPod", "maxPods")]
        {
            assert_eq!(field(name), format!("; did you mean {want}?"));
        }
        assert_eq!(field("zzz"), "");
    }

    #[test]
    fn other_names_lead_to_keys_that_exist() {
        for (other, of, known) in OTHERS {
            assert_eq!(other, plain(other));
            assert!(KEYS.iter().any(|(table, keys)| *table == of && keys.contains(&known)), "{of} {known}");
        }
        assert!(TABLES.iter().all(|(other, _)| *other == plain(other)));
    }
}
