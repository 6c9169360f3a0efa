// SPDX-License-Identifier: Apache-2.0
//! What firstboot accepts in a seed, the programs of a device accept too, and read in the same way: random seeds, each
//! program with what firstboot writes for it. Boots no guest.

#![allow(clippy::unwrap_used)]

use e2e::consumers::generate::{KUBELET_SEED, kubelet, kubelet_cases};
use e2e::consumers::{Accepted, Finding, Sample, judges, programs, sample};
use firstboot::phases::configuration::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// Where the random numbers begin in `make test`.
const START: u64 = 19;

fn of_this_run() -> &'static [Accepted] {
    static SAMPLE: OnceLock<Vec<Accepted>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let Sample { made, accepted, sample } = sample(START, 30_000, 1000).unwrap();
        println!("{made} seeds made, {accepted} accepted, {} given to each program", sample.len());
        assert_eq!(sample.len(), 1000, "too few seeds are accepted");
        sample
    })
}

/// Fails with each kind of finding once.
fn none(findings: Vec<Finding>) {
    let mut shown: Vec<String> = Vec::new();
    for Finding { program, why, seed } in &findings {
        let head = format!("{program}: {}", why.chars().take(60).collect::<String>());
        if !shown.iter().any(|text| text.starts_with(&head)) {
            shown.push(format!("{program}: {why}\n{seed}"));
        }
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), shown.join("\n"));
}

#[test]
fn kubelet_and_go() {
    none(judges::kubelet(of_this_run()).unwrap());
}

