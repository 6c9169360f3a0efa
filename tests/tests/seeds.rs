// SPDX-License-Identifier: Apache-2.0
//! Seeds that `imagebuild` makes in a cluster, the approver of their certificates, and `seed check --online`: natively,
//! against a real control plane.
//!
//! One control plane for all cases; each has its own tokens and node names. The approver runs as its service account,
//! with the rights that the manifests give, and is started anew for each round: what it knows it has read.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "join/bench.rs"]
#[allow(dead_code)]
mod bench;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bench::{Bench, KUBELET, create, id, pinned, pinned_text, relay, seed_of, tempdir};
use e2e::native::cluster::publish_server;
use firstboot::fault::{Code, Owner};
use firstboot::kube::csr::{CSRS, SIGNER, USAGES};
use firstboot::kube::key::Key;
use firstboot::kube::survey::{CHECKS, Row, State, Survey};
use firstboot::proxy::Via;
use firstboot::secret::Secret;
use firstboot::seed::{Seed, Trust};
use imagebuild::approver::{Approver, manifests};
use imagebuild::cluster::bootstrap_token::group;
use imagebuild::cluster::{Access, Api, Credential, kubeconfig};
use qemu::control_plane::{ControlPlane, Options};
use qemu::wait;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

fn seed_command(words: &[&str]) -> Result<(), String> {
    qemu::seed::imagebuild(words).map_err(|error| format!("{error:#}"))
}

struct Ground {
    plane: ControlPlane,
    dir: PathBuf,
}

/// The control plane of all cases, with the manifests applied and the approver at work; ends with the program.
fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let plane = ControlPlane::start(&Options::without_addons()).unwrap();
        publish_server(&plane, &plane.endpoint_for_host()).unwrap();
        let dir = plane.path().join("seeds");
        std::fs::create_dir(&dir).unwrap();
        let yaml = dir.join("manifests.yaml");
        std::fs::write(&yaml, manifests(None).unwrap()).unwrap();
        plane.kubectl(&["apply", "-f", &yaml.display().to_string()]).unwrap();
        let ground = Ground { plane, dir };
        let config = ground.kubeconfig("firstboot", "approver");
        // The authorizer and the policies take effect a moment later.
        let tokens = json!({ "type": "Opaque", "metadata": { "name": "seeds-foreign", "namespace": "kube-system" } });
        let foreign = "/api/v1/namespaces/kube-system/secrets/seeds-foreign";
        create(&ground.plane, &merged(tokens, json!({ "apiVersion": "v1", "kind": "Secret" })));
        wait::until("the approver's rights and their limits", SOON, || {
            let api = api_of(&config);
            let listed = api.get(&format!("{CSRS}?limit=1")).is_ok();
            let limited = api.patch(foreign, &json!({})).is_err_and(|error| error.text.contains("tokens of one node"));
            Ok((listed && limited).then_some(()))
        })
        .unwrap();
        std::thread::spawn(move || {
            loop {
                let file = config.clone();
                let connect = move || Api::new(&kubeconfig::access(Some(&file), None)?);
                if let Err(error) = Approver::new(Box::new(connect)).round(Duration::from_secs(2)) {
                    eprintln!("approver: {error:#}");
                }
            }
        });
        ground
    })
}

fn merged(mut a: Value, b: Value) -> Value {
    a.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    a
}

fn api_of(config: &Path) -> Api {
    Api::new(&kubeconfig::access(Some(config), None).unwrap()).unwrap()
}

