// SPDX-License-Identifier: Apache-2.0
//! What each field of KubeletConfiguration must be for kubelet 1.36.3: pkg/kubelet/apis/config/validation/validation.go and
//! what cmd/kubelet/app/server.go and pkg/kubelet/kubelet.go parse. A zero stands for the default where
//! pkg/kubelet/apis/config/v1beta1/defaults.go says so.

use super::forms;
use super::rule::Rule;
use super::units::{go_duration, quantity};
use std::net::IpAddr;

const INT32: i64 = i32::MAX as i64;
const COUNT: Rule = Rule::Int(0, INT32);
const PORT: Rule = Rule::Int(0, 65535);
const PERCENT: Rule = Rule::Int(0, 100);
const BIT: Rule = Rule::Int(0, 31);

/// A duration that is waited for.
const WAIT: Rule =
    Rule::Text("a duration of 0s or more, in quotes", |text| go_duration(text).is_some_and(|ns| ns >= 0));
const GRACE: Rule = Rule::Text("0s or a duration of 1s or more, in quotes", |text| {
    go_duration(text).is_some_and(|ns| ns == 0 || ns >= SECOND)
});
const SECOND: i64 = 1_000_000_000;

const IP: Rule = Rule::Text("an IP address in quotes", |text| text.parse::<IpAddr>().is_ok());
const PATH: Rule = Rule::Text("an absolute path in quotes", |text| text.is_empty() || text.starts_with('/'));
const SWITCH: Rule = Rule::Text("\"true\" or \"false\"", |text| {
    ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"].contains(&text)
});

/// What a node may keep for itself.
const RESERVED: Rule = Rule::Map(
    &["cpu", "memory", "ephemeral-storage", "pid"],
    &Rule::Text("a quantity of 0 or more in quotes, as in \"100Mi\"", |text| {
        quantity(text).is_some_and(|q| q.nano >= 0)
    }),
);

