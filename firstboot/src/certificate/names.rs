// SPDX-License-Identifier: Apache-2.0
//! Whether a certificate's DNS name covers a server's: Go's `VerifyHostname` (crypto/x509, verify.go).

/// Whether `presented`, a dNSName of a certificate, covers the name `host`. A `*` stands for one whole label, the
/// first, whatever follows it.
pub fn covers(presented: &str, host: &str) -> bool {
    let (presented, host) = (presented.to_ascii_lowercase(), host.to_ascii_lowercase());
    let relative = host.strip_suffix('.').unwrap_or(&host);
    if !(is_valid(relative, false) && is_valid(&presented, true)) {
        // Names that are no host names have to be the same, letter by letter.
        return !["", "."].contains(&presented.as_str()) && presented == host;
    }
    let mut labels = presented.split('.').zip(relative.split('.')).enumerate();
    presented.split('.').count() == relative.split('.').count()
        && labels.all(|(n, (pattern, label))| pattern == label || (n == 0 && pattern == "*"))
}

/// Go's `validHostname`: letters, digits, `_`, and `-` but at the start of a label.
fn is_valid(name: &str, pattern: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let label = |label: &str| label.starts_with(letter) && label.chars().all(|c| letter(c) || c == '-');
    name != "*" && name.split('.').enumerate().all(|(n, one)| label(one) || (pattern && n == 0 && one == "*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_go_reads_them() {
        for (presented, host) in [
            ("api.example.org", "API.example.ORG"),
            ("api.example.org", "api.example.org."),
            ("*.example.org", "api.example.org"),
            ("*.local", "api.local"),
            ("k8s_master", "k8s_master"),
            ("*.a_b.org", "x.a_b.org"),
            ("a-.org", "a-.org"),
            ("-a.org", "-a.org"),
        ] {
            assert!(covers(presented, host), "{presented} {host}");
        }
        for (presented, host) in [
            ("*", "api"),
            ("*.example.org", "example.org"),
            ("*.example.org", "a.b.example.org"),
            ("a*.example.org", "ab.example.org"),
            ("api.*.org", "api.example.org"),
            ("api.example.org.", "api.example.org"),
            ("", ""),
            (".", "."),
            ("-a.org", "-a.org."),
        ] {
            assert!(!covers(presented, host), "{presented} {host}");
        }
    }
}