impl Ground {
    /// Kubeconfig of a service account.
    fn kubeconfig(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.plane.kubectl(&["-n", namespace, "create", "token", account]).unwrap();
        let path = self.dir.join(format!("{namespace}-{account}.conf"));
        let server = self.plane.endpoint_for_host();
        let ca = STANDARD.encode(self.plane.ca_pem().unwrap());
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: 'https://{server}', certificate-authority-data: {ca}}}}}]\n\
             users: [{{name: u, user: {{token: {}}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            token.trim()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A seed by `imagebuild seed new --kubeconfig`, as the administrator.
    fn seed(&self, words: &[&str]) -> Seed {
        let dir = tempdir();
        let (file, admin) = (dir.path().join("seed.toml").display().to_string(), self.admin());
        let all = [&["new", "--kubeconfig", &admin, "--out", &file], words].concat();
        seed_command(&all).unwrap();
        seed_of(&std::fs::read_to_string(&file).unwrap())
    }

    fn admin(&self) -> String {
        self.plane.kubeconfig().display().to_string()
    }

    /// Ids of the tokens of one node.
    fn tokens_of(&self, node: &str) -> Vec<String> {
        let all = self.plane.get(&["-n", "kube-system", "secrets"]).unwrap();
        let group = STANDARD.encode(group(node));
        let ours = all["items"].as_array().unwrap().iter().filter(|s| s["data"]["auth-extra-groups"] == group.as_str());
        ours.map(|s| s["metadata"]["name"].as_str().unwrap().replace("bootstrap-token-", "")).collect()
    }

    /// A client that has a seed's token and nothing else, as a thief has.
    fn thief(&self, seed: &Seed) -> Api {
        let access = Access {
            server: format!("https://{}", self.plane.endpoint_for_host()),
            ca_pem: self.plane.ca_pem().unwrap(),
            via: Via::default(),
            credential: Credential::Token(Secret::new(seed.join().unwrap().token.bearer().to_string())),
        };
        Api::new(&access).unwrap()
    }
}

fn device() -> Bench {
    Bench { csr_wait: SOON, ..Bench::default() }
}

/// A denied request as the device reports it.
fn denied(device: &mut Bench, seed: &Seed, node: &str) -> String {
    let (code, text) = device.fails(seed, node);
    assert_eq!(code, Code::CsrRejected, "{text}");
    text.split_once(" was denied: ").unwrap_or_else(|| panic!("{text}")).1.to_owned()
}

#[test]
fn s02_a_seed_of_one_node_is_worth_nothing_after_use() {
    let (ground, node) = (ground(), "shop-12.example.com");
    let seed = ground.seed(&["--node", "Shop-12.example.com", "--ttl", "90m"]);
    assert_eq!(seed.node.name.as_ref().unwrap().as_str(), node);
    let cluster = seed.join().unwrap();
    assert_eq!(cluster.apiserver[0].to_string(), ground.plane.endpoint_for_host());
    assert!(matches!(&cluster.trust, Trust::Pins(pins) if pins[0].to_string() == ground.plane.ca_pin().unwrap()));
    let ends = cluster.token_expires.unwrap().duration_since(std::time::SystemTime::now()).unwrap().as_secs();
    assert!((5300..=5400).contains(&ends), "{ends}");
    let token = seed.join().unwrap().token.id().to_owned();
    assert_eq!(ground.tokens_of(node), [token.as_str()]);

    let mut first = device();
    let joined = first.join(&seed, node).unwrap();
    // As after a power cut: the same key, by the same request, and by another one when the cluster has forgotten that.
    assert_eq!(first.join(&seed, node).unwrap().certificate_pem, joined.certificate_pem);
    let csrs = bench::csrs_by(&ground.plane, seed.join().unwrap().token.bearer().as_str());
    let [csr] = &csrs[..] else { panic!("{csrs:?}") };
    ground.plane.kubectl(&["delete", "csr", csr]).unwrap();
    first.join(&seed, node).unwrap();

    // A copy of the seed in another device.
    let used = format!(
        "FirstbootTokenUsed token {token} was used with another key: a seed is for one device, once; make another one: \
         imagebuild seed new --kubeconfig --node {node}; the next try sends another"
    );
    assert_eq!(denied(&mut device(), &seed, node), used);

    // kubelet registers: the token is worth nothing from then on, to this device or another.
    assert_eq!(ground.tokens_of(node), [token.as_str()]);
    let pair = format!("{}{}", joined.certificate_pem, first.kubelets_key().expose());
    register(ground, &pair, node);
    wait::until("the token to be deleted", SOON, || Ok(ground.tokens_of(node).is_empty().then_some(()))).unwrap();
    wait::until("cluster-info to lose its signature", SOON, || {
        let info = ground.plane.get(&["-n", "kube-public", "configmap", "cluster-info"])?;
        Ok(info["data"][format!("jws-kubeconfig-{token}")].is_null().then_some(()))
    })
    .unwrap();
    for mut anyone in [device(), first] {
        let (code, text) = anyone.fails(&seed, node);
        assert_eq!(code, Code::TokenUnknown, "{text}");
    }
}

/// As kubelet does, with the certificate that the token gave.
fn register(ground: &Ground, pair: &str, node: &str) {
    let access = Access {
        server: format!("https://{}", ground.plane.endpoint_for_host()),
        ca_pem: ground.plane.ca_pem().unwrap(),
        via: Via::default(),
        credential: Credential::Certificate(pair.to_owned(), Secret::new(pair.to_owned())),
    };
    let labels = json!({ "kubernetes.io/hostname": node });
    let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node, "labels": labels } });
    Api::new(&access).unwrap().post("/api/v1/nodes", &object).unwrap();
}