/// pkg/kubelet/eviction/api/types.go
pub(super) const SIGNALS: [&str; 9] = [
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

const THRESHOLDS: Rule = Rule::Map(
    &SIGNALS,
    &Rule::Text(
        "a percentage from 0% to 100% or a quantity above 0 in quotes, as in \"10%\" or \"100Mi\"",
        forms::threshold,
    ),
);

const ROUTING: Rule = Rule::Table(
    &[
        ("splitStream", Rule::Bool),
        ("infoBufferSize", Rule::TextOrInt("a quantity in quotes, as in \"64Ki\"", |text| quantity(text).is_some())),
    ],
    &[],
);
const VERBOSITY: Rule = COUNT;
const LOGGING: Rule = Rule::Table(
    &[
        ("format", Rule::OneOf(&["", "text", "json"])),
        (
            "flushFrequency",
            Rule::TextOrInt("a duration of 0s or more in quotes, or whole nanoseconds", |text| {
                text.parse::<i64>().ok().or_else(|| go_duration(text)).is_some_and(|ns| ns >= 0)
            }),
        ),
        ("verbosity", VERBOSITY),
        (
            "vmodule",
            Rule::List(&Rule::Table(
                &[
                    (
                        "filePattern",
                        Rule::Text("a file pattern in quotes, without = and comma", |text| {
                            !text.is_empty() && !text.contains(['=', ','])
                        }),
                    ),
                    ("verbosity", VERBOSITY),
                ],
                &["filePattern"],
            )),
        ),
        ("options", Rule::Table(&[("text", ROUTING), ("json", ROUTING)], &[])),
    ],
    &[],
);

/// crypto/tls of Go 1.26: its cipher suites, the insecure ones, and two names that Kubernetes keeps.
const CIPHERS: [&str; 27] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// The rule of each field that needs more than its type.
#[rustfmt::skip]
pub(super) const RULES: &[(&str, Rule)] = &[
    ("podLogsDir", Rule::Text("an absolute path in ASCII without //, /./, /../ and / at its end", forms::clean_path)),
    ("syncFrequency", WAIT), ("fileCheckFrequency", WAIT), ("httpCheckFrequency", WAIT),
    ("staticPodURL", Rule::Text("a URL in quotes, http:// or https://", |t| t.is_empty() || t.starts_with("http://") || t.starts_with("https://"))),
    ("staticPodURLHeader", Rule::Named("of lists of strings", |name| !name.is_empty(), &Rule::List(&Rule::Text("a string in quotes", |_| true)))),
    ("address", Rule::Text("an IP address in quotes", |text| text.is_empty() || text.parse::<IpAddr>().is_ok())),
    ("port", PORT), ("readOnlyPort", PORT),
    ("tlsCertFile", PATH), ("tlsPrivateKeyFile", PATH),
    ("tlsCipherSuites", Rule::List(&Rule::Text("a cipher suite of Go, as in \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"", |text| CIPHERS.contains(&text)))),
    ("tlsCurvePreferences", Rule::Set(&Rule::Whole("a curve of Go: 23, 24, 25, 29, 4587, 4588 or 4589", |n| [23, 24, 25, 29, 4587, 4588, 4589].contains(&n)))),
    ("tlsMinVersion", Rule::OneOf(&["", "VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"])),
    ("registryPullQPS", COUNT), ("registryBurst", COUNT), ("eventRecordQPS", COUNT), ("eventBurst", COUNT),
    ("imagePullCredentialsVerificationPolicy", Rule::OneOf(&["", "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"])),
    ("preloadedImagesVerificationAllowlist", Rule::List(&Rule::Text("an image without tag and digest, or a prefix with /* at its end", forms::image_pattern))),
    ("oomScoreAdj", Rule::Int(-1000, 1000)),
    ("clusterDomain", Rule::Text("a domain name in quotes, as in \"cluster.local\"", |text| text.is_empty() || forms::domain(text))),
    ("clusterDNS", Rule::List(&IP)),
    ("streamingConnectionIdleTimeout", WAIT), ("nodeStatusUpdateFrequency", WAIT), ("nodeStatusReportFrequency", WAIT),
    ("nodeLeaseDurationSeconds", COUNT), ("imageMinimumGCAge", WAIT), ("imageMaximumGCAge", WAIT),
    ("imageGCHighThresholdPercent", PERCENT), ("imageGCLowThresholdPercent", PERCENT),
    ("cpuManagerPolicy", Rule::OneOf(&["", "none", "static"])),
    ("cpuManagerPolicyOptions", Rule::Map(&["full-pcpus-only", "distribute-cpus-across-numa", "align-by-socket", "distribute-cpus-across-cores", "strict-cpu-reservation", "prefer-align-cpus-by-uncorecache"], &SWITCH)),
    ("cpuManagerReconcilePeriod", WAIT),
    ("memoryManagerPolicy", Rule::OneOf(&["", "None", "Static"])),
    ("topologyManagerPolicy", Rule::OneOf(&["", "none", "best-effort", "restricted", "single-numa-node"])),
    ("topologyManagerScope", Rule::OneOf(&["", "container", "pod"])),
    ("topologyManagerPolicyOptions", Rule::Table(&[
        ("prefer-closest-numa-nodes", SWITCH),
        ("max-allowable-numa-nodes", Rule::Text("a whole number in quotes, 8 or more", |text| text.parse::<i64>().is_ok_and(|n| n >= 8))),
    ], &[])),
    ("qosReserved", Rule::Map(&["memory"], &Rule::Text("a whole percentage in quotes, from \"0%\" to \"100%\"", |text| text.strip_suffix('%').and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= 100)))),
    ("runtimeRequestTimeout", WAIT),
    ("hairpinMode", Rule::OneOf(&["", "promiscuous-bridge", "hairpin-veth", "none"])),
    // Each pod has 65536 users of 2³² (pkg/kubelet/userns); userNamespaces may allow fewer.
    ("maxPods", Rule::Int(0, 65535)),
    ("nodeStatusMaxImages", Rule::Int(-1, INT32)), ("maxOpenFiles", Rule::Int(0, i64::MAX)), ("podPidsLimit", Rule::Any),
    ("contentType", Rule::OneOf(&["", "application/vnd.kubernetes.protobuf", "application/json"])),
    ("kubeAPIQPS", COUNT), ("kubeAPIBurst", COUNT), ("maxParallelImagePulls", Rule::Int(1, INT32)),
    ("evictionHard", THRESHOLDS), ("evictionSoft", THRESHOLDS),
    ("evictionSoftGracePeriod", Rule::Map(&SIGNALS, &WAIT)),
    ("evictionPressureTransitionPeriod", WAIT),
    ("evictionMinimumReclaim", Rule::Map(&SIGNALS, &Rule::Text("a percentage above 0% or a quantity of 0 or more in quotes, as in \"5%\" or \"1Gi\"", forms::reclaim))),
    ("podsPerCore", COUNT), ("iptablesMasqueradeBit", BIT), ("iptablesDropBit", BIT),
    ("memorySwap", Rule::Table(&[("swapBehavior", Rule::OneOf(&["", "NoSwap", "LimitedSwap"]))], &[])),
    ("containerLogMaxSize", Rule::Text("a whole quantity in quotes, as in \"10Mi\"", |text| text.is_empty() || quantity(text).is_some_and(|q| q.int64.is_some()))),
    ("containerLogMaxFiles", Rule::Int(2, INT32)), ("containerLogMaxWorkers", Rule::Int(1, INT32)),
    ("containerLogMonitorInterval", Rule::Text("a duration of 3s or more, in quotes", |text| go_duration(text).is_some_and(|ns| ns >= 3 * SECOND))),
    ("configMapAndSecretChangeDetectionStrategy", Rule::OneOf(&["", "Get", "Cache", "Watch"])),
    ("systemReserved", RESERVED), ("kubeReserved", RESERVED),
    ("reservedSystemCPUs", Rule::Text("a list of CPUs in quotes, as in \"0-1,3\"", |text| forms::cpus(text).is_some())),
    ("enforceNodeAllocatable", Rule::Set(&Rule::OneOf(&["pods", "system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible", "none"]))),
    ("allowedUnsafeSysctls", Rule::List(&Rule::Text("a kernel setting of a pod, as in \"net.core.somaxconn\" or \"kernel.msg*\"", forms::pod_sysctl))),
    ("logging", LOGGING),
    ("shutdownGracePeriod", GRACE), ("shutdownGracePeriodCriticalPods", GRACE),
    ("shutdownGracePeriodByPodPriority", Rule::List(&Rule::Table(&[("priority", Rule::Int(i32::MIN as i64, INT32)), ("shutdownGracePeriodSeconds", Rule::Int(0, INT32))], &[]))),
    ("crashLoopBackOff", Rule::Table(&[("maxContainerRestartPeriod", Rule::Text("a duration from 1s to 300s, in quotes", |text| go_duration(text).is_some_and(|ns| (SECOND..=300 * SECOND).contains(&ns))))], &[])),
    ("reservedMemory", Rule::List(&Rule::Table(&[
        ("numaNode", COUNT),
        ("limits", Rule::Named("with the keys memory or hugepages-SIZE", |name| name == "memory" || name.strip_prefix("hugepages-").is_some_and(|size| quantity(size).is_some()),
            &Rule::TextOrInt("a quantity above 0 in quotes, as in \"100Mi\"", |text| quantity(text).is_some_and(|q| q.nano > 0)))),
    ], &["limits"]))),
    ("memoryThrottlingFactor", Rule::Number("a number above 0 and at most 1", |n| n > 0.0 && n <= 1.0)),
    ("memoryReservationPolicy", Rule::OneOf(&["", "None", "TieredReservation"])),
    ("tracing", Rule::Table(&[
        ("endpoint", Rule::Text("HOST:PORT in quotes, as in \"localhost:4317\"", forms::endpoint)),
        ("samplingRatePerMillion", Rule::Int(0, 1_000_000)),
    ], &[])),
    // The users of all pods are the rest of 2³²; it must be a multiple of this.
    ("userNamespaces", Rule::Table(&[("idsPerPod", Rule::Whole("a power of two from 65536 to 2147483648", |n| (1 << 16..=1 << 31).contains(&n) && n.count_ones() == 1))], &[])),
];