/// Cases that firstboot refuses and kubelet accepts, with the reason.
const STRICTER: [(&str, &str); 29] = [
    (NEGATIVE, r#"fileCheckFrequency = "-20s""#),
    (NEGATIVE, r#"streamingConnectionIdleTimeout = "-1m""#),
    (NEGATIVE, r#"nodeStatusUpdateFrequency = "-5s""#),
    (NEGATIVE, r#"nodeStatusReportFrequency = "-1m""#),
    (NEGATIVE, r#"cpuManagerReconcilePeriod = "-10s""#),
    (NEGATIVE, r#"runtimeRequestTimeout = "-2m""#),
    (NEGATIVE, r#"evictionPressureTransitionPeriod = "-1s""#),
    (IGNORED, r#"reservedMemory = [{ node = 0 }]"#),
    (IGNORED, r#"memorySwap = { swapBehaviour = "NoSwap" }"#),
    (IGNORED, r#"logging = { level = 3 }"#),
    (IGNORED, r#"shutdownGracePeriodByPodPriority = [{ priority = 1000, seconds = 30 }]"#),
    (IGNORED, r#"crashLoopBackOff = { max = "10s" }"#),
    (IGNORED, r#"tracing = { rate = 1 }"#),
    (IGNORED, r#"userNamespaces = { ids = 65536 }"#),
    (IGNORED, r#"topologyManagerPolicyOptions = { x = "true" }"#),
    (MINOR, r#"cpuCFSQuotaPeriod = "10ms""#),
    (MINOR, r#"enableSystemLogQuery = true; enableSystemLogHandler = true"#),
    (UNUSED, r#"staticPodURL = "ftp://a""#),
    (UNUSED, r#"clusterDNS = ["x"]"#),
    (UNUSED, r#"clusterDomain = "a b""#),
    (UNUSED, r#"contentType = "text/html""#),
    (TLS, r#"tlsCertFile = "/etc/kubernetes/kubelet.crt""#),
    (TLS, r#"tlsPrivateKeyFile = "kubelet.key""#),
    (FORM, r#"address = "010.0.0.1""#),
    (FORM, r#"evictionHard = { "nodefs.available" = "5e0%" }"#),
    (OURS, r#"resolvConf = """#),
    (OURS, r#"featureGates = { AllAlpha = true }"#),
    (OURS, r#"registerWithTaints = []"#),
    (OURS, r#"showHiddenMetricsForVersion = "1.35""#),
];
const NEGATIVE: &str = "kubelet then waits without a pause, or gives up each request at once";
const IGNORED: &str = "kubelet ignores the name, so it is misspelt";
const MINOR: &str = "kubelet 1.35 ends with it";
const UNUSED: &str = "kubelet runs, but its pods or its requests do not work";
const TLS: &str = "kubelet runs without a certificate for its server";
const FORM: &str = "a form that may mean something else: octal, or an exponent in a percentage";
const OURS: &str = "not the seed's to set (docs/seed.md)";

#[test]
fn kubelet_values() {
    let cases: Vec<String> = kubelet_cases().iter().map(|case| case.join("\n") + "\n").collect();
    let plain = Accepted::read(KUBELET_SEED).unwrap().unwrap();
    let before: Vec<String> = plain.of(Reader::KubeletConfiguration).map(|file| file.text.to_string()).collect();
    let answers = judges::kubelet_values(&before, &cases).unwrap();
    let mut wrong = Vec::new();
    let mut stricter: BTreeSet<&str> = STRICTER.iter().map(|(_, case)| *case).collect();
    let mut accepted = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let refused = firstboot::seed::parse(format!("{KUBELET_SEED}{case}").as_bytes()).err();
        accepted += usize::from(refused.is_none());
        match refused {
            None if !answer.is_empty() => wrong.push(format!("{case}kubelet refuses it: {answer}")),
            Some(error) if answer.is_empty() && !stricter.remove(case.trim().replace('\n', "; ").as_str()) => {
                wrong.push(format!("{case}kubelet takes it; {error}"));
            }
            _ => {}
        }
    }
    for (why, case) in STRICTER {
        println!("stricter than kubelet: {case}: {why}");
    }
    println!("{} cases, {accepted} accepted, {} stricter than kubelet", cases.len(), STRICTER.len());
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(stricter, BTreeSet::new(), "kubelet refuses them too, or they are no cases");
}

/// Random lines, several together and with characters changed.
#[test]
fn kubelet_values_together() {
    let mut rng = fastrand::Rng::with_seed(START);
    let made = 10_000;
    let seeds = (0..made).map(|_| format!("{KUBELET_SEED}{}{}", kubelet(&mut rng), kubelet(&mut rng)));
    let accepted: Vec<Accepted> = seeds.filter_map(|seed| Accepted::read(&seed).unwrap()).collect();
    println!("{made} tables made, {} accepted", accepted.len());
    assert!(accepted.len() > 5000);
    none(judges::kubelet(&accepted).unwrap());
}

#[test]
fn feature_gates() {
    let data = include_str!("../../firstboot/src/seed/feature_gates.txt");
    let mut real: BTreeMap<String, ([&str; 2], BTreeSet<String>)> = BTreeMap::new();
    let minors = ["1.35", "1.36"].map(|minor| judges::feature_gates(minor).unwrap());
    for (column, lines) in minors.iter().enumerate() {
        for line in lines.lines() {
            let mut words = line.split(' ');
            let (states, needs) = real.entry(words.next().unwrap().to_owned()).or_insert((["-"; 2], BTreeSet::new()));
            states[column] = words.next().unwrap();
            needs.extend(words.map(str::to_owned));
        }
    }
    let line = |(name, (states, needs)): (&String, &([&str; 2], BTreeSet<String>))| {
        let needs: String = needs.iter().map(|need| format!(" {need}")).collect();
        format!("{name} {} {}{needs}\n", states[0], states[1])
    };
    let expected: String = real.iter().map(line).collect();
    assert!(expected.lines().eq(data.lines()), "feature_gates.txt has to be:\n{expected}");
}

#[test]
fn containerd() {
    none(judges::containerd(of_this_run()).unwrap());
}

#[test]
fn sshd() {
    if e2e::can_log_in() {
        none(programs::sshd(&imagebuild::setup::sshd().unwrap(), of_this_run()).unwrap());
    }
}

#[test]
fn wpa_supplicant() {
    none(programs::wpa_supplicant(&imagebuild::setup::wpa_supplicant().unwrap(), &of_this_run()[..300]).unwrap());
}

#[test]
fn systemd_networkd() {
    if e2e::can_run_networkd() {
        none(programs::networkd(of_this_run()).unwrap());
    }
}

#[test]
fn nft() {
    if e2e::can_network() {
        none(programs::nft(&of_this_run()[..300]).unwrap());
    }
}

/// Ten million seeds, and ten thousand of those that are accepted to each program.
#[test]
#[ignore = "takes many minutes"]
fn ten_million_seeds() {
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    let each = |n: u64| std::thread::spawn(move || sample(n, 10_000_000 / threads, 10_000 / threads as usize).unwrap());
    let all: Vec<_> = (0..threads).map(each).collect();
    let samples: Vec<Sample> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
    let (made, accepted): (u64, u64) = samples.iter().fold((0, 0), |sum, s| (sum.0 + s.made, sum.1 + s.accepted));
    let sample: Vec<Accepted> = samples.into_iter().flat_map(|s| s.sample).collect();
    println!("{made} seeds made, {accepted} accepted, {} given to each program", sample.len());
    let sshd = imagebuild::setup::sshd().unwrap();
    let wpa = imagebuild::setup::wpa_supplicant().unwrap();
    none(
        [
            judges::kubelet(&sample).unwrap(),
            judges::containerd(&sample).unwrap(),
            programs::sshd(&sshd, &sample).unwrap(),
            programs::wpa_supplicant(&wpa, &sample).unwrap(),
            programs::networkd(&sample).unwrap(),
            programs::nft(&sample).unwrap(),
        ]
        .into_iter()
        .flatten()
        .collect(),
    );
}