#[test]
fn s02_a_seed_of_one_node_gets_no_certificate_of_another() {
    let (ground, node) = (ground(), "thousand");
    let seed = ground.seed(&["--node", node]);
    let (thief, key) = (ground.thief(&seed), Key::generate().unwrap());
    for number in 0..1000 {
        let request = key.request(&format!("{node}-{number}")).unwrap();
        let csr = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "name": request.name, "labels": { "seeds": node } },
            "spec": { "signerName": SIGNER, "usages": USAGES, "request": STANDARD.encode(&request.pem) },
        });
        thief.post(CSRS, &csr).unwrap();
    }
    let all = || ground.plane.get(&["csr", "-l", "seeds=thousand"]);
    let decided = wait::until("all requests to be decided", Duration::from_secs(120), || {
        let all = all()?["items"].as_array().cloned().unwrap_or_default();
        Ok((all.len() == 1000 && all.iter().all(|csr| csr["status"]["conditions"].is_array())).then_some(all))
    })
    .unwrap();
    let why = format!("this token is for node {node} alone: O=system:nodes, CN=system:node:{node}");
    for csr in &decided {
        let condition = &csr["status"]["conditions"][0];
        assert_eq!((&condition["type"], &condition["reason"]), (&json!("Denied"), &json!("FirstbootNotItsNode")));
        assert_eq!(condition["message"], why.as_str());
    }
    assert_eq!(decided.iter().filter(|csr| csr["status"]["certificate"].is_string()).count(), 0);
    // Nor of another kind.
    let other = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "seeds-other-signer" },
        "spec": { "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            "request": STANDARD.encode(&key.request(node).unwrap().pem) },
    });
    let refused = thief.post(CSRS, &other).unwrap_err().text;
    assert!(
        refused.ends_with("a token of one node may ask for the client certificate of a kubelet alone"),
        "{refused}"
    );
    // All that has spent nothing: the device itself joins.
    device().join(&seed, node).unwrap();
}

#[test]
fn a_name_that_is_taken_is_refused_until_its_node_is_deleted() {
    let (ground, node) = (ground(), "taken-before");
    let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node } });
    create(&ground.plane, &object);
    let seed = ground.seed(&["--node", node]);
    let mut device = device();
    let want = format!(
        "FirstbootNodeExists node {node} exists with another key; if this device replaces it: kubectl delete node {node}; \
         the next try sends another"
    );
    assert_eq!(denied(&mut device, &seed, node), want);
    ground.plane.kubectl(&["delete", "node", node]).unwrap();
    device.join(&seed, node).unwrap();
}

#[test]
fn a_seed_of_any_node_joins_as_with_kubeadms_token() {
    let ground = ground();
    let seed = ground.seed(&["--name", "any-node", "--role", "worker"]);
    let mut device = device();
    let joined = device.join(&seed, "any-node").unwrap();
    assert_eq!(device.node_client(&joined).node().unwrap(), None);
    let secret = format!("bootstrap-token-{}", seed.join().unwrap().token.id());
    let secret = ground.plane.get(&["-n", "kube-system", "secret", &secret]).unwrap();
    let groups = STANDARD.encode("system:bootstrappers:kubeadm:default-node-token");
    assert_eq!(secret["data"]["auth-extra-groups"], groups.as_str());
    assert_eq!(secret["data"]["description"], STANDARD.encode("made by imagebuild seed new, for any node").as_str());
}

