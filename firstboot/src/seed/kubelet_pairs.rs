// SPDX-License-Identifier: Apache-2.0
//! Fields of `[kubelet.config]` that do not fit each other, by `ValidateKubeletConfiguration` and the start of kubelet.

use super::kubelet_forms::{SECOND, duration, quantity};
use serde_json::{Map, Value as Json};

/// Pairs of fields that do not fit each other: the field to be named, and the message from its name on. A field that the
/// seed leaves out has the hardened host's value, where that sets one, or kubelet's default; what the cluster sets is not
/// known here, so that a field that needs another has to stand beside it.
pub(super) fn contradiction(config: &Map<String, Json>) -> Option<(&'static str, String)> {
    let text = |field: &str| config.get(field).and_then(Json::as_str).unwrap_or_default();
    let truth = |field: &str, default: bool| config.get(field).and_then(Json::as_bool).unwrap_or(default);
    let whole = |field: &str, default: i64| config.get(field).and_then(Json::as_i64).unwrap_or(default);
    let span =
        |field: &str, default: i64| config.get(field).and_then(Json::as_str).and_then(duration).unwrap_or(default);
    let has = |field: &str| {
        config.get(field).is_some_and(|v| v.as_str() != Some("") && v.as_array().is_none_or(|a| !a.is_empty()))
    };
    let gate = |name: &str| config.get("featureGates").and_then(|g| g.get(name)?.as_bool()).unwrap_or(false);
    let list = |field: &str| config.get(field).and_then(Json::as_array).cloned().unwrap_or_default();
    let reserves = |resource: &str| {
        ["systemReserved", "kubeReserved"].iter().any(|field| {
            let amount = config.get(*field).and_then(|table| table.get(resource)?.as_str());
            amount.and_then(quantity).is_some_and(|amount| amount > 0.0)
        })
    };
    // The hardened host's values: harden/kubelet/fields.rs.
    let (high, low) = (whole("imageGCHighThresholdPercent", 80), whole("imageGCLowThresholdPercent", 70));
    let wrong = |field: &'static str, text: &str| Some((field, format!("{field} in [kubelet.config] {text}")));
    if low >= high {
        let field = ["imageGCLowThresholdPercent", "imageGCHighThresholdPercent"]
            .into_iter()
            .find(|f| config.contains_key(*f))?;
        let text = "does not fit: imageGCLowThresholdPercent (70 unless set) must be less than imageGCHighThresholdPercent (80 unless set)";
        return wrong(field, text);
    }
    let enforced = list("enforceNodeAllocatable");
    let enforces = |name: &str| enforced.iter().any(|v| v == name);
    if (1..enforced.len()).any(|n| enforced[..n].contains(&enforced[n])) || enforces("none") && enforced.len() > 1 {
        return wrong("enforceNodeAllocatable", "names one twice, or others beside none");
    }
    for (kind, cgroup) in [("system-reserved", "systemReservedCgroup"), ("kube-reserved", "kubeReservedCgroup")] {
        let compressible = enforces(&format!("{kind}-compressible"));
        if compressible && enforces(kind) {
            return wrong("enforceNodeAllocatable", &format!("names {kind} and {kind}-compressible: keep one"));
        }
        if (compressible || enforces(kind)) && !has(cgroup) {
            return wrong("enforceNodeAllocatable", &format!("names {kind}, which needs {cgroup} beside it"));
        }
    }
    let rules: [(bool, &'static str, &str); 15] = [
        (
            !truth("cgroupsPerQOS", true)
                && config.get("enforceNodeAllocatable").is_none_or(|_| !enforced.is_empty() && !enforces("none")),
            "cgroupsPerQOS",
            "is false, which needs enforceNodeAllocatable = [\"none\"] beside it",
        ),
        (has("systemCgroups") && !has("cgroupRoot"), "systemCgroups", "needs cgroupRoot beside it"),
        (
            has("reservedSystemCPUs") && (has("systemReservedCgroup") || has("kubeReservedCgroup")),
            "reservedSystemCPUs",
            "cannot stand beside systemReservedCgroup or kubeReservedCgroup",
        ),
        (
            span("shutdownGracePeriodCriticalPods", 0) > span("shutdownGracePeriod", 0),
            "shutdownGracePeriodCriticalPods",
            "needs a shutdownGracePeriod beside it that is at least as long",
        ),
        (
            has("shutdownGracePeriodByPodPriority") && span("shutdownGracePeriod", 0) > 0,
            "shutdownGracePeriodByPodPriority",
            "cannot stand beside shutdownGracePeriod",
        ),
        (
            span("imageMaximumGCAge", 0) > 0 && span("imageMaximumGCAge", 0) <= span("imageMinimumGCAge", 120 * SECOND),
            "imageMaximumGCAge",
            "must be more than imageMinimumGCAge (2m unless set)",
        ),
        (
            // Without a value of its own the default depends on the cluster's maxParallelImagePulls, not on the seed's.
            truth("serializeImagePulls", true) && whole("maxParallelImagePulls", 1) > 1,
            "maxParallelImagePulls",
            "is more than 1, which needs serializeImagePulls = false beside it",
        ),
        (
            truth("enableSystemLogQuery", false) && !truth("enableSystemLogHandler", false),
            "enableSystemLogQuery",
            "needs enableSystemLogHandler = true beside it",
        ),
        (
            text("memoryReservationPolicy") == "TieredReservation" && !gate("MemoryQoS"),
            "memoryReservationPolicy",
            "needs featureGates.MemoryQoS = true beside it",
        ),
        (
            has("preloadedImagesVerificationAllowlist")
                && text("imagePullCredentialsVerificationPolicy") != "NeverVerifyAllowlistedImages",
            "preloadedImagesVerificationAllowlist",
            "needs imagePullCredentialsVerificationPolicy = \"NeverVerifyAllowlistedImages\" beside it",
        ),
        (
            config.get("cpuManagerPolicyOptions").and_then(Json::as_object).is_some_and(|o| !o.is_empty())
                && text("cpuManagerPolicy") != "static",
            "cpuManagerPolicyOptions",
            "needs cpuManagerPolicy = \"static\" beside it",
        ),
        (
            text("cpuManagerPolicy") == "static" && !has("reservedSystemCPUs") && !reserves("cpu"),
            "cpuManagerPolicy",
            "is static, which needs reservedSystemCPUs, or cpu in systemReserved or kubeReserved, beside it",
        ),
        (
            text("memoryManagerPolicy") == "Static" && !has("reservedMemory"),
            "memoryManagerPolicy",
            "is Static, which needs reservedMemory beside it",
        ),
        (
            has("tlsCertFile") != has("tlsPrivateKeyFile"),
            if has("tlsCertFile") { "tlsCertFile" } else { "tlsPrivateKeyFile" },
            "says nothing alone: tlsCertFile and tlsPrivateKeyFile belong together",
        ),
        (
            config.get("evictionSoft").and_then(Json::as_object).is_some_and(|soft| {
                let periods = config.get("evictionSoftGracePeriod").and_then(Json::as_object);
                !soft.keys().all(|signal| periods.is_some_and(|p| p.contains_key(signal)))
            }),
            "evictionSoft",
            "needs evictionSoftGracePeriod beside it, for each of its signals",
        ),
    ];
    rules.into_iter().find(|(bad, ..)| *bad).and_then(|(_, field, text)| wrong(field, text))
}
