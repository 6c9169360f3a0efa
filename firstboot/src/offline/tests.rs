// SPDX-License-Identifier: Apache-2.0
//! What `offline` in the seed writes and starts, and that its absence does nothing at all.
#![allow(clippy::unwrap_used)]

use apicache::config::Config;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::*;
use crate::host::fake::Fake;
use crate::kube::kubeconfig;
use crate::paths::{CA_FILE, KUBELET_CONF};
use crate::seed::{self, Seed};

const SERVING: &str = "/etc/firstboot/offline/serving.pem";

fn seed(more: &str) -> Seed {
    let pin = "0".repeat(64);
    let text = format!(
        "version = 1\n[cluster]\napiserver = [\"10.0.2.2\", \"[fd00::2]:443\"]\ntoken = \"abcdef.0123456789abcdef\"\n\
         ca-cert-hashes = \"sha256:{pin}\"\n{more}"
    );
    seed::parse(text.as_bytes()).unwrap()
}

/// A device that has joined `server`.
fn joined(dir: &Path, server: &str) -> (Host, std::rc::Rc<crate::host::fake::Recorded>) {
    let (fake, seen) = Fake::new();
    let host = Host::open(dir, Box::new(fake)).unwrap();
    let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap().cert.pem();
    host.write(KUBELET_CONF, kubeconfig::kubelet_conf(server, &ca).as_bytes(), 0o600).unwrap();
    host.write(CA_FILE, ca.as_bytes(), 0o644).unwrap();
    (host, seen)
}

#[test]
fn without_it_nothing_is_written_and_nothing_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = joined(dir.path(), "https://10.0.2.2:6443");
    let conf = host.read(KUBELET_CONF).unwrap();
    let none = seed("");
    assert!(holds(&host, &none).unwrap());
    assert!(!put(&host, &none).unwrap());
    assert_eq!(seen.commands.take(), Vec::<String>::new());
    for path in [CONFIG, KUBECONFIG, SERVING, "/etc/firstboot/offline"] {
        assert_eq!(host.size_and_mode(path).unwrap(), None, "{path}");
    }
    assert_eq!(host.read(KUBELET_CONF).unwrap(), conf);
    assert_eq!(state(&host), None, "no line of the status");
}

#[test]
fn with_it_kubelet_is_led_to_the_cache_and_back_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let (host, seen) = joined(dir.path(), "https://api.example:6443");
    let conf = host.read(KUBELET_CONF).unwrap();
    let some = seed("[node]\noffline = true\n");
    assert!(!holds(&host, &some).unwrap());
    assert!(put(&host, &some).unwrap());
    let commands = ["systemctl start firstboot-cache.service", "systemctl restart firstboot-cache.service"];
    assert_eq!(seen.commands.take(), commands);
    assert!(holds(&host, &some).unwrap());
    for path in [CONFIG, KUBECONFIG, SERVING] {
        assert_eq!(host.size_and_mode(path).unwrap().unwrap().1, 0o600, "{path}");
    }

    let settings: Config = serde_json::from_slice(&host.read(CONFIG).unwrap().unwrap()).unwrap();
    assert_eq!(settings.servers, ["api.example:6443", "10.0.2.2:6443", "[fd00::2]:443"]);
    assert_eq!((settings.server_name.as_str(), settings.secrets), ("api.example", true));
    assert_eq!(settings.listen, "127.0.0.1:16443".parse().unwrap());
    let kubeconfig = host.read_text(KUBECONFIG).unwrap().unwrap();
    assert!(kubeconfig.contains("\n    server: https://127.0.0.1:16443\n    tls-server-name: api.example\n"));
    // The cluster's CA, and the one certificate of the cache; its key is in neither.
    let trusted = kubeconfig::read(&kubeconfig).unwrap().ca_pem;
    let all: Vec<_> = CertificateDer::pem_slice_iter(trusted.as_bytes()).map(Result::unwrap).collect();
    let own = CertificateDer::pem_slice_iter(&host.read(SERVING).unwrap().unwrap()).next().unwrap().unwrap();
    assert_eq!((all.len(), &all[1]), (2, &own));
    assert!(!trusted.contains("PRIVATE KEY"));
    assert_eq!(host.read(KUBELET_CONF).unwrap(), conf, "kubeadm's file stays");

    // Again: the same certificate, nothing changed, the unit running.
    assert!(!put(&host, &some).unwrap());
    assert_eq!(seen.commands.take(), ["systemctl start firstboot-cache.service"]);
    // Without Secrets: other settings, the same certificate.
    let serving = host.read(SERVING).unwrap();
    assert!(put(&host, &seed("[node]\noffline = true\noffline-secrets = false\n")).unwrap());
    assert_eq!(host.read(SERVING).unwrap(), serving);
    seen.commands.take();

    let none = seed("");
    assert!(!holds(&host, &none).unwrap());
    assert!(put(&host, &none).unwrap());
    assert_eq!(seen.commands.take(), ["systemctl --no-block stop firstboot-cache.service"]);
    for path in [CONFIG, KUBECONFIG, SERVING] {
        assert_eq!(host.size_and_mode(path).unwrap(), None, "{path}");
    }
    assert!(holds(&host, &none).unwrap());
}

#[test]
fn another_server_has_another_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = joined(dir.path(), "https://[fd00::1]:6443");
    let some = seed("[node]\noffline = true\n");
    assert!(put(&host, &some).unwrap());
    let first = host.read(SERVING).unwrap();
    assert!(holds(&host, &some).unwrap());
    let ca = host.read_text(CA_FILE).unwrap().unwrap();
    host.write(KUBELET_CONF, kubeconfig::kubelet_conf("https://10.9.9.9:6443", &ca).as_bytes(), 0o600).unwrap();
    assert!(!holds(&host, &some).unwrap(), "the certificate there is for another address");
    assert!(put(&host, &some).unwrap());
    assert_ne!(host.read(SERVING).unwrap(), first);
    assert!(holds(&host, &some).unwrap());
}

#[test]
fn the_state_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = joined(dir.path(), "https://10.0.2.2:6443");
    let say = |text: &str| {
        host.write("/run/firstboot-cache/status.json", text.as_bytes(), 0o644).unwrap();
        state(&host)
    };
    assert_eq!(
        say(r#"{"link":"disconnected","since":1795365108,"contact":1795365000,"objects":12}"#).unwrap(),
        "disconnected since 2026-11-22T16:31:48Z, 12 objects as of 2026-11-22T16:30:00Z"
    );
    assert_eq!(
        say(r#"{"link":"disconnected","since":1795365108,"contact":0,"objects":0}"#).unwrap(),
        "disconnected since 2026-11-22T16:31:48Z, nothing was read from the cluster yet"
    );
    assert_eq!(say("{"), None);
}
