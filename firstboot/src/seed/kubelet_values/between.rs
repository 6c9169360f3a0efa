// SPDX-License-Identifier: Apache-2.0
//! What fields must be together. A field that the seed does not have is as on the hardened host, or else kubelet's
//! default.
//!
//! kubelet reads the cluster's configuration, fills in every default, and only then merges the seed's fields. So a default
//! that follows from another field (`serializeImagePulls`) does not follow from the seed's.

use super::forms;
use super::gates::Gates;
use super::units::{go_duration, quantity};
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;

/// Values of the hardened host (`harden/kubelet/fields.rs`) that a rule reads.
pub(super) const HARDENED: [(&str, &str); 6] = [
    ("imageGCHighThresholdPercent", "80"),
    ("imageGCLowThresholdPercent", "70"),
    ("enableSystemLogHandler", "false"),
    ("readOnlyPort", "0"),
    ("tlsMinVersion", "\"VersionTLS13\""),
    ("evictionHard/memory.available", "\"100Mi\""),
];

/// kubelet's defaults (pkg/kubelet/apis/config/v1beta1/defaults.go) that a rule reads, also for a zero.
const MINUTE: i64 = 60 * 1_000_000_000;
const KUBELET_PORT: i64 = 10250;
/// Where firstboot asks kubelet whether it is well.
const HEALTH_PORT: i64 = 10248;

/// A field of the seed, and what it must be.
type Wrong = (&'static str, String);

struct Config<'a> {
    fields: &'a Map<String, Json>,
    gates: Gates<'a>,
}

