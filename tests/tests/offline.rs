// SPDX-License-Identifier: Apache-2.0
//! A device with `offline = true` loses its power and its cluster: its pods come back without an API server and find each
//! other by Service names, and nothing happens to them when it is there again, except to one that was deleted meanwhile.
//! Boots 1 guest, twice: on each architecture, and with flannel as the cluster's network.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use firstboot::control_plane::flannel;
use firstboot::seed::Endpoint;
use imagebuild::arch::Arch;
use imagebuild::bundle::{self, Choice};
use qemu::control_plane::config::Family;
use qemu::control_plane::{ControlPlane, condition};
use qemu::device::{Device, Options};
use qemu::disk::DiskImage;
use qemu::progress::Progress;
use qemu::seed::Seed;
use qemu::{pods, scenario, wait};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(600);

/// Says on the console, at every boot, which containers `demo` of pods of namespace default run, and how long after kubelet the
/// last of them was started, both by the kernel; the address of a Service by the environment of one of them, and the token
/// of another, by its digest. It starts programs only when something has changed: under emulation they take a second.
const SCRIPT: &str = r#"
mkdir -p /var/lib/firstboot-test
boot=$(( $(cat /var/lib/firstboot-test/boots 2>/dev/null || echo 0) + 1 ))
echo $boot > /var/lib/firstboot-test/boots
groups=/sys/fs/cgroup/kubepods.slice
started() { read -r line < "/proc/$1/stat" && set -- ${line##*) } && start=${20}; }
said= try=0
while sleep 2; do
    try=$((try + 1)) running= latest=0 settings=
    for log in /var/log/containers/*_default_demo-*.log; do
        id=${log##*-} id=${id%.log} pod=${log##*/} pod=${pod%%_*} process=
        for group in $groups/*/*"$id"* $groups/*/*/*"$id"*; do
            [ -d "$group" ] && read -r process < "$group/cgroup.procs"
        done 2>/dev/null
        if [ -n "$process" ] && started $process 2>/dev/null; then
            running="$running $pod=$id"
            [ $start -gt $latest ] && latest=$start
            case $pod in settings-*) settings=$process;; esac
        fi
    done
    if [ "$running" != "$said" ]; then
        said=$running address= start=0
        started "$(systemctl show kubelet --property MainPID --value)"
        [ -n "$settings" ] && address=$(tr '\0' '\n' < /proc/$settings/environ | sed -n 's/^SETTINGS_SERVICE_HOST=//p')
        digest=$(cat /var/lib/kubelet/pods/*/volumes/kubernetes.io~projected/kube-api-access-*/token 2>/dev/null | sha256sum)
        echo "test: boot $boot: $(( (latest - start) * 10 )) ms:$running ; address=$address digest=${digest%% *}"
    fi
    if [ $((try % 30)) = 0 ]; then
        echo "test: boot $boot: cache: $(firstboot status 2>&1 | grep ^cluster)"
        echo "test: boot $boot: cni0: $(ip -br address show cni0); flannel: $(ip -br address show flannel.1)"
        for log in /var/log/containers/*_kube-system_*.log /var/log/containers/*_kube-flannel_*.log; do
            echo "test: ${log##*/}: $(tail -n 2 "$log")"
        done
    fi
done
"#;

/// The pods' network.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    /// Our bridge.
    Bridge,
    /// flannel, as a device deploys it that creates a cluster: by a kubeconfig with the API server's own address.
    Flannel,
    /// flannel as its own manifest deploys it: by Service `kubernetes`.
    FlannelByService,
}

#[test]
#[ignore = "boots a guest twice"]
fn pods_come_back_without_api_server() {
    come_back(Arch::Amd64, Network::Bridge);
}

#[test]
#[ignore = "boots a guest twice"]
fn pods_come_back_on_arm64() {
    come_back(Arch::Arm64, Network::Bridge);
}

#[test]
#[ignore = "boots a guest twice"]
fn pods_come_back_with_flannel() {
    come_back(Arch::Amd64, Network::Flannel);
}

#[test]
#[ignore = "boots a guest twice"]
fn pods_come_back_with_flannel_by_service() {
    come_back(Arch::Amd64, Network::FlannelByService);
}