#[test]
fn a_kubeconfig_without_permission_is_named_with_its_remedy() {
    let ground = ground();
    ground.plane.kubectl(&["-n", "default", "create", "serviceaccount", "seeds-weak"]).unwrap();
    let config = ground.kubeconfig("default", "seeds-weak").display().to_string();
    let dir = tempdir();
    let file = dir.path().join("seed.toml").display().to_string();
    let error = seed_command(&["new", "--kubeconfig", &config, "--out", &file]).unwrap_err();
    assert_eq!(
        error,
        "create secrets in namespace kube-system: the user of this kubeconfig may not (403, verb create, resource secrets); \
         an administrator of the cluster permits it: kubectl -n kube-system create role firstboot-seeds --verb=create,delete \
         --resource=secrets, and bind the user to it"
    );
    assert!(!Path::new(&file).exists());
}

#[test]
fn a_seed_that_cannot_be_written_leaves_no_token() {
    let (ground, node) = (ground(), "unwritten");
    let file = ground.dir.join("no-such-directory/seed.toml").display().to_string();
    let error = seed_command(&["new", "--kubeconfig", &ground.admin(), "--node", node, "--out", &file]).unwrap_err();
    assert_eq!(error, format!("create {file}: No such file or directory (os error 2)"));
    // It was made: the audit log has it.
    let made = |verb: &str| {
        let all = ground.plane.audit().unwrap();
        let ours = all.iter().filter(|e| e.verb == verb && e.user.username == "kubernetes-admin");
        ours.filter(|e| e.request_uri.contains("/kube-system/secrets")).count()
    };
    assert!(made("create") >= 1 && made("delete") >= 1);
    assert_eq!(ground.tokens_of(node), [""; 0]);
}

#[test]
fn s02_each_device_of_a_table_gets_a_token_of_its_own() {
    let (ground, dir) = (ground(), tempdir());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let [csv, out, used] = ["devices.csv", "seeds", "used"].map(path);
    let names: Vec<String> = (1..=20).map(|n| format!("Fleet-{n}.example.com")).collect();
    std::fs::write(&csv, format!("node.name\n{}\n", names.join("\n"))).unwrap();
    let admin = ground.admin();
    seed_command(&["fleet", &csv, "--out", &out, "--kubeconfig", &admin, "--ttl", "30m"]).unwrap();
    for name in &names {
        let seed = seed_of(&std::fs::read_to_string(Path::new(&out).join(format!("{name}.toml"))).unwrap());
        assert_eq!(ground.tokens_of(&name.to_lowercase()), [seed.join().unwrap().token.id()], "{name}");
        assert!(seed.join().unwrap().token_expires.is_some());
    }
    // One of them is a seed like any other that is bound to its node.
    let seed = seed_of(&std::fs::read_to_string(Path::new(&out).join(format!("{}.toml", names[0]))).unwrap());
    device().join(&seed, "fleet-1.example.com").unwrap();

    // Nothing is left of tokens whose seeds could not be written, and none is made where the table is wrong.
    std::fs::create_dir(&used).unwrap();
    std::fs::write(Path::new(&used).join("x"), "").unwrap();
    std::fs::write(&csv, "node.name\nlost-1\nlost-2\n").unwrap();
    let error = seed_command(&["fleet", &csv, "--out", &used, "--kubeconfig", &admin]).unwrap_err();
    assert_eq!(error, format!("create {used}: there is something already: give another --out"));
    assert_eq!([ground.tokens_of("lost-1"), ground.tokens_of("lost-2")], [[""; 0]; 2]);
    std::fs::write(&csv, "node.name\nlost-1\nlost-1\n").unwrap();
    let error = seed_command(&["fleet", &csv, "--out", &path("x"), "--kubeconfig", &admin]).unwrap_err();
    assert_eq!(
        error,
        format!("make seeds from {csv}: nothing was written\nrow 3: name \"lost-1\" is that of row 2, too")
    );
    assert_eq!(ground.tokens_of("lost-1"), [""; 0]);
}

