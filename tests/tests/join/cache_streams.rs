// SPDX-License-Identifier: Apache-2.0
//! kubectl through the cache: logs, exec, attach and port-forward, which an API server gets from kubelet's port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use apicache::body::whole;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use imagebuild::digest;
use qemu::control_plane::ControlPlane;
use qemu::kubectl::Kubectl;
use qemu::wait;
use serde_json::json;

use super::cache::workload;
use super::cache_bench::*;
use super::kubelet_port::{KubeletPort, line, log};

/// kubectl of a service account whose API server is the cache.
struct User {
    kubectl: Kubectl,
    fixture: Fixture,
}

impl User {
    fn new(plane: &ControlPlane, node: &str) -> Self {
        let fixture = Fixture::new(plane, node);
        fixture.connected();
        plane.kubectl(&["-n", node, "create", "serviceaccount", "user"]).unwrap();
        let account = format!("--serviceaccount={node}:user");
        plane.kubectl(&["-n", node, "create", "rolebinding", "user", "--clusterrole=edit", &account]).unwrap();
        let token = plane.kubectl(&["-n", node, "create", "token", "user"]).unwrap();
        let cluster = json!({
            "server": format!("https://{}", fixture.config.listen),
            "certificate-authority": fixture.dir.path().join("both.pem"),
        });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cache",
            "contexts": [{"name": "cache", "context": {"cluster": "cache", "user": "user", "namespace": node}}],
            "clusters": [{"name": "cache", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token.trim()}}],
        });
        let path = fixture.dir.path().join("user.conf");
        std::fs::write(&path, config.to_string()).unwrap();
        let user = User { kubectl: Kubectl::of_lock(&path, fixture.dir.path()).unwrap(), fixture };
        wait::until("the role to be known", LIMIT, || {
            Ok(user.kubectl.run(&["auth", "can-i", "create", "pods/exec"]).ok())
        })
        .unwrap();
        user
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.kubectl.program());
        let dir = self.fixture.dir.path();
        command.arg("--kubeconfig").arg(dir.join("user.conf")).args(words);
        command.env("KUBECACHEDIR", dir.join("kubectl-cache"));
        command
    }

    fn start(&self, words: &[&str]) -> Running {
        let mut command = self.command(words);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (lines, said) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Running { child, said }
    }
}

/// A kubectl that runs.
struct Running {
    child: Child,
    said: Receiver<String>,
}

impl Running {
    /// The next line that it prints.
    fn line(&mut self) -> String {
        match self.said.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(_) => panic!("no line: {}", self.end()),
        }
    }

    /// What it has said on its standard error once it has ended.
    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command says that gets this on its standard input.
fn fed(mut command: Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that ends before it has read everything says why.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    out
}

/// Bytes without a pattern.
fn noise(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(24);
    std::iter::repeat_with(|| random.u8(..)).take(count).collect()
}

fn set_status(plane: &ControlPlane, what: &[&str], status: serde_json::Value) {
    let patch = json!({ "status": status }).to_string();
    plane.kubectl(&[&["patch"], what, &["--subresource=status", "--type=merge", "-p", &patch]].concat()).unwrap();
}

