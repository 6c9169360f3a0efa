// SPDX-License-Identifier: Apache-2.0
//! Forms of `ca-cert` that are no files of tests/field.

use std::time::Duration;

use super::*;
use crate::kube::wire_tests::Ca;
use crate::seed::Trust;

fn year(year: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)
}

#[test]
fn all_forms_of_one_certificate_become_the_same_text() {
    let plain = of_cluster(&Ca::new().pem).unwrap();
    let body = plain.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("");
    for text in [
        plain.clone(),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        plain.replace('\n', "\n\t  "),
        plain.replace('\n', " "),
        plain.replace('\n', "\\n"),
        plain.replace('\n', "\\r\\n"),
        plain.trim_end().to_owned(),
        format!("subject=CN = kubernetes\n{plain}\nend\n{plain}"),
        format!("\u{feff}{plain}"),
        STANDARD.encode(&plain),
        STANDARD.encode(&plain).trim_end_matches('=').to_owned(),
        body.clone(),
        format!("{BEGIN}CERTIFICATE{DASHES}\n{body}\n{END}CERTIFICATE{DASHES}"),
    ] {
        assert_eq!(of_cluster(&text).as_ref(), Ok(&plain), "{text}");
    }
    assert!(plain.lines().all(|line| line.len() <= LINE) && plain.ends_with("-----\n"));
}

#[test]
fn what_is_there_is_named_and_not_shown() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIHZhbHVlIHRoYXQgbm9ib2R5IG1heSBzZWUhISEhISEh";
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let text = format!("{BEGIN}{label}{DASHES}\n{secret}\n{END}{label}{DASHES}\n");
        let why = of_cluster(&format!("{}{text}", Ca::new().pem)).unwrap_err();
        assert!(why.starts_with("there is a private key in it") && !why.contains(secret), "{why}");
        assert_eq!(of_registry(&text), Err(why));
    }
    for text in
        [secret.to_owned(), secret.repeat(9), format!("{BEGIN}{secret}"), format!("{BEGIN}CERTIFICATE{DASHES}{secret}")]
    {
        let why = of_cluster(&text).unwrap_err();
        assert!(!why.contains("MC4C"), "{why}");
    }
}

#[test]
fn a_registrys_own_certificate_is_taken_and_a_clusters_is_not() {
    let ca = Ca::new();
    let (leaf, _) = ca.leaf("registry.example", 2020, 2090);
    let text = pem(&leaf);
    assert_eq!(of_registry(&text).as_ref(), Ok(&text));
    let want = "certificate 2 is not a CA's: it has no basicConstraints: give the cluster's CA certificate, \
                /etc/kubernetes/pki/ca.crt of a control plane";
    assert_eq!(of_cluster(&format!("{}{text}", ca.pem)).unwrap_err(), want);
}

#[test]
fn dates_are_judged_by_a_clock_that_is_given() {
    let (old, new) = (Ca::within(2020, 2022).pem, Ca::within(2030, 2040).pem);
    let judged = |pem: String, at: u64| {
        let error = Trust::Ca(pem).check_dates(year(at)).err()?;
        Some(format!("{}: {error}", error.code))
    };
    assert_eq!(judged(old.clone(), 2021), None);
    assert_eq!(judged(format!("{old}{new}"), 2021), None);
    assert_eq!(judged(format!("{old}{new}"), 2035), None);
    let expired = "FB107: seed.toml: ca-cert in [cluster] expired at 2022-01-01T00:00:00Z: give the cluster's present CA \
                   certificate";
    assert_eq!(judged(old.clone(), 2023).as_deref(), Some(expired));
    let early = "FB107: seed.toml: ca-cert in [cluster] is not valid before 2030-01-01T00:00:00Z: is the clock of this \
                 machine right?";
    assert_eq!(judged(new, 2025).as_deref(), Some(early));
    assert_eq!(Trust::Pins(vec![]).check_dates(year(2025)), Ok(()));
}