#[test]
fn a_cluster_that_approves_any_name_is_refused() {
    let (ground, node) = (ground(), "void");
    let role = "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    let to = format!("--group={}", group(node));
    ground.plane.kubectl(&["create", "clusterrolebinding", "seeds-void", role, &to]).unwrap();
    let file = ground.dir.join("void.toml").display().to_string();
    let error = wait::until("the authorizer to know", SOON, || {
        Ok(seed_command(&["new", "--kubeconfig", &ground.admin(), "--node", node, "--out", &file]).err())
    })
    .unwrap();
    assert_eq!(
        error,
        "bind a token to node void: this cluster approves any node's name for group system:bootstrappers; delete the \
         ClusterRoleBinding of system:certificates.k8s.io:certificatesigningrequests:nodeclient to that group"
    );
}

#[test]
fn s02_the_approver_reaches_no_other_secret() {
    let ground = ground();
    let api = api_of(&ground.kubeconfig("firstboot", "approver"));
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let any = ground.seed(&["--name", "seeds-unbound"]);
    let bound = ground.seed(&["--node", "seeds-bound"]);
    let token = |seed: &Seed| format!("{secrets}/bootstrap-token-{}", seed.join().unwrap().token.id());
    let limit = "the approver may change and delete tokens of one node alone";
    for path in [format!("{secrets}/seeds-foreign"), token(&any)] {
        assert!(api.get(&path).unwrap_err().text.contains("403 Forbidden"));
        let error = api.patch(&path, &json!({})).unwrap_err().text;
        assert!(error.ends_with(limit), "{error}");
        let error = api.delete(&path).unwrap_err().text;
        assert!(error.ends_with(limit), "{error}");
    }
    let other = json!({ "stringData": { "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token" } });
    let error = api.patch(&token(&bound), &other).unwrap_err().text;
    assert!(error.ends_with("the approver may annotate a token, and change nothing of it"), "{error}");
    assert!(api.get(secrets).unwrap_err().text.contains("403 Forbidden"));
    assert!(api.patch(&token(&bound), &json!({})).is_ok());
}

#[test]
fn the_deployment_is_accepted_as_it_is_printed() {
    let ground = ground();
    let yaml = ground.dir.join("deployment.yaml");
    std::fs::write(&yaml, manifests(Some("registry.example.com/firstboot-approver:1")).unwrap()).unwrap();
    let said = ground.plane.kubectl(&["apply", "--dry-run=server", "-f", &yaml.display().to_string()]).unwrap();
    assert!(said.contains("deployment.apps/approver created (server dry run)"), "{said}");
}

/// The rows of a check, and what failed of them: step, code and text.
fn survey(seed: &Seed) -> (Vec<Row>, Vec<(&'static str, Code, String)>) {
    let kubelet = Some((KUBELET, "generic-amd64"));
    let now = std::time::SystemTime::now();
    let rows = Survey { cluster: seed.join().unwrap(), via: &seed.network.via, kubelet, now }.run().unwrap();
    let failed = rows.iter().filter(|row| row.state == State::Failed);
    let failed = failed.map(|row| (row.check, row.code.unwrap(), row.text.clone())).collect();
    (rows, failed)
}

#[test]
fn a_good_seed_passes_every_online_check() {
    let ground = ground();
    for words in [&["--name", "checked"][..], &["--node", "checked-bound"]] {
        let (rows, failed) = survey(&ground.seed(words));
        assert_eq!(failed, []);
        assert_eq!(rows.iter().map(|row| (row.check, row.state)).collect::<Vec<_>>(), CHECKS.map(|c| (c, State::Good)));
        assert_eq!(rows[8].text, format!("kubelet {KUBELET} fits the cluster, 1.36.3"));
    }
    // The command itself; the check leaves no trace in the cluster.
    let dir = tempdir();
    let file = dir.path().join("seed.toml").display().to_string();
    let admin = ground.admin();
    seed_command(&["new", "--kubeconfig", &admin, "--name", "checked", "--out", &file]).unwrap();
    seed_command(&["check", "--online", &file]).unwrap();
    assert_eq!(ground.plane.node("checked").unwrap(), None);
    let ca = STANDARD.encode(ground.plane.ca_pem().unwrap());
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("ca-cert-hashes")).unwrap();
    let (rows, failed) = survey(&seed_of(&text.replace(line, &format!("ca-cert = \"{ca}\""))));
    assert_eq!(failed, []);
    let skipped: Vec<&str> = rows.iter().filter(|r| r.state == State::Skipped).map(|r| r.check).collect();
    assert_eq!(skipped, ["cluster-info", "token", "signature", "pin"]);
}

