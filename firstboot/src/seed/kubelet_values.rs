// SPDX-License-Identifier: Apache-2.0
//! Values of KubeletConfiguration that kubelet ends over, or passes over: what `ValidateKubeletConfiguration`
//! (pkg/kubelet/apis/config/validation, Kubernetes 1.35.4 and 1.36.3) and the start of kubelet
//! (cmd/kubelet/app/server.go, pkg/kubelet) say of them. Each rule was held against kubelet 1.36.3 itself.
//!
//! What depends on the device stays open: its processors, NUMA nodes, memory, control groups and files.

use super::kubelet_forms::*;
use super::kubelet_gates;
use super::reader::quoted;
use crate::fault::Code;
use crate::names::is_dns_subdomain;
use serde_json::Value as Json;

/// What a value may be, beyond its type.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// A whole number from the first to the last.
    Between(i64, i64),
    /// One of these words; the empty one is kubelet's default.
    Words(&'static [&'static str]),
    /// A duration from the first to the last, nanoseconds, as the text says it.
    Span(i64, i64, &'static str),
    /// A text, or each text of a list, for which this holds.
    Texts(fn(&str) -> bool, &'static str),
    /// A table whose keys are these (any, if there are none) and whose values this holds for.
    Entries(&'static [&'static str], fn(&str) -> bool, &'static str),
    /// Anything for which this holds.
    Any(fn(&Json) -> bool, &'static str),
}

const I32: i64 = i32::MAX as i64;
const MONTH: i64 = 30 * 24 * 3600 * SECOND;

/// Signals of evictions (pkg/kubelet/eviction/api/types.go).
const SIGNALS: &[&str] = &[
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "allocatableMemory.available",
    "pid.available",
];
/// Resources that can be reserved (`parseResourceList`, cmd/kubelet/app/server.go).
const RESERVED: &[&str] = &["cpu", "memory", "ephemeral-storage", "pid"];
/// Names of Go's crypto/tls, with two older ones (component-base/cli/flag/ciphersuites_flag.go), without `TLS_`.
const CIPHERS: &str = "AES_128_GCM_SHA256 AES_256_GCM_SHA384 CHACHA20_POLY1305_SHA256 ECDHE_ECDSA_WITH_AES_128_CBC_SHA \
    ECDHE_ECDSA_WITH_AES_256_CBC_SHA ECDHE_RSA_WITH_AES_128_CBC_SHA ECDHE_RSA_WITH_AES_256_CBC_SHA \
    ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 ECDHE_RSA_WITH_AES_128_GCM_SHA256 \
    ECDHE_RSA_WITH_AES_256_GCM_SHA384 ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 \
    ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 ECDHE_RSA_WITH_CHACHA20_POLY1305 ECDHE_ECDSA_WITH_CHACHA20_POLY1305 \
    RSA_WITH_RC4_128_SHA RSA_WITH_3DES_EDE_CBC_SHA RSA_WITH_AES_128_CBC_SHA RSA_WITH_AES_256_CBC_SHA \
    RSA_WITH_AES_128_CBC_SHA256 RSA_WITH_AES_128_GCM_SHA256 RSA_WITH_AES_256_GCM_SHA384 ECDHE_ECDSA_WITH_RC4_128_SHA \
    ECDHE_RSA_WITH_RC4_128_SHA ECDHE_RSA_WITH_3DES_EDE_CBC_SHA ECDHE_ECDSA_WITH_AES_128_CBC_SHA256 \
    ECDHE_RSA_WITH_AES_128_CBC_SHA256";
/// Options of the static policy (pkg/kubelet/cm/cpumanager/policy_options.go).
const CPU_OPTIONS: &[&str] = &[
    "full-pcpus-only",
    "distribute-cpus-across-numa",
    "align-by-socket",
    "distribute-cpus-across-cores",
    "strict-cpu-reservation",
    "prefer-align-cpus-by-uncorecache",
];
const ENFORCEMENTS: &[&str] =
    &["none", "pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible"];

/// Rules by field; a `/` goes into a table, whose other fields kubelet passes over.
#[rustfmt::skip]
pub(super) const RULES: &[(&str, Rule)] = &[
    ("nodeLeaseDurationSeconds", Rule::Between(0, I32)), ("eventBurst", Rule::Between(0, I32)),
    ("eventRecordQPS", Rule::Between(0, I32)), ("imageGCHighThresholdPercent", Rule::Between(0, 100)),
    ("imageGCLowThresholdPercent", Rule::Between(0, 100)), ("iptablesDropBit", Rule::Between(0, 31)),
    ("iptablesMasqueradeBit", Rule::Between(0, 31)), ("kubeAPIBurst", Rule::Between(0, I32)),
    ("kubeAPIQPS", Rule::Between(0, I32)), ("nodeStatusMaxImages", Rule::Between(-1, I32)),
    ("maxOpenFiles", Rule::Between(0, i64::MAX)), ("maxPods", Rule::Between(0, I32)),
    ("oomScoreAdj", Rule::Between(-1000, 1000)), ("podsPerCore", Rule::Between(0, I32)),
    ("port", Rule::Between(0, 65535)), ("readOnlyPort", Rule::Between(0, 65535)),
    ("registryBurst", Rule::Between(0, I32)), ("registryPullQPS", Rule::Between(0, I32)),
    ("maxParallelImagePulls", Rule::Between(1, I32)), ("containerLogMaxWorkers", Rule::Between(1, I32)),
    ("containerLogMaxFiles", Rule::Between(2, I32)), ("evictionMaxPodGracePeriod", Rule::Between(-1, I32)),
    ("podPidsLimit", Rule::Between(-1, i64::MAX)),
    ("cpuManagerPolicy", Rule::Words(&["none", "static"])), ("memoryManagerPolicy", Rule::Words(&["None", "Static"])),
    ("topologyManagerPolicy", Rule::Words(&["none", "best-effort", "restricted", "single-numa-node"])),
    ("topologyManagerScope", Rule::Words(&["container", "pod"])),
    ("hairpinMode", Rule::Words(&["none", "hairpin-veth", "promiscuous-bridge"])),
    ("configMapAndSecretChangeDetectionStrategy", Rule::Words(&["Get", "Cache", "Watch"])),
    ("tlsMinVersion", Rule::Words(&["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"])),
    ("imagePullCredentialsVerificationPolicy", Rule::Words(&["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"])),
    ("memoryReservationPolicy", Rule::Words(&["None", "TieredReservation"])),
    ("memorySwap/swapBehavior", Rule::Words(&["", "NoSwap", "LimitedSwap"])),
    ("logging/format", Rule::Words(&["text", "json"])), ("logging/verbosity", Rule::Between(0, I32)),
    ("logging/flushFrequency", Rule::Any(is_flush_frequency, "a duration above zero in quotes, as in \"5s\"")),
    ("logging/vmodule", Rule::Any(is_vmodule, "a list of { filePattern = \"…\", verbosity = 4 }")),
    ("logging/options", Rule::Any(Json::is_object, "a table")),
    ("crashLoopBackOff/maxContainerRestartPeriod", Rule::Span(SECOND, 300 * SECOND, "from 1s to 300s")),
    ("tracing/samplingRatePerMillion", Rule::Between(0, 1_000_000)),
    ("tracing/endpoint", Rule::Texts(is_endpoint, "HOST:PORT")),
    ("userNamespaces/idsPerPod", Rule::Any(|v| v.as_i64().is_some_and(|n| n >= 65536 && n % 65536 == 0 && n <= 1 << 32), "a multiple of 65536")),
    ("cpuCFSQuotaPeriod", Rule::Span(SECOND / 1000, SECOND, "from 1ms to 1s")),
    ("containerLogMonitorInterval", Rule::Span(3 * SECOND, i64::MAX, "of 3s or more")),
    ("shutdownGracePeriod", Rule::Any(is_grace, "zero or a duration of 1s or more, in quotes")),
    ("shutdownGracePeriodCriticalPods", Rule::Any(is_grace, "zero or a duration of 1s or more, in quotes")),
    ("imageMinimumGCAge", Rule::Span(0, i64::MAX, "of zero or more")),
    ("imageMaximumGCAge", Rule::Span(0, i64::MAX, "of zero or more")),
    ("syncFrequency", Rule::Span(0, MONTH, "from zero to a month")),
    ("nodeStatusUpdateFrequency", Rule::Span(0, MONTH, "from zero to a month")),
    ("nodeStatusReportFrequency", Rule::Span(0, MONTH, "from zero to a month")),
    ("evictionPressureTransitionPeriod", Rule::Span(0, MONTH, "from zero to a month")),
    ("containerLogMaxSize", Rule::Texts(is_positive, "a size in quotes, as in \"10Mi\"")),
    ("podLogsDir", Rule::Texts(is_plain_path, "an absolute path without a slash at its end")),
    ("volumePluginDir", Rule::Texts(is_plain_path, "an absolute path without a slash at its end")),
    ("address", Rule::Texts(is_address, "an IP address")), ("clusterDNS", Rule::Texts(is_address, "a list of IP addresses")),
    ("clusterDomain", Rule::Texts(is_dns_subdomain, "a domain, as in cluster.local")),
    ("podCIDR", Rule::Texts(is_network, "a network, as in 10.244.0.0/24")),
    ("staticPodURL", Rule::Texts(|t| t.is_empty() || reqwest::Url::parse(t).is_ok_and(|u| u.has_host()), "a URL")),
    ("staticPodURLHeader", Rule::Any(is_header, "a table of lists of strings in quotes")),
    ("reservedSystemCPUs", Rule::Texts(is_cpu_set, "processors, as in 0-1,4")),
    ("showHiddenMetricsForVersion", Rule::Texts(|t| ["", "1.34", "1.35"].contains(&t), "the minor version before kubelet's, as in 1.35")),
    ("allowedUnsafeSysctls", Rule::Texts(is_pod_sysctl, "settings of kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* or net.*")),
    ("preloadedImagesVerificationAllowlist", Rule::Texts(is_image_pattern, "images without tag, or PREFIX/*")),
    ("tlsCipherSuites", Rule::Texts(|t| t.strip_prefix("TLS_").is_some_and(|t| CIPHERS.split(' ').any(|c| c == t)), "a list of cipher suites by Go's names")),
    ("tlsCurvePreferences", Rule::Any(|v| all(v, |n| n.as_i64().is_some_and(|n| [23, 24, 25, 29, 4587, 4588, 4589].contains(&n))), "a list of curves by their number (IANA), as in [4588, 29]")),
    ("enforceNodeAllocatable", Rule::Texts(|t| ENFORCEMENTS.contains(&t), "a list of none, pods, system-reserved, kube-reserved and these with -compressible")),
    ("evictionHard", Rule::Entries(SIGNALS, is_threshold, "a quantity above zero, as in \"100Mi\", or 0% to 100%")),
    ("evictionSoft", Rule::Entries(SIGNALS, is_threshold, "a quantity above zero, as in \"100Mi\", or 0% to 100%")),
    ("evictionMinimumReclaim", Rule::Entries(SIGNALS, is_reclaim, "a quantity, as in \"100Mi\", or a percentage")),
    ("evictionSoftGracePeriod", Rule::Entries(SIGNALS, |t| duration(t).is_some_and(|d| d >= 0), "a duration of zero or more, as in \"1m30s\"")),
    ("systemReserved", Rule::Entries(RESERVED, |t| quantity(t).is_some_and(|q| q >= 0.0), "a quantity of zero or more, as in \"100Mi\"")),
    ("kubeReserved", Rule::Entries(RESERVED, |t| quantity(t).is_some_and(|q| q >= 0.0), "a quantity of zero or more, as in \"100Mi\"")),
    ("qosReserved", Rule::Entries(&["memory"], |t| percentage(t).is_some_and(|p| p.fract() == 0.0), "0% to 100%")),
    ("cpuManagerPolicyOptions", Rule::Entries(CPU_OPTIONS, is_bool, "\"true\" or \"false\"")),
    ("topologyManagerPolicyOptions", Rule::Entries(&["prefer-closest-numa-nodes", "max-allowable-numa-nodes"], |t| is_bool(t) || t.parse::<i64>().is_ok_and(|n| n >= 8), "\"true\", \"false\", or a number from 8")),
    ("memoryThrottlingFactor", Rule::Any(|v| v.as_f64().is_some_and(|f| f > 0.0 && f <= 1.0), "a number above 0, at most 1")),
    ("reservedMemory", Rule::Any(is_reserved_memory, "a list of { numaNode = 0, limits = { memory = \"1Gi\" } }, of memory and hugepages-SIZE, each once")),
    ("shutdownGracePeriodByPodPriority", Rule::Any(is_priorities, "a list of { priority = 0, shutdownGracePeriodSeconds = 10 }")),
];

/// What is wrong with the value of a field, if anything: code, and the message from the field's name on.
pub(super) fn fault(field: &str, value: &Json) -> Option<(Code, String)> {
    if field == "featureGates" {
        return gates(value);
    }
    if let Some((_, rule)) = RULES.iter().find(|(name, _)| *name == field) {
        return rule.fault(value).map(|(code, text)| (code, format!("{field} in [kubelet.config] {text}")));
    }
    let inner = |name: &'static str| name.split_once('/').filter(|(table, _)| *table == field).map(|(_, key)| key);
    RULES.iter().find_map(|(name, _)| inner(name))?;
    value.as_object()?.iter().find_map(|(key, value)| {
        let Some((_, rule)) = RULES.iter().find(|(name, _)| inner(name) == Some(key)) else {
            return Some((Code::UnknownKey, format!("unknown field {} in [kubelet.config] {field}", quoted(key))));
        };
        rule.fault(value).map(|(code, text)| (code, format!("{field}.{key} in [kubelet.config] {text}")))
    })
}

fn gates(value: &Json) -> Option<(Code, String)> {
    let table = value.as_object()?;
    let wrong = table.iter().find_map(|(name, value)| match kubelet_gates::fixed(name) {
        None => {
            let text =
                format!("unknown feature gate {} in [kubelet.config]: kubelet 1.35 and 1.36 have none", quoted(name));
            Some((Code::UnknownKey, text))
        }
        Some(Some(fixed)) if value.as_bool() != Some(fixed) => {
            let text = format!("featureGates.{name} in [kubelet.config] must be {fixed}: kubelet has it fixed");
            Some((Code::SettingNotAllowed, text))
        }
        Some(_) => None,
    });
    wrong.or_else(|| {
        let (gate, needed) = kubelet_gates::missing(|name| table.get(name)?.as_bool())?;
        let text = format!("featureGates.{gate} in [kubelet.config] needs featureGates.{needed} = true beside it");
        Some((Code::ConflictingKeys, text))
    })
}

impl Rule {
    fn fault(self, value: &Json) -> Option<(Code, String)> {
        let must = |good: bool, what: String| (!good).then(|| (Code::BadValue, format!("must be {what}")));
        match self {
            Rule::Between(first, last) => {
                let to = if last < I32 { format!("from {first} to {last}") } else { format!("from {first} on") };
                must(value.as_i64().is_some_and(|n| (first..=last).contains(&n)), format!("a whole number {to}"))
            }
            Rule::Words(words) => {
                let good = value.as_str().is_some_and(|word| word.is_empty() || words.contains(&word));
                let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
                must(good, words.join(" or "))
            }
            Rule::Span(least, most, expected) => {
                let good = value.as_str().and_then(duration).is_some_and(|d| (least..=most).contains(&d));
                must(good, format!("a duration {expected}"))
            }
            Rule::Texts(good, expected) => {
                let one = |v: &Json| v.as_str().is_some_and(good);
                must(one(value) || all(value, one), expected.to_owned())
            }
            Rule::Entries(keys, good, expected) => {
                let table = value.as_object()?;
                if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
                    return Some((Code::UnknownKey, format!("has no {}: expected {}", quoted(key), keys.join(", "))));
                }
                must(table.values().all(|v| v.as_str().is_some_and(good)), format!("{expected}, for each of its keys"))
            }
            Rule::Any(good, expected) => must(good(value), expected.to_owned()),
        }
    }
}

#[cfg(test)]
#[path = "kubelet_values_tests.rs"]
mod tests;
