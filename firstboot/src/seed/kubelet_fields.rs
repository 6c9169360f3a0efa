// SPDX-License-Identifier: Apache-2.0
//! Fields of KubeletConfiguration, `kubelet.config.k8s.io/v1beta1`, with their types: the struct of that name in
//! k8s.io/kubelet v0.36.3, config/v1beta1/types.go, in its order.

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Integer,
    /// Integer or fraction.
    Number,
    String,
    /// As Go writes them: `1h30m`, `0.5s`.
    Duration,
    Strings,
    Integers,
    StringMap,
    BoolMap,
    /// A list of something else.
    List,
    /// A table of something else.
    Table,
}

/// Fields that are not the seed's to set, with the reason.
pub(super) const OWNED: [(&str, &str); 15] = [
    ("apiVersion", "firstboot writes it"),
    ("kind", "firstboot writes it"),
    ("staticPodPath", "kubeadm keeps it at /etc/kubernetes/manifests"),
    ("rotateCertificates", "the join relies on kubelet renewing its certificate"),
    ("authentication", "the cluster says who may talk to kubelet"),
    ("authorization", "the cluster says who may talk to kubelet"),
    ("healthzPort", "firstboot asks kubelet there whether it is well"),
    ("healthzBindAddress", "firstboot asks kubelet there whether it is well"),
    ("cgroupDriver", "it has to be the one of the container runtime, systemd"),
    ("runOnce", "kubelet would end after one look at its pods"),
    ("registerWithTaints", "use taints in [node]"),
    ("registerNode", "the node would never join"),
    ("containerRuntimeEndpoint", "the image brings its own container runtime"),
    ("imageServiceEndpoint", "the image brings its own container runtime"),
    ("showHiddenMetricsForVersion", "a kubelet of any other minor ends with it"),
];

/// All other fields.
#[rustfmt::skip]
pub(super) const FIELDS: [(&str, Kind); 112] = [
    ("enableServer", Kind::Bool), ("podLogsDir", Kind::String), ("syncFrequency", Kind::Duration),
    ("fileCheckFrequency", Kind::Duration), ("httpCheckFrequency", Kind::Duration), ("staticPodURL", Kind::String),
    ("staticPodURLHeader", Kind::Table), ("address", Kind::String), ("port", Kind::Integer),
    ("readOnlyPort", Kind::Integer), ("tlsCertFile", Kind::String), ("tlsPrivateKeyFile", Kind::String),
    ("tlsCipherSuites", Kind::Strings), ("tlsCurvePreferences", Kind::Integers), ("tlsMinVersion", Kind::String),
    ("serverTLSBootstrap", Kind::Bool), ("registryPullQPS", Kind::Integer), ("registryBurst", Kind::Integer),
    ("imagePullCredentialsVerificationPolicy", Kind::String), ("preloadedImagesVerificationAllowlist", Kind::Strings),
    ("eventRecordQPS", Kind::Integer), ("eventBurst", Kind::Integer), ("enableDebuggingHandlers", Kind::Bool),
    ("enableContentionProfiling", Kind::Bool), ("oomScoreAdj", Kind::Integer), ("clusterDomain", Kind::String),
    ("clusterDNS", Kind::Strings), ("streamingConnectionIdleTimeout", Kind::Duration),
    ("nodeStatusUpdateFrequency", Kind::Duration), ("nodeStatusReportFrequency", Kind::Duration),
    ("nodeLeaseDurationSeconds", Kind::Integer), ("imageMinimumGCAge", Kind::Duration),
    ("imageMaximumGCAge", Kind::Duration), ("imageGCHighThresholdPercent", Kind::Integer),
    ("imageGCLowThresholdPercent", Kind::Integer), ("volumeStatsAggPeriod", Kind::Duration),
    ("kubeletCgroups", Kind::String), ("systemCgroups", Kind::String), ("cgroupRoot", Kind::String),
    ("cgroupsPerQOS", Kind::Bool), ("cpuManagerPolicy", Kind::String), ("singleProcessOOMKill", Kind::Bool),
    ("cpuManagerPolicyOptions", Kind::StringMap), ("cpuManagerReconcilePeriod", Kind::Duration),
    ("memoryManagerPolicy", Kind::String), ("topologyManagerPolicy", Kind::String),
    ("topologyManagerScope", Kind::String), ("topologyManagerPolicyOptions", Kind::StringMap),
    ("qosReserved", Kind::StringMap), ("runtimeRequestTimeout", Kind::Duration), ("hairpinMode", Kind::String),
    ("maxPods", Kind::Integer), ("podCIDR", Kind::String), ("podPidsLimit", Kind::Integer),
    ("resolvConf", Kind::String), ("cpuCFSQuota", Kind::Bool), ("cpuCFSQuotaPeriod", Kind::Duration),
    ("nodeStatusMaxImages", Kind::Integer), ("maxOpenFiles", Kind::Integer), ("contentType", Kind::String),
    ("kubeAPIQPS", Kind::Integer), ("kubeAPIBurst", Kind::Integer), ("serializeImagePulls", Kind::Bool),
    ("maxParallelImagePulls", Kind::Integer), ("evictionHard", Kind::StringMap), ("evictionSoft", Kind::StringMap),
    ("evictionSoftGracePeriod", Kind::StringMap), ("evictionPressureTransitionPeriod", Kind::Duration),
    ("evictionMaxPodGracePeriod", Kind::Integer), ("evictionMinimumReclaim", Kind::StringMap),
    ("mergeDefaultEvictionSettings", Kind::Bool), ("podsPerCore", Kind::Integer),
    ("enableControllerAttachDetach", Kind::Bool), ("protectKernelDefaults", Kind::Bool),
    ("makeIPTablesUtilChains", Kind::Bool), ("iptablesMasqueradeBit", Kind::Integer),
    ("iptablesDropBit", Kind::Integer), ("featureGates", Kind::BoolMap), ("failSwapOn", Kind::Bool),
    ("memorySwap", Kind::Table), ("containerLogMaxSize", Kind::String), ("containerLogMaxFiles", Kind::Integer),
    ("containerLogMaxWorkers", Kind::Integer), ("containerLogMonitorInterval", Kind::Duration),
    ("configMapAndSecretChangeDetectionStrategy", Kind::String), ("systemReserved", Kind::StringMap),
    ("kubeReserved", Kind::StringMap), ("reservedSystemCPUs", Kind::String),
    ("systemReservedCgroup", Kind::String),
    ("kubeReservedCgroup", Kind::String), ("enforceNodeAllocatable", Kind::Strings),
    ("allowedUnsafeSysctls", Kind::Strings), ("volumePluginDir", Kind::String), ("providerID", Kind::String),
    ("kernelMemcgNotification", Kind::Bool), ("logging", Kind::Table), ("enableSystemLogHandler", Kind::Bool),
    ("enableSystemLogQuery", Kind::Bool), ("shutdownGracePeriod", Kind::Duration),
    ("shutdownGracePeriodCriticalPods", Kind::Duration), ("shutdownGracePeriodByPodPriority", Kind::List),
    ("crashLoopBackOff", Kind::Table), ("reservedMemory", Kind::List), ("enableProfilingHandler", Kind::Bool),
    ("enableDebugFlagsHandler", Kind::Bool), ("seccompDefault", Kind::Bool), ("memoryThrottlingFactor", Kind::Number),
    ("memoryReservationPolicy", Kind::String), ("tracing", Kind::Table),
    ("localStorageCapacityIsolation", Kind::Bool), ("failCgroupV1", Kind::Bool), ("userNamespaces", Kind::Table),
];