#[test]
fn online_checks_name_what_is_wrong() {
    let ground = ground();
    let good = ground.seed(&["--name", "wrong"]);
    let token = good.join().unwrap().token.bearer();
    let (server, pin) = (ground.plane.endpoint_for_host(), ground.plane.ca_pin().unwrap());

    let zero = format!("sha256:{}", "0".repeat(64));
    let (rows, failed) = survey(&pinned(&server, &token, &zero));
    let text = format!("CA of the cluster at {server} does not match ca-cert-hashes: it is {pin}");
    assert_eq!(failed, [("pin", Code::PinMismatch, text)]);
    assert_eq!(rows[4].owner, Some(Owner::Cluster));
    assert_eq!((rows[3].state, rows[5].state, rows[5].text.as_str()), (State::Good, State::Skipped, "pin comes first"));

    let gone = "zzzzzz.0123456789abcdef";
    let expires = "token-expires = 2026-01-01T00:00:00Z\n";
    let (_, failed) = survey(&seed_of(&(pinned_text(&server, gone, &pin) + expires)));
    let text = "join token \"zzzzzz\" is unknown to the cluster (no JWS signature for it in cluster-info): it expired at \
                2026-01-01T00:00:00Z";
    assert_eq!(failed, [("token", Code::TokenExpired, text.to_owned())]);

    let secret = format!("{}.0123456789abcdef", id(&token));
    let (_, failed) = survey(&pinned(&server, &secret, &pin));
    assert_eq!(failed.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>(), [("signature", Code::SignatureMismatch)]);

    // Each server has its own rows.
    let closed = format!("127.0.0.1:{}", qemu::ports::free().unwrap());
    let two =
        pinned_text(&closed, &token, &pin).replace(&format!("\"{closed}\""), &format!("[\"{closed}\", \"{server}\"]"));
    let (rows, failed) = survey(&seed_of(&two));
    let text = format!("connect to API server {closed}: connection refused");
    assert_eq!(failed, [("reachable", Code::ConnectionRefused, text)]);
    assert_eq!((rows.len(), rows.iter().filter(|row| row.state == State::Good).count()), (18, 8));

    let elsewhere = relay(&ground.plane, "127.0.0.3").unwrap();
    let (rows, failed) = survey(&pinned(&elsewhere, &token, &pin));
    assert_eq!((failed.len(), failed[0].0, failed[0].1), (1, "certificate", Code::NameMismatch));
    let start = format!("certificate of API server {elsewhere} does not cover that address: it covers ");
    assert!(failed[0].2.starts_with(&start), "{}", failed[0].2);
    assert_eq!(rows[4].state, State::Good);

    let seed = pinned(&server, &token, &pin);
    let kubelet = Some(("1.37.0", "generic-amd64"));
    let survey =
        Survey { cluster: seed.join().unwrap(), via: &seed.network.via, kubelet, now: std::time::SystemTime::now() };
    let rows = survey.run().unwrap();
    assert_eq!((rows[8].state, rows[8].code), (State::Failed, Some(Code::ClusterTooOld)));

    // The command says how many, and ends with an error.
    let dir = tempdir();
    let file = dir.path().join("seed.toml").display().to_string();
    std::fs::write(&file, pinned_text(&server, &token, &zero)).unwrap();
    let error = seed_command(&["check", "--online", "--json", &file]).unwrap_err();
    assert_eq!(error, format!("check {file} online: 1 of 6 checks failed"));
}