/// The fields that do not go together.
pub(super) fn wrong<'a>(fields: &'a Map<String, Json>) -> Vec<Wrong> {
    let config = Config { fields, gates: Gates(fields.get("featureGates").and_then(Json::as_object)) };
    let rules: [fn(&Config<'a>) -> Option<Wrong>; 16] = [
        Config::image_thresholds,
        Config::image_ages,
        Config::image_pulls,
        Config::image_credentials,
        Config::shutdown,
        Config::allocatable,
        Config::reserved_cpus,
        Config::system_logs,
        Config::gated,
        Config::crash_loops,
        Config::logging,
        Config::cpu_manager,
        Config::memory_manager,
        Config::serving,
        Config::soft_evictions,
        Config::pod_users,
    ];
    rules.iter().filter_map(|rule| rule(&config)).collect()
}

fn must(field: &'static str, words: impl Into<String>) -> Option<Wrong> {
    Some((field, words.into()))
}

impl Config<'_> {
    fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    fn hardened(field: &str) -> Option<Json> {
        HARDENED.iter().find(|(name, _)| *name == field).and_then(|(_, value)| serde_json::from_str(value).ok())
    }

    fn int(&self, field: &str, default: i64) -> i64 {
        let hardened = || Self::hardened(field).and_then(|value| value.as_i64());
        self.fields.get(field).and_then(Json::as_i64).or_else(hardened).unwrap_or(default)
    }

    fn bool(&self, field: &str, default: bool) -> bool {
        let hardened = || Self::hardened(field).and_then(|value| value.as_bool());
        self.fields.get(field).and_then(Json::as_bool).or_else(hardened).unwrap_or(default)
    }

    fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Json::as_str).unwrap_or_default()
    }

    fn nanoseconds(&self, field: &str, default: i64) -> i64 {
        self.fields.get(field).and_then(Json::as_str).and_then(go_duration).unwrap_or(default)
    }

    fn list(&self, field: &str) -> &[Json] {
        self.fields.get(field).and_then(Json::as_array).map_or(&[], Vec::as_slice)
    }

    fn entry(&self, field: &str, key: &str) -> Option<&str> {
        self.fields.get(field)?.get(key)?.as_str()
    }

    fn image_thresholds(&self) -> Option<Wrong> {
        const LOW: &str = "imageGCLowThresholdPercent";
        const HIGH: &str = "imageGCHighThresholdPercent";
        let (low, high) = (self.int(LOW, 0), self.int(HIGH, 0));
        match (low < high, self.has(LOW)) {
            (true, _) => None,
            (false, true) => must(LOW, format!("must be less than {HIGH}; the hardened host has 80 there")),
            (false, false) => must(HIGH, format!("must be more than {LOW}; the hardened host has 70 there")),
        }
    }

    fn image_ages(&self) -> Option<Wrong> {
        let most = self.nanoseconds("imageMaximumGCAge", 0);
        let least = match self.nanoseconds("imageMinimumGCAge", 0) {
            0 => 2 * MINUTE,
            set => set,
        };
        (most > 0 && most <= least).then_some(())?;
        must("imageMaximumGCAge", "must be 0s or more than imageMinimumGCAge, whose default is 2m")
    }

    fn image_pulls(&self) -> Option<Wrong> {
        (self.int("maxParallelImagePulls", 1) > 1 && self.bool("serializeImagePulls", true)).then_some(())?;
        must("maxParallelImagePulls", "needs serializeImagePulls = false beside it")
    }

    fn image_credentials(&self) -> Option<Wrong> {
        const POLICY: &str = "imagePullCredentialsVerificationPolicy";
        const IMAGES: &str = "preloadedImagesVerificationAllowlist";
        let images = !self.list(IMAGES).is_empty();
        match self.gates.on("KubeletEnsureSecretPulledImages") {
            true if images && self.text(POLICY) != "NeverVerifyAllowlistedImages" => {
                must(IMAGES, format!("needs {POLICY} = \"NeverVerifyAllowlistedImages\" beside it"))
            }
            true => None,
            false if images => must(IMAGES, "needs the feature gate KubeletEnsureSecretPulledImages"),
            false if self.has(POLICY) && !self.text(POLICY).is_empty() => {
                must(POLICY, "needs the feature gate KubeletEnsureSecretPulledImages")
            }
            false if self.has(POLICY) => None,
            false => {
                must("featureGates", format!("needs {POLICY} = \"\" beside KubeletEnsureSecretPulledImages = false"))
            }
        }
    }

    fn shutdown(&self) -> Option<Wrong> {
        const ALL: &str = "shutdownGracePeriod";
        const CRITICAL: &str = "shutdownGracePeriodCriticalPods";
        const BY_PRIORITY: &str = "shutdownGracePeriodByPodPriority";
        let (all, critical) = (self.nanoseconds(ALL, 0), self.nanoseconds(CRITICAL, 0));
        let by_priority = !self.list(BY_PRIORITY).is_empty();
        let field = if all > 0 { ALL } else { CRITICAL };
        if (all > 0 || critical > 0) && !self.gates.on("GracefulNodeShutdown") {
            must(field, "needs the feature gate GracefulNodeShutdown")
        } else if critical > all {
            must(CRITICAL, format!("must be at most {ALL}, whose default is 0s"))
        } else if by_priority && !self.gates.on("GracefulNodeShutdownBasedOnPodPriority") {
            must(BY_PRIORITY, "needs the feature gate GracefulNodeShutdownBasedOnPodPriority")
        } else if by_priority && all > 0 {
            must(BY_PRIORITY, format!("must be empty where {ALL} is set"))
        } else {
            None
        }
    }

    fn allocatable(&self) -> Option<Wrong> {
        const ENFORCE: &str = "enforceNodeAllocatable";
        let default = [Json::from("pods")];
        let all = if self.has(ENFORCE) { self.list(ENFORCE) } else { &default };
        let all: BTreeSet<&str> = all.iter().filter_map(Json::as_str).collect();
        if all.contains("none") && all.len() > 1 {
            return must(ENFORCE, "must have nothing beside \"none\"");
        }
        for (name, cgroup) in [("system-reserved", "systemReservedCgroup"), ("kube-reserved", "kubeReservedCgroup")] {
            let compressible = format!("{name}-compressible");
            match (all.contains(name), all.contains(compressible.as_str())) {
                (true, true) => {
                    return must(ENFORCE, format!("must have only one of \"{name}\" and \"{compressible}\""));
                }
                (false, false) => {}
                _ if self.text(cgroup).is_empty() => return must(ENFORCE, format!("needs {cgroup} beside \"{name}\"")),
                _ => {}
            }
        }
        if !self.bool("cgroupsPerQOS", true) && !all.is_empty() && !all.contains("none") {
            return must("cgroupsPerQOS", format!("= false needs {ENFORCE} = [\"none\"] beside it"));
        }
        (!self.text("systemCgroups").is_empty() && self.text("cgroupRoot").is_empty()).then_some(())?;
        must("systemCgroups", "needs cgroupRoot beside it")
    }

    fn reserved_cpus(&self) -> Option<Wrong> {
        let cgroups = !self.text("systemReservedCgroup").is_empty() || !self.text("kubeReservedCgroup").is_empty();
        (cgroups && !self.text("reservedSystemCPUs").is_empty()).then_some(())?;
        must("reservedSystemCPUs", "must be empty where systemReservedCgroup or kubeReservedCgroup is set")
    }

    fn system_logs(&self) -> Option<Wrong> {
        const QUERY: &str = "enableSystemLogQuery";
        match self.bool(QUERY, false) {
            false => None,
            true if !self.gates.on("NodeLogQuery") => {
                must(QUERY, "needs featureGates.NodeLogQuery = true beside it: kubelet 1.35 has it off")
            }
            true if !self.bool("enableSystemLogHandler", true) => {
                must(QUERY, "needs enableSystemLogHandler = true beside it")
            }
            true => None,
        }
    }

    /// Fields that are an error without a feature gate.
    fn gated(&self) -> Option<Wrong> {
        let period = self.nanoseconds("cpuCFSQuotaPeriod", MINUTE / 600);
        if period != MINUTE / 600 && !self.gates.on("CustomCPUCFSQuotaPeriod") {
            let words = "needs featureGates.CustomCPUCFSQuotaPeriod = true beside it: kubelet 1.35 has it off";
            return must("cpuCFSQuotaPeriod", words);
        }
        if !(MINUTE / 60_000..=MINUTE / 60).contains(&period) {
            return must("cpuCFSQuotaPeriod", "must be a duration from 1ms to 1s, in quotes");
        }
        if self.bool("serverTLSBootstrap", false) && !self.gates.on("RotateKubeletServerCertificate") {
            return must("serverTLSBootstrap", "needs the feature gate RotateKubeletServerCertificate");
        }
        (self.text("memoryReservationPolicy") == "TieredReservation" && !self.gates.on("MemoryQoS")).then_some(())?;
        must("memoryReservationPolicy", "needs featureGates.MemoryQoS = true beside \"TieredReservation\"")
    }

    /// The default is filled in from the cluster's gates, and cannot be taken away again.
    fn crash_loops(&self) -> Option<Wrong> {
        (self.gates.set("KubeletCrashLoopBackOffMax") == Some(false)).then_some(())?;
        must("featureGates", "must not have KubeletCrashLoopBackOffMax = false: kubelet fills in what needs it")
    }

    fn logging(&self) -> Option<Wrong> {
        const LOGGING: &str = "logging";
        let logging = self.fields.get(LOGGING)?;
        let json = logging.get("format").and_then(Json::as_str) == Some("json");
        let patterns = logging.get("vmodule").and_then(Json::as_array).is_some_and(|list| !list.is_empty());
        if json && !self.gates.on("LoggingBetaOptions") {
            return must(LOGGING, "needs the feature gate LoggingBetaOptions for format \"json\"");
        }
        if json && patterns {
            return must(LOGGING, "must have format \"text\" with vmodule");
        }
        let alpha = |format: &Json| {
            let size =
                format.get("infoBufferSize").map(|size| size.as_str().map_or_else(|| size.to_string(), str::to_owned));
            let size = size.and_then(|size| quantity(&size)).is_some_and(|size| size.nano != 0);
            size || format.get("splitStream").and_then(Json::as_bool) == Some(true)
        };
        let alpha =
            ["text", "json"].iter().any(|format| logging.get("options").and_then(|o| o.get(format)).is_some_and(alpha));
        (alpha && !self.gates.on("LoggingAlphaOptions")).then_some(())?;
        must(LOGGING, "needs featureGates.LoggingAlphaOptions = true for its options")
    }

    /// pkg/kubelet/cm/cpumanager
    fn cpu_manager(&self) -> Option<Wrong> {
        const OPTIONS: &str = "cpuManagerPolicyOptions";
        let on = |name| {
            self.entry(OPTIONS, name).is_some_and(|value| ["1", "t", "T", "true", "TRUE", "True"].contains(&value))
        };
        let has = |name| self.entry(OPTIONS, name).is_some();
        if self.text("cpuManagerPolicy") != "static" {
            let options = self.fields.get(OPTIONS).and_then(Json::as_object).is_some_and(|options| !options.is_empty());
            return must(OPTIONS, "needs cpuManagerPolicy = \"static\" beside it").filter(|_| options);
        }
        let cpu = |field| self.entry(field, "cpu").and_then(quantity).is_some_and(|cpu| cpu.nano > 0);
        let cpus = forms::cpus(self.text("reservedSystemCPUs")).unwrap_or(0);
        if cpus == 0 && !cpu("systemReserved") && !cpu("kubeReserved") {
            return must(
                "cpuManagerPolicy",
                "needs cpu in systemReserved or kubeReserved, or reservedSystemCPUs, beside it",
            );
        }
        let alpha = has("align-by-socket") || has("distribute-cpus-across-cores");
        if alpha && !self.gates.on("CPUManagerPolicyAlphaOptions") {
            return must(
                OPTIONS,
                "needs featureGates.CPUManagerPolicyAlphaOptions = true for align-by-socket and distribute-cpus-across-cores",
            );
        }
        // The last is beta in 1.35.
        let beta = has("distribute-cpus-across-numa") || has("prefer-align-cpus-by-uncorecache");
        if beta && !self.gates.on("CPUManagerPolicyBetaOptions") {
            return must(OPTIONS, "needs the feature gate CPUManagerPolicyBetaOptions");
        }
        for (one, other) in [
            ("full-pcpus-only", "distribute-cpus-across-cores"),
            ("distribute-cpus-across-numa", "distribute-cpus-across-cores"),
            ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-cores"),
            ("prefer-align-cpus-by-uncorecache", "distribute-cpus-across-numa"),
        ] {
            if on(one) && on(other) {
                return must(OPTIONS, format!("must have only one of {one} and {other}"));
            }
        }
        (on("align-by-socket") && self.text("topologyManagerPolicy") == "single-numa-node").then_some(())?;
        must(OPTIONS, "must not have align-by-socket where topologyManagerPolicy is \"single-numa-node\"")
    }

    /// pkg/kubelet/cm/memorymanager: what is reserved by NUMA node is what is reserved.
    fn memory_manager(&self) -> Option<Wrong> {
        const RESERVED: &str = "reservedMemory";
        let mut named = BTreeSet::new();
        let mut sum = Some(0i128);
        let mut pages = false;
        for one in self.list(RESERVED) {
            let node = one.get("numaNode").and_then(Json::as_i64).unwrap_or(0);
            for (name, size) in one.get("limits").and_then(Json::as_object).into_iter().flatten() {
                if !named.insert((node, name)) {
                    return must(RESERVED, "must have each kind of memory once for each numaNode");
                }
                let size = size.as_str().map_or_else(|| size.to_string(), str::to_owned);
                match quantity(&size).and_then(|q| q.int64) {
                    Some(bytes) if name == "memory" => sum = sum.map(|sum| sum + i128::from(bytes) * 1_000_000_000),
                    Some(_) => pages = true,
                    None => sum = None,
                }
            }
        }
        if self.text("memoryManagerPolicy") != "Static" {
            return None;
        }
        let hard = self.entry("evictionHard", "memory.available").map_or_else(
            || Self::hardened("evictionHard/memory.available").and_then(|value| value.as_str().map(str::to_owned)),
            |value| Some(value.to_owned()),
        );
        let hard = match hard.as_deref() {
            Some("0%" | "100%") | None => 0,
            Some(text) if text.ends_with('%') => {
                return must(
                    "memoryManagerPolicy",
                    "needs memory.available in evictionHard as a quantity beside \"Static\"",
                );
            }
            Some(text) => quantity(text)?.nano,
        };
        let other = |field| self.entry(field, "memory").and_then(quantity).map_or(0, |q| q.nano);
        let whole = hard.saturating_add(other("systemReserved")).saturating_add(other("kubeReserved"));
        (pages || sum != Some(whole) || whole == 0).then_some(())?;
        must(
            "memoryManagerPolicy",
            "needs reservedMemory whose memory is as much as in systemReserved, kubeReserved and evictionHard (100Mi on the \
             hardened host) together, in whole bytes, and no huge pages",
        )
    }

    /// kubelet's servers: their ports, their certificate, and what Go's HTTP/2 insists on.
    fn serving(&self) -> Option<Wrong> {
        let port = match self.int("port", KUBELET_PORT) {
            0 => KUBELET_PORT,
            port => port,
        };
        let read_only = self.int("readOnlyPort", 0);
        let field = if read_only == HEALTH_PORT || (read_only == port && self.has("readOnlyPort")) {
            "readOnlyPort"
        } else {
            "port"
        };
        if port == HEALTH_PORT || read_only == HEALTH_PORT || port == read_only {
            return must(
                field,
                "must be another port than kubelet's others: port (10250), healthzPort (10248), readOnlyPort",
            );
        }
        let (cert, key) = (self.text("tlsCertFile"), self.text("tlsPrivateKeyFile"));
        if cert.is_empty() != key.is_empty() {
            let field = if cert.is_empty() { "tlsPrivateKeyFile" } else { "tlsCertFile" };
            return must(field, "needs the other of tlsCertFile and tlsPrivateKeyFile beside it");
        }
        const REQUIRED: [&str; 2] =
            ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
        let suites = self.list("tlsCipherSuites");
        let required =
            suites.is_empty() || suites.iter().filter_map(Json::as_str).any(|suite| REQUIRED.contains(&suite));
        let tls13 = match self.fields.get("tlsMinVersion").and_then(Json::as_str) {
            Some(version) => version == "VersionTLS13",
            None => true,
        };
        (!required && !tls13).then_some(())?;
        must("tlsCipherSuites", format!("needs {} or {} below TLS 1.3, for HTTP/2", REQUIRED[0], REQUIRED[1]))
    }

    fn soft_evictions(&self) -> Option<Wrong> {
        let soft = self.fields.get("evictionSoft").and_then(Json::as_object)?;
        let without = soft.iter().find(|(signal, value)| {
            let ignored = value.as_str().is_some_and(|value| value == "0%" || value == "100%");
            !ignored && self.entry("evictionSoftGracePeriod", signal).is_none()
        });
        let (signal, _) = without?;
        must("evictionSoft", format!("needs \"{signal}\" in evictionSoftGracePeriod beside it"))
    }

    /// pkg/kubelet/userns: every pod has users of its own out of 2³².
    fn pod_users(&self) -> Option<Wrong> {
        let ids = self.fields.get("userNamespaces").and_then(|table| table.get("idsPerPod")).and_then(Json::as_i64)?;
        let pods = match self.int("maxPods", 110) {
            0 => 110,
            pods => pods,
        };
        (((1 << 32) - ids) / ids < pods).then_some(())?;
        must("userNamespaces", "must have a smaller idsPerPod: maxPods (110) pods do not have so many users each")
    }
}