fn come_back(arch: Arch, network: Network) {
    if !e2e::can_boot(arch) {
        return;
    }
    let plane = ControlPlane::start(&Default::default()).unwrap();
    let image = match network {
        Network::Bridge => e2e::image(arch).unwrap(),
        flannel => with_flannel(&plane, arch, flannel),
    };
    let options = Options { guest_ports: vec![pods::PORT], ..Options::new(arch) };
    let token = plane.create_token("1h").unwrap();
    let device = Device::new(&image, &options).unwrap();
    let seed = Seed { more: "\n[node]\noffline = true\n".to_owned(), ..Seed::for_guest(&plane, &token).unwrap() };
    e2e::add_script(device.disk(), SCRIPT).unwrap();
    device.disk().put_seed(&seed.text()).unwrap();
    create(&plane);
    let mut joined = scenario::join(&plane, device, token, &mut Progress::default()).unwrap();
    let device = &mut joined.device;
    let before = wait_ready(&plane, device, 5);
    let line = said(device, "test: boot 1: ", |line| running(line) == before);
    let (address, token) = (part(&line, "address="), part(&line, "digest="));
    assert!(address.starts_with("10.") && token.len() == 64, "{line}");
    // What was read is on the medium after 5 s at the latest: apicache::store::FLUSH.
    std::thread::sleep(Duration::from_secs(15));

    plane.stop_apiserver().unwrap();
    device.power_cut().unwrap();
    device.power_on().unwrap();
    let line = said(device, "test: boot 2: ", |line| running(line).len() == before.len());
    let after: f64 = line.split("boot 2: ").nth(1).and_then(|l| l.split(' ').next()).unwrap().parse().unwrap();
    eprintln!("all pods run {:.1} s after kubelet was started", after / 1000.0);
    let offline = running(&line);
    let names = |all: &BTreeSet<(String, String)>| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&offline), names(&before), "the same pods");
    assert!(offline.is_disjoint(&before), "in new containers");
    assert_eq!(part(&line, "address="), address, "the Service that its environment names");
    assert_eq!(part(&line, "digest="), token, "the token that the cluster had issued");
    // flanneld, too, starts from what it had read.
    let flannel = network != Network::Bridge;
    said(device, "test: boot 2: cni0: ", |line| line.contains(" 10.244.") && (!flannel || line.contains("flannel.1 ")));
    said(device, "test: boot 2: cache: ", |line| {
        line.contains("disconnected since ") && line.contains(" objects as of ")
    });

    // The device hears of the API server and of the deletion at the same time.
    device
        .while_paused(|_| {
            plane.start_apiserver()?;
            plane.kubectl(&["-n", "default", "delete", "pod", "token", "--grace-period=0", "--force"]).map(drop)
        })
        .unwrap();
    let left: BTreeSet<_> = offline.iter().filter(|(name, _)| name != "token").cloned().collect();
    said(device, "test: boot 2: ", |line| running(line) == left);
    plane.wait_ready(&joined.name, LIMIT).unwrap();
    let back = wait::every(Duration::from_secs(1), "the cluster to know the containers", LIMIT, || {
        Ok(Some(containers(&plane)?).filter(|now| *now == left))
    });
    let device = &joined.device;
    back.unwrap_or_else(|e| panic!("{e}: {:?}\n{}", containers(&plane), device.report()));
    assert_eq!(wait_ready(&plane, device, 4), left, "nothing was restarted, killed or duplicated");
    said(device, "test: boot 2: cache: ", |line| line.contains(" connected since "));
    assert_eq!(running(&last(device, " ms:")), left, "nor is anything else on the device");
    let events = wait::every(Duration::from_secs(1), "the Event of the outage", LIMIT, || {
        Ok(Some(plane.events("FirstbootReconnected")?).filter(|events| !events.is_empty()))
    });
    let events = events.unwrap();
    assert_eq!(events.len(), 1, "{events:?}");
    let start = format!("/{}: no API server answered this node for ", joined.name);
    assert!(events[0].contains(&start) && events[0].contains(" min "), "{events:?}");
}

/// Deploys flannel; an image that has its images, too: that of a control plane.
fn with_flannel(plane: &ControlPlane, arch: Arch, network: Network) -> DiskImage {
    let target = format!("generic-{arch}");
    let choice = Choice { kubernetes_version: None, control_plane: true };
    let manifest = bundle::ensure(arch, choice).unwrap().manifest;
    let images = flannel::Images::of(&manifest, &target).unwrap();
    let nets = [Family::V4.pod_subnet().parse().unwrap()];
    let server = Endpoint::parse(&plane.endpoint_for_guest()).unwrap();
    let mut objects: Vec<Value> =
        flannel::objects(&nets, &images, &server).into_iter().map(|(_, object)| object).collect();
    if network == Network::FlannelByService {
        let set = objects.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
        let command = set["spec"]["template"]["spec"]["containers"][0]["command"].as_array_mut().unwrap();
        let before = command.len();
        command.retain(|word| !word.as_str().unwrap().starts_with("--kubeconfig-file="));
        assert_eq!(command.len(), before - 1);
    }
    apply(plane, &objects.into());
    DiskImage::open(&qemu::image_of(&qemu::for_control_plane(&target).unwrap()).unwrap()).unwrap()
}

fn apply(plane: &ControlPlane, items: &Value) {
    plane.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items })).unwrap();
}

