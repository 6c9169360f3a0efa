// SPDX-License-Identifier: Apache-2.0
//! Forms of strings that kubelet parses.

use super::units::quantity;

/// A threshold of eviction (pkg/kubelet/eviction/helpers.go, parseThresholdStatement).
pub(super) fn threshold(text: &str) -> bool {
    match text.strip_suffix('%') {
        Some(number) => percentage(number).is_some_and(|n| n <= 100.0),
        None => quantity(text).is_some_and(|q| q.nano > 0),
    }
}

/// A minimum of eviction (parseMinimumReclaims).
pub(super) fn reclaim(text: &str) -> bool {
    match text.strip_suffix('%') {
        Some(number) => percentage(number).is_some_and(|n| n > 0.0),
        None => quantity(text).is_some_and(|q| q.nano >= 0),
    }
}

/// A decimal number without a sign; Go's ParseFloat takes more, as in `1e1%`.
fn percentage(text: &str) -> Option<f32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse::<f32>().ok().filter(|_| digits)
}

/// An absolute path as Go's filepath.Clean leaves it, in ASCII; empty for the default.
pub(super) fn clean_path(text: &str) -> bool {
    let parts = || text.split('/').skip(1);
    let clean = text == "/" || parts().all(|part| !["", ".", ".."].contains(&part));
    text.is_empty() || (text.starts_with('/') && clean && text.is_ascii() && !text.contains('\0'))
}

/// A domain name: labels of letters, digits and hyphens (RFC 1123, 2.1).
pub(super) fn domain(text: &str) -> bool {
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        plain && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The CPUs of a list as in `0-1,3` (k8s.io/utils/cpuset): how many, none for a list that is refused. No kernel has more
/// than 8192.
pub(super) fn cpus(text: &str) -> Option<usize> {
    let number = |n: &str| n.parse::<u16>().ok().filter(|n| *n < 8192 && !text.contains('+'));
    let mut all = std::collections::BTreeSet::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all.len())
}

/// A kernel setting, or a prefix with `*`, that a pod has for itself: pkg/kubelet/sysctl/allowlist.go and
/// k8s.io/component-helpers/node/util/sysctl/namespace.go.
pub(super) fn pod_sysctl(text: &str) -> bool {
    const NAMES: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    let (parts, last) = match text.rfind(['.', '/']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => return false,
    };
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let segment = |s: &str| plain(s) && edge(s.chars().next()) && edge(s.chars().next_back());
    let begin = last.strip_suffix('*').unwrap_or(last);
    // What comes before a * may end in - or _.
    let good_end = match last.ends_with('*') {
        true => plain(begin) && (begin.is_empty() || edge(begin.chars().next())),
        false => segment(last),
    };
    if text.len() > 253 || !parts.split(['.', '/']).all(segment) || !good_end {
        return false;
    }
    // Where the first separator is a slash, dots and slashes change their meaning.
    let slashes = text.find(['.', '/']).is_some_and(|at| text[at..].starts_with('/'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let name: String = text.trim_end_matches('*').chars().map(|c| if slashes { swap(c) } else { c }).collect();
    NAMES.contains(&name.as_str()) || name.starts_with("net.") || name.starts_with("fs.mqueue.")
}

/// An image name without tag and digest, or a prefix of names with `/*` (pkg/kubelet/images/pullmanager).
pub(super) fn image_pattern(text: &str) -> bool {
    if let Some(prefix) = text.strip_suffix("/*") {
        return !prefix.is_empty() && !prefix.contains('*') && prefix.trim() == prefix;
    }
    let mut parts: Vec<&str> = text.split('/').collect();
    if parts.len() > 1 && parts[0].contains(['.', ':']) {
        let (host, port) = parts[0].split_once(':').unwrap_or((parts[0], "0"));
        if !domain(host) || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        parts.remove(0);
    }
    text.len() <= 255 && parts.iter().all(|part| image_part(part))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (github.com/distribution/reference)
fn image_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| plain(*b));
    let separators = part.split(|c: char| c.is_ascii() && plain(c as u8)).filter(|s| !s.is_empty());
    let good = |s: &str| s == "." || s == "_" || s == "__" || s.bytes().all(|b| b == b'-');
    ends(bytes.first()) && ends(bytes.last()) && separators.into_iter().all(good)
}

/// Where a collector listens: `HOST:PORT`, an IPv6 address in brackets.
pub(super) fn endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => domain(host),
    };
    good && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `good` holds for the first list and not for the second.
    fn all(name: &str, good: fn(&str) -> bool, right: &[&str], wrong: &[&str]) {
        for text in right {
            assert!(good(text), "{name}: {text}");
        }
        for text in wrong {
            assert!(!good(text), "{name}: {text}");
        }
    }

    #[test]
    fn forms_as_kubelet_reads_them() {
        all(
            "threshold",
            threshold,
            &["0%", "100%", "12.5%", "100Mi", "1"],
            &["101%", "-1%", "%", "NaN%", "0", "-1Mi", ""],
        );
        all("reclaim", reclaim, &["5%", "200%", "0", "1Gi"], &["0%", "-1", "x", "%"]);
        all("path", clean_path, &["", "/", "/var/log/pods"], &["a", "/a/", "/a//b", "/a/./b", "/a/../b", "/ä", "/a/."]);
        all("domain", domain, &["cluster.local", "a", "1-a.b"], &["", "a b", "a..b", "-a", "a.", "A"]);
        all(
            "cpus",
            |t| cpus(t).is_some(),
            &["", "0", "0-3", "1,3-4,3"],
            &["a", "3-1", "0-", "-1", "+1", "1,", "0-9999", " 1"],
        );
        assert_eq!((cpus("0-3,2,8"), cpus("")), (Some(5), Some(0)));
        let settings = [
            "net.core.somaxconn",
            "kernel.msg*",
            "kernel.sem",
            "net.*",
            "net/ipv4/ip_forward",
            "fs.mqueue.a",
            "kernel.shm*",
        ];
        all(
            "setting",
            pod_sysctl,
            &settings,
            &["a b", "vm.overcommit", "kernel.pid_max", "*", "net", "net.A", "net..a", "net.a*b", ""],
        );
        let images = ["registry.example:5000/a/*", "quay.io/a/b", "busybox", "a__b/c--d", "10.0.0.1/x", "a/*"];
        all(
            "image",
            image_pattern,
            &images,
            &["a:1", "a@sha256:1", "*", "/*", "a*", " a", "A", "a/", "a___b", "quay.io:x/a", "a/b*/*"],
        );
        all(
            "endpoint",
            endpoint,
            &["localhost:4317", "10.0.0.1:1", "[fd00::1]:4317"],
            &["a", "a:", "a:0", "http://a:1", "a b:1", "a:99999"],
        );
    }
}
