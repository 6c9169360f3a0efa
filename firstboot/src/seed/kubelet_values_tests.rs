// SPDX-License-Identifier: Apache-2.0
//! Values that kubelet takes and those that it ends over, each as kubelet 1.36.3 itself answered (`--config`), or, where
//! it says so later, as its source does.

use super::super::kubelet_fields::FIELDS;
use super::super::kubelet_pairs::contradiction;
use super::*;
use serde_json::json;

/// The first thing that is wrong with a whole table.
fn wrong(config: &Json) -> Option<String> {
    let config = config.as_object().unwrap();
    let one = config.iter().find_map(|(field, value)| fault(field, value).map(|(_, text)| text));
    one.or_else(|| contradiction(config).map(|(_, text)| text))
}

#[test]
fn every_rule_is_of_a_field() {
    for (name, _) in RULES {
        let field = name.split('/').next().unwrap();
        assert!(FIELDS.iter().any(|(known, _)| *known == field), "{field}");
    }
    for (field, kind) in FIELDS {
        let ruled = RULES.iter().any(|(name, _)| *name == field);
        assert!(ruled || format!("{kind:?}") != "Integer", "{field} has no range");
    }
}

#[test]
fn values_that_kubelet_takes() {
    for good in [
        json!({"maxPods": 0, "port": 0, "nodeStatusMaxImages": -1, "maxOpenFiles": 3_000_000_000_i64, "oomScoreAdj": -1000}),
        json!({"podPidsLimit": -1, "evictionMaxPodGracePeriod": -1, "iptablesDropBit": 31, "readOnlyPort": 65535}),
        json!({"topologyManagerPolicy": "", "hairpinMode": "none", "cpuManagerPolicy": "none", "tlsMinVersion": "VersionTLS10"}),
        json!({"cpuCFSQuotaPeriod": "50ms", "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"}}),
        json!({"crashLoopBackOff": {}, "userNamespaces": {}, "memorySwap": {"swapBehavior": "LimitedSwap"}}),
        json!({"userNamespaces": {"idsPerPod": 131_072}, "reservedSystemCPUs": "0-1,3", "memoryThrottlingFactor": 1}),
        json!({"logging": {"format": "json", "verbosity": 4, "flushFrequency": "5s", "options": {"json": {"splitStream": true}}}}),
        json!({"logging": {"vmodule": [{"filePattern": "a", "verbosity": 2}]}, "tracing": {"endpoint": "localhost:4317"}}),
        json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": ["a.b/c", "a.b/*"]}),
        json!({"reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}, {"limits": {"hugepages-2Mi": "4Mi"}}]}),
        json!({"shutdownGracePeriodByPodPriority": [{"priority": 1, "shutdownGracePeriodSeconds": 1}], "maxParallelImagePulls": 2, "serializeImagePulls": false}),
        json!({"cgroupsPerQOS": false, "enforceNodeAllocatable": ["none"]}),
        json!({"cgroupsPerQOS": false, "enforceNodeAllocatable": []}),
        json!({"systemCgroups": "/a", "cgroupRoot": "/", "imageMaximumGCAge": "3m", "podLogsDir": "/var/log/pods"}),
        json!({"enableSystemLogQuery": true, "enableSystemLogHandler": true, "serializeImagePulls": false}),
        json!({"tlsCipherSuites": ["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"], "tlsCurvePreferences": [4588, 29]}),
        json!({"evictionHard": {"memory.available": "5%", "nodefs.inodesFree": "100Mi", "pid.available": "0%"}}),
        json!({"evictionSoft": {"memory.available": "200Mi"}, "evictionSoftGracePeriod": {"memory.available": "1m30s"}}),
        json!({"kubeReserved": {"cpu": "100m", "ephemeral-storage": "1Gi"}, "systemReserved": {"pid": "0"}, "qosReserved": {"memory": "50%"}}),
        json!({"cpuManagerPolicy": "static", "cpuManagerPolicyOptions": {"full-pcpus-only": "true"}, "kubeReserved": {"cpu": "100m"}}),
        json!({"allowedUnsafeSysctls": ["net.core.somaxconn", "kernel.msg*"], "clusterDNS": ["10.96.0.10", "fd00::a"]}),
        json!({"featureGates": {"GangScheduling": true, "GenericWorkload": true, "PodLevelResourceManagers": true}}),
        json!({"featureGates": {"MemoryQoS": true, "SidecarContainers": true}, "memoryReservationPolicy": "TieredReservation"}),
        json!({"imageGCHighThresholdPercent": 95, "imageGCLowThresholdPercent": 90, "staticPodURLHeader": {"a": ["b"]}}),
    ] {
        assert_eq!(wrong(&good), None, "{good}");
    }
}

#[test]
fn values_that_kubelet_ends_over() {
    for (bad, text) in [
        (json!({"maxPods": -1}), "maxPods in [kubelet.config] must be a whole number from 0 on"),
        (json!({"maxPods": 3_000_000_000_i64}), "maxPods in [kubelet.config] must be a whole number from 0 on"),
        (json!({"oomScoreAdj": 1001}), "oomScoreAdj in [kubelet.config] must be a whole number from -1000 to 1000"),
        (json!({"cpuManagerPolicy": "x"}), "cpuManagerPolicy in [kubelet.config] must be none or static"),
        (
            json!({"topologyManagerPolicy": "best"}),
            "topologyManagerPolicy in [kubelet.config] must be none or best-effort or restricted or single-numa-node",
        ),
        (json!({"cpuCFSQuotaPeriod": "2s"}), "cpuCFSQuotaPeriod in [kubelet.config] must be a duration from 1ms to 1s"),
        (
            json!({"crashLoopBackOff": {"maxContainerRestartPeriod": "400s"}}),
            "crashLoopBackOff.maxContainerRestartPeriod in [kubelet.config] must be a duration from 1s to 300s",
        ),
        (json!({"memorySwap": {"foo": 1}}), "unknown field \"foo\" in [kubelet.config] memorySwap"),
        (
            json!({"featureGates": {"NodeSwapp": true}}),
            "unknown feature gate \"NodeSwapp\" in [kubelet.config]: kubelet 1.35 and 1.36 have none",
        ),
        (
            json!({"featureGates": {"NodeSwap": false}}),
            "featureGates.NodeSwap in [kubelet.config] must be true: kubelet has it fixed",
        ),
        (
            json!({"evictionHard": {"memory": "1Gi"}}),
            "evictionHard in [kubelet.config] has no \"memory\": expected memory.available, nodefs.available, \
             nodefs.inodesFree, imagefs.available, imagefs.inodesFree, containerfs.available, containerfs.inodesFree, \
             allocatableMemory.available, pid.available",
        ),
        (
            json!({"kubeReserved": {"cpu": "lots"}}),
            "kubeReserved in [kubelet.config] must be a quantity of zero or more, as in \"100Mi\", for each of its keys",
        ),
        (
            json!({"imageGCLowThresholdPercent": 80}),
            "imageGCLowThresholdPercent in [kubelet.config] does not fit: imageGCLowThresholdPercent (70 unless set) must be \
             less than imageGCHighThresholdPercent (80 unless set)",
        ),
    ] {
        assert_eq!(wrong(&bad).as_deref(), Some(text), "{bad}");
    }
    for bad in [
        json!({"port": 65536}),
        json!({"iptablesDropBit": 32}),
        json!({"podPidsLimit": "x"}),
        json!({"maxParallelImagePulls": 0}),
        json!({"containerLogMaxFiles": 1}),
        json!({"containerLogMaxWorkers": 0}),
        json!({"containerLogMonitorInterval": "1s"}),
        json!({"containerLogMaxSize": "-1"}),
        json!({"memoryManagerPolicy": "static"}),
        json!({"topologyManagerScope": "x"}),
        json!({"hairpinMode": "x"}),
        json!({"configMapAndSecretChangeDetectionStrategy": "x"}),
        json!({"tlsMinVersion": "1.2"}),
        json!({"tlsCipherSuites": ["x"]}),
        json!({"tlsCurvePreferences": [99]}),
        json!({"memoryThrottlingFactor": 0}),
        json!({"memoryThrottlingFactor": 1.5}),
        json!({"memoryReservationPolicy": "TieredReservation"}),
        json!({"memorySwap": {"swapBehavior": "x"}}),
        json!({"userNamespaces": {"idsPerPod": 65537}}),
        json!({"userNamespaces": {"idsPerPod": 0}}),
        json!({"logging": {"format": "x"}}),
        json!({"logging": {"verbosity": -1}}),
        json!({"logging": {"flushFrequency": "-5s"}}),
        json!({"logging": {"vmodule": [{"filePattern": "", "verbosity": 2}]}}),
        json!({"tracing": {"samplingRatePerMillion": 2_000_000}}),
        json!({"tracing": {"endpoint": "a b"}}),
        json!({"tracing": {"endpoint": "http://a:1"}}),
        json!({"enforceNodeAllocatable": ["x"]}),
        json!({"enforceNodeAllocatable": ["pods", "pods"]}),
        json!({"enforceNodeAllocatable": ["none", "pods"]}),
        json!({"enforceNodeAllocatable": ["system-reserved"]}),
        json!({"cgroupsPerQOS": false}),
        json!({"cgroupsPerQOS": false, "enforceNodeAllocatable": ["pods"]}),
        json!({"systemCgroups": "/a"}),
        json!({"reservedSystemCPUs": "3-1"}),
        json!({"reservedSystemCPUs": "0-1", "systemReservedCgroup": "/a"}),
        json!({"shutdownGracePeriod": "0.5s"}),
        json!({"shutdownGracePeriodCriticalPods": "5s"}),
        json!({"shutdownGracePeriod": "5s", "shutdownGracePeriodCriticalPods": "10s"}),
        json!({"shutdownGracePeriod": "5s", "shutdownGracePeriodByPodPriority": [{"priority": 1, "shutdownGracePeriodSeconds": 1}]}),
        json!({"imageMinimumGCAge": "-1s"}),
        json!({"imageMaximumGCAge": "1m"}),
        json!({"serializeImagePulls": true, "maxParallelImagePulls": 2}),
        json!({"enableSystemLogQuery": true}),
        json!({"imagePullCredentialsVerificationPolicy": "x"}),
        json!({"preloadedImagesVerificationAllowlist": ["a.b/c"]}),
        json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": ["a.b/c:tag"]}),
        json!({"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": ["*"]}),
        json!({"reservedMemory": [{"numaNode": 0, "limits": {"cpu": "1"}}]}),
        json!({"reservedMemory": [{"numaNode": 0, "limits": {"memory": "0"}}]}),
        json!({"reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}, {"limits": {"memory": "1Gi"}}]}),
        json!({"podLogsDir": "/a/../b"}),
        json!({"podLogsDir": "/a/"}),
        json!({"showHiddenMetricsForVersion": "x"}),
        json!({"staticPodURLHeader": {"a": "b"}}),
        json!({"evictionHard": {"memory.available": "101%"}}),
        json!({"evictionHard": {"memory.available": "0"}}),
        json!({"evictionSoft": {"memory.available": "1Gi"}}),
        json!({"evictionMinimumReclaim": {"memory.available": "0%"}}),
        json!({"systemReserved": {"gpu": "1"}}),
        json!({"cpuManagerPolicyOptions": {"full-pcpus-only": "true"}}),
        json!({"allowedUnsafeSysctls": ["vm.swappiness"]}),
        json!({"address": "x"}),
        json!({"clusterDNS": ["x"]}),
        json!({"featureGates": {"GangScheduling": true}}),
        json!({"featureGates": {"PodLevelResources": false, "PodLevelResourceManagers": true}}),
        json!({"tlsCertFile": "/x"}),
        json!({"cpuManagerPolicy": "static"}),
        json!({"cpuManagerPolicy": "static", "kubeReserved": {"cpu": "0"}}),
        json!({"memoryManagerPolicy": "Static"}),
    ] {
        assert!(wrong(&bad).is_some(), "{bad}");
    }
}