/// The first line of the console after `from` that is `good`.
fn said(device: &Device, from: &str, good: impl Fn(&str) -> bool) -> String {
    let found = wait::every(Duration::from_secs(1), &format!("a line with {from:?}"), LIMIT, || {
        device.check()?;
        let text = device.console().text()?;
        // A line that is still being written has no end.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.lines().find(|line| line.contains(from) && good(line)).map(str::to_owned))
    });
    found.unwrap_or_else(|e| panic!("{e}\n{}", device.report()))
}

/// The last line of the console with `part` that the script has said.
fn last(device: &Device, part: &str) -> String {
    let text = device.console().text().unwrap();
    text.lines().rfind(|line| line.contains("test: boot ") && line.contains(part)).unwrap().to_owned()
}

/// What follows `name` in a line.
fn part(line: &str, name: &str) -> String {
    line.split(name).nth(1).and_then(|l| l.split_whitespace().next()).unwrap_or_default().to_owned()
}

/// Pods and containers of one line of the script.
fn running(line: &str) -> BTreeSet<(String, String)> {
    let listed = line.split(" ms:").nth(1).and_then(|l| l.split(';').next()).unwrap_or_default();
    listed.split_whitespace().filter_map(|p| p.split_once('=')).map(|(n, id)| (n.to_owned(), id.to_owned())).collect()
}

/// Pods of namespace default and their containers, as the cluster has them.
fn containers(plane: &ControlPlane) -> anyhow::Result<BTreeSet<(String, String)>> {
    let pods = plane.get(&["pods", "-n", "default"])?;
    let ids = pods["items"].as_array().into_iter().flatten().filter_map(|pod| {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str()?;
        Some((pod["metadata"]["name"].as_str()?.to_owned(), id.rsplit('/').next()?.to_owned()))
    });
    Ok(ids.collect())
}

fn wait_ready(plane: &ControlPlane, device: &Device, count: usize) -> BTreeSet<(String, String)> {
    let ready = wait::every(Duration::from_secs(1), "all pods to be ready", LIMIT, || {
        device.check()?;
        let pods = plane.get(&["pods", "-n", "default"])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &Value| condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
        Ok((pods.len() == count && pods.iter().all(ready)).then_some(()))
    });
    ready.unwrap_or_else(|e| {
        panic!("{e}\n{}\n{}", plane.kubectl(&["get", "events,pods", "-A"]).unwrap_or_default(), device.report())
    });
    containers(plane).unwrap()
}

/// A Deployment with a ConfigMap and Service environment variables, one with a Secret, a DaemonSet with a hostPath, a pod
/// with a projected token, and a Deployment whose pods run once they have reached the first one by its Service's name:
/// that takes the cluster's DNS, and kube-proxy.
fn create(plane: &ControlPlane) {
    wait::until("the default service account", LIMIT, || {
        Ok(plane.get(&["-n", "default", "serviceaccount", "default"]).ok())
    })
    .unwrap();
    let spec = |name: &str, token: bool, volume: Value| {
        let mut volume = volume;
        volume["name"] = json!("v");
        json!({
            "metadata": { "labels": { "app": name } },
            "spec": {
                "automountServiceAccountToken": token,
                "volumes": [volume],
                "containers": [{
                    "name": "demo", "image": "firstboot.local/demo:1", "imagePullPolicy": "IfNotPresent", "args": ["serve"],
                    "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
                }],
            },
        })
    };
    let workload = |kind: &str, name: &str, template: Value| {
        json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": "default" },
            "spec": { "selector": { "matchLabels": { "app": name } }, "template": template },
        })
    };
    let mut settings = spec("settings", false, json!({ "configMap": { "name": "settings" } }));
    settings["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "settings" } }]);
    let mut asks = spec("asks", false, json!({ "emptyDir": {} }));
    asks["spec"]["initContainers"] = json!([{
        "name": "ask", "image": "firstboot.local/demo:1", "imagePullPolicy": "IfNotPresent",
        "args": ["fetch", "http://settings.default.svc.cluster.local/"],
    }]);
    let mut token = spec("token", true, json!({ "emptyDir": {} }));
    token["apiVersion"] = json!("v1");
    token["kind"] = json!("Pod");
    token["metadata"] = json!({ "name": "token", "namespace": "default" });
    let meta = |name: &str| json!({ "name": name, "namespace": "default" });
    let items = json!([
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": { "A": "1" } },
        { "apiVersion": "v1", "kind": "Secret", "metadata": meta("password"), "stringData": { "p": "x" } },
        { "apiVersion": "v1", "kind": "Service", "metadata": meta("settings"),
          "spec": { "selector": { "app": "settings" }, "ports": [{ "port": 80, "targetPort": 8080 }] } },
        workload("Deployment", "settings", settings),
        workload("Deployment", "password", spec("password", false, json!({ "secret": { "secretName": "password" } }))),
        workload("Deployment", "asks", asks),
        workload("DaemonSet", "every", spec("every", false, json!({ "hostPath": { "path": "/var/lib" } }))),
        token,
    ]);
    apply(plane, &items);
}