/// Sends 10 MiB through a port that kubectl forwards, and compares what comes back.
fn forwards(user: &User) {
    let mut forward = user.start(&["port-forward", "--address=127.0.0.1", "pod/one", ":8080"]);
    let said = forward.line();
    let address = said.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("{said}")).to_owned();
    // The second connection has streams of its own on the same way.
    for count in [10 << 20, 1000] {
        let (sent, mut stream) = (noise(count), TcpStream::connect(&address).unwrap());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (mut to, bytes) = (stream.try_clone().unwrap(), sent.clone());
        let sender = std::thread::spawn(move || {
            to.write_all(&bytes).unwrap();
            to.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        sender.join().unwrap();
        assert_eq!((back.len(), digest::bytes(&back)), (count, digest::bytes(&sent)), "{}", forward.end());
    }
}

pub fn logs_exec_attach_and_port_forward(plane: &ControlPlane) {
    let node = "streams";
    workload(plane, node);
    let kubelet = KubeletPort::start();
    let status = |features: &[&str]| {
        json!({
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}}, "declaredFeatures": features,
        })
    };
    set_status(plane, &["node", node], status(&[]));
    set_status(plane, &["-n", node, "pod", "one"], json!({"phase": "Running"}));
    let user = User::new(plane, node);
    let asked = |what: &str, wanted: &[[&str; 4]]| {
        let asked = kubelet.asked();
        assert!(
            asked.iter().map(|all| all.each_ref().map(String::as_str)).eq(wanted.iter().copied()),
            "{what}: {asked:?}"
        );
    };

    // A whole log, and one that goes on: each line comes before the next is written.
    let whole = user.kubectl.run(&["logs", "one"]).unwrap();
    assert_eq!(digest::bytes(whole.as_bytes()), digest::bytes(log().as_bytes()));
    let mut follow = user.start(&["logs", "one", "--follow"]);
    let container = kubelet.followed();
    for text in ["first", "second", "third"] {
        container.blocking_send(line(text)).unwrap();
        assert_eq!(follow.line(), text);
    }
    drop(container);
    assert!(follow.child.wait().unwrap().success(), "{}", follow.end());
    asked("logs", &[["GET", "containerLogs", "", ""]; 2]);

    // A kubelet before 1.36: the API server speaks SPDY with it, and the client does or does not.
    forwards(&user);
    asked("port-forward by WebSocket", &[["POST", "portForward", "SPDY/3.1", "portforward.k8s.io"]]);

    // kubelet 1.36: the client's WebSocket ends there.
    set_status(plane, &["node", node], status(&["ExtendWebSocketsToKubelet"]));
    forwards(&user);
    asked("port-forward to kubelet 1.36", &[["GET", "portForward", "websocket", "SPDY/3.1+portforward.k8s.io"]]);
    for code in [0, 7] {
        let sent = noise(1 << 20);
        let out = fed(user.command(&["exec", "-i", "one", "--", "cat", &code.to_string()]), sent.clone());
        let said = String::from_utf8(out.stderr).unwrap();
        let ended = if code == 0 { String::new() } else { format!("command terminated with exit code {code}\n") };
        assert_eq!((out.status.code(), said), (Some(code), format!("that was all\n{ended}")));
        assert_eq!((out.stdout.len(), digest::bytes(&out.stdout)), (sent.len(), digest::bytes(&sent)));
    }
    // A conversation: each answer comes before the next question.
    let converses = |words: &[&str]| {
        let mut client = user.start(words);
        let mut stdin = client.child.stdin.take().unwrap();
        for text in ["one", "two", "three"] {
            writeln!(stdin, "{text}").unwrap();
            assert_eq!(client.line(), text);
        }
        drop(stdin);
        client.child.wait().unwrap().code()
    };
    assert_eq!(converses(&["exec", "-i", "one", "--", "cat", "3"]), Some(3));
    asked("exec", &[["GET", "exec", "websocket", "v5.channel.k8s.io"]; 3]);
    assert_eq!(converses(&["attach", "-i", "one"]), Some(0));
    asked("attach", &[["GET", "attach", "websocket", "v5.channel.k8s.io"]]);

    // Without an API server there is none of it, and kubectl hears why at once.
    plane.stop_apiserver().unwrap();
    user.fixture.disconnected();
    let all: [&[&str]; 4] = [
        &["logs", "one"],
        &["exec", "one", "--", "cat", "0"],
        &["attach", "one"],
        &["port-forward", "pod/one", ":8080"],
    ];
    for words in all {
        let out = fed(user.command(words), Vec::new());
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!out.status.success() && said.contains("firstboot cache: "), "{words:?}: {said}");
    }
    plane.start_apiserver().unwrap();
    user.fixture.connected();
    // What went through the cache so far has left nothing behind: the next one works.
    assert_eq!(user.kubectl.run(&["logs", "one"]).unwrap().len(), log().len());
}

/// A connection that has become another protocol counts as one: a pod that may watch cannot have more of them than others,
/// and none of them keeps kubelet out.
pub fn places_are_kept(plane: &ControlPlane) {
    let node = "places";
    workload(plane, node);
    let user = User::new(plane, node);
    let (fixture, client) = (&user.fixture, user.fixture.client(false));
    let token = plane.kubectl(&["-n", node, "create", "token", "user"]).unwrap();
    let path = format!("/api/v1/namespaces/{node}/configmaps?watch=true");
    let open = || async {
        let mut connection = client.connect(false, false).await.ok()?;
        let request =
            Request::get(&path).header("host", "127.0.0.1").header("authorization", format!("Bearer {}", token.trim()));
        let request =
            request.header("origin", "http://localhost").header("connection", "Upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        let response = connection.send(request.body(whole(Bytes::new())).unwrap()).await.ok()?;
        if response.status() != 101 {
            panic!("{}", String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()));
        }
        Some(hyper::upgrade::on(response).await.unwrap())
    };
    let opened = |count: usize| {
        let mut all = Vec::new();
        for _ in 0..count {
            all.extend(fixture.runtime.block_on(open()));
        }
        all
    };
    let all = opened(40);
    assert_eq!(all.len(), 32);
    let own = Ask::get(&format!("/api/v1/nodes/{node}"), PROTOBUF);
    assert_eq!(fixture.ask(&own).status, 200);
    drop(all);
    wait::until("the places to be free again", LIMIT, || Ok((opened(1).len() == 1).then_some(()))).unwrap();
}
