// SPDX-License-Identifier: Apache-2.0
//! Feature gates of kubelet: with one that it does not know, or a value that is fixed, kubelet ends.
//!
//! Out of pkg/features/kube_features.go of Kubernetes 1.35.4 and 1.36.3 and of the libraries that kubelet is built with
//! (apiserver, client-go, component-base); each was tried with kubelet 1.36.3.

/// Names of all gates that kubelet 1.35 or 1.36 knows. `+` follows where the gate is fixed to true, `-` where it is fixed
/// to false, in each of them that knows it.
const GATES: &str = "\
    APIResponseCompression APIServerIdentity APIServerTracing+ APIServingWithRoutine \
    AggregatedDiscoveryRemoveBetaType+ AllAlpha AllBeta AllowDNSOnlyNodeCSR \
    AllowInsecureKubeletCertificateSigningRequests AllowOverwriteTerminationGracePeriodSeconds \
    AllowParsingUserUIDFromCertAuth AllowServiceExternalIPs AllowUnsafeMalformedObjectDeletion \
    AnonymousAuthConfigurableEndpoints+ AnyVolumeDataSource+ AtomicFIFO AuthorizeNodeWithSelectors+ \
    AuthorizePodWebsocketUpgradeCreatePermission AuthorizeWithSelectors+ BtreeWatchCache+ CBORServingAndStorage \
    CPUManagerPolicyAlphaOptions CPUManagerPolicyBetaOptions CPUManagerPolicyOptions+ \
    CRDObservedGenerationTracking CRDValidationRatcheting+ CRIListStreaming CSIMigrationPortworx+ \
    CSIServiceAccountTokenSecrets CSIVolumeHealth ChangeContainerStatusOnKubeletRestart \
    ClearingNominatedNodeNameAfterBinding ClientsAllowCARotation ClientsAllowCBOR ClientsAllowTLSCacheGC \
    ClientsPreferCBOR ClusterTrustBundle ClusterTrustBundleProjection ComponentFlagz ComponentStatusz \
    ConcurrentWatchObjectDecode ConsistentListFromCache+ ConstrainedImpersonation ContainerCheckpoint \
    ContainerRestartRules ContainerStopSignals ContextualLogging CoordinatedLeaderElection \
    CrossNamespaceVolumeDataSource CustomCPUCFSQuotaPeriod CustomResourceFieldSelectors+ DRAAdminAccess \
    DRAConsumableCapacity DRADeviceBindingConditions DRADeviceTaintRules DRADeviceTaints DRAExtendedResource \
    DRAListTypeAttributes DRANodeAllocatableResources DRAPartitionableDevices DRAPrioritizedList \
    DRAResourceClaimDeviceStatus DRAResourceClaimGranularStatusAuthorization DRAResourcePoolStatus \
    DRASchedulerFilterTimeout DRAWorkloadResourceClaims DeclarativeValidation DeclarativeValidationBeta \
    DeclarativeValidationTakeover DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency \
    DisableAllocatorDualWrite+ DisableCPUQuotaWithExclusiveCPUs DisableNodeKubeProxyVersion \
    DynamicResourceAllocation+ EnvFiles EventedPLEG ExecProbeTimeout+ ExtendWebSocketsToKubelet \
    ExternalServiceAccountTokenSigner GangScheduling GenericWorkload GitRepoVolumeDriver GracefulNodeShutdown \
    GracefulNodeShutdownBasedOnPodPriority HPAConfigurableTolerance HPAScaleToZero HonorPVReclaimPolicy+ \
    HostnameOverride ImageMaximumGCAge+ ImageVolume ImageVolumeWithDigest InOrderInformers \
    InOrderInformersBatchProcess InPlacePodLevelResourcesVerticalScaling InPlacePodVerticalScaling+ \
    InPlacePodVerticalScalingAllocatedStatus InPlacePodVerticalScalingExclusiveCPUs \
    InPlacePodVerticalScalingExclusiveMemory InPlacePodVerticalScalingInitContainers \
    InTreePluginPortworxUnregister InformerResourceVersion JobBackoffLimitPerIndex+ JobManagedBy+ \
    JobPodReplacementPolicy+ JobSuccessPolicy+ KMSv1 KubeletCgroupDriverFromCRI+ KubeletCrashLoopBackOffMax \
    KubeletEnsureSecretPulledImages KubeletFineGrainedAuthz KubeletInUserNamespace KubeletPSI \
    KubeletPodResourcesDynamicResources KubeletPodResourcesGet KubeletPodResourcesListUseActivePods \
    KubeletRegistrationGetOnExistsOnly KubeletSeparateDiskGC KubeletServiceAccountTokenForCredentialProviders \
    KubeletTracing+ ListFromCacheSnapshot LocalStorageCapacityIsolationFSQuotaMonitoring LogarithmicScaleDown+ \
    LoggingAlphaOptions LoggingBetaOptions ManifestBasedAdmissionControlConfig MatchLabelKeysInPodAffinity+ \
    MatchLabelKeysInPodTopologySpread MatchLabelKeysInPodTopologySpreadSelectorMerge MaxUnavailableStatefulSet \
    MemoryManager+ MemoryQoS MultiCIDRServiceAllocator+ MutableCSINodeAllocatableCount MutablePVNodeAffinity \
    MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs MutatingAdmissionPolicy \
    NFTablesProxyMode+ NativeHistograms NodeDeclaredFeatures NodeInclusionPolicyInPodTopologySpread+ \
    NodeLogQuery NodeSwap+ NominatedNodeNameForExpectation OpenAPIEnums OpportunisticBatching \
    OrderedNamespaceDeletion+ PLEGOnDemandRelist PersistentVolumeClaimUnusedSinceTime \
    PodAndContainerStatsFromCRI PodCertificateRequest PodDeletionCost PodLevelResourceManagers PodLevelResources \
    PodLifecycleSleepAction+ PodLifecycleSleepActionAllowZero+ PodLogsQuerySplitStreams \
    PodObservedGenerationTracking+ PodReadyToStartContainersCondition PodSchedulingReadiness+ \
    PodTopologyLabelsAdmission PodsAPI PortForwardWebsockets PreferSameTrafficDistribution+ \
    PreventStaticPodAPIReferences ProcMountType QOSReserved RecoverVolumeExpansionFailure+ \
    RecursiveReadOnlyMounts+ ReduceDefaultCrashLoopBackOffDecay RelaxedDNSSearchValidation+ \
    RelaxedEnvironmentVariableValidation+ RelaxedServiceNameValidation ReloadKubeletServerCertificateFile \
    RemoteRequestHeaderUID ResilientWatchCacheInitialization+ ResourceHealthStatus ResourceHealthStatusMessage \
    RestartAllContainersOnContainerExits RetryGenerateName+ RotateKubeletServerCertificate \
    RuntimeClassInImageCriApi SELinuxChangePolicy SELinuxMount SELinuxMountReadWriteOncePod \
    SchedulerAsyncAPICalls SchedulerAsyncPreemption SchedulerPopFromBackoffQ SchedulerQueueingHints+ \
    SeparateCacheWatchRPC SeparateTaintEvictionController+ ServiceAccountNodeAudienceRestriction \
    ServiceAccountTokenJTI+ ServiceAccountTokenNodeBinding+ ServiceAccountTokenNodeBindingValidation+ \
    ServiceAccountTokenPodNodeInfo+ ServiceCIDRStatusFieldWiping ServiceTrafficDistribution+ ShardedListAndWatch \
    SidecarContainers+ SizeBasedListCostEstimate StaleControllerConsistencyDaemonSet \
    StaleControllerConsistencyJob StaleControllerConsistencyReplicaSet StaleControllerConsistencyStatefulSet \
    StatefulSetSemanticRevisionComparison StorageCapacityScoring StorageNamespaceIndex StorageVersionAPI \
    StorageVersionHash StorageVersionMigrator StreamingCollectionEncodingToJSON+ \
    StreamingCollectionEncodingToProtobuf+ StrictIPCIDRValidation StructuredAuthenticationConfiguration+ \
    StructuredAuthenticationConfigurationEgressSelector StructuredAuthenticationConfigurationJWKSMetrics \
    StructuredAuthorizationConfiguration+ SupplementalGroupsPolicy+ TaintTolerationComparisonOperators \
    TokenRequestServiceAccountUIDValidation TopologyAwareHints+ TopologyAwareWorkloadScheduling \
    TopologyManagerPolicyAlphaOptions TopologyManagerPolicyBetaOptions TopologyManagerPolicyOptions \
    TranslateStreamCloseWebsocketRequests UnauthenticatedHTTP2DOSMitigation UnknownVersionInteroperabilityProxy \
    UnlockWhileProcessingFIFO UserNamespacesHostNetworkSupport UserNamespacesSupport VolumeAttributesClass \
    VolumeLimitScaling WatchCacheInitializationPostStartHook WatchFromStorageWithoutResourceVersion+ WatchList \
    WatchListClient WinDSR+ WinOverlay+ WindowsCPUAndMemoryAffinity WindowsGracefulNodeShutdown \
    WindowsHostNetwork WorkloadAwarePreemption WorkloadWithJob";

/// Whether a gate is fixed to a value (`LockToDefault`); none for a gate that neither kubelet knows.
pub(super) fn fixed(name: &str) -> Option<Option<bool>> {
    GATES.split(' ').find_map(|gate| match gate.strip_prefix(name)? {
        "" => Some(None),
        "+" => Some(Some(true)),
        "-" => Some(Some(false)),
        _ => None,
    })
}

/// Gates that need another one (`defaultKubernetesFeatureGateDependencies`, pkg/features/kube_features.go, 1.36.3), as far
/// as that is not fixed; and whether that one is true where nothing sets it.
#[rustfmt::skip]
const NEEDS: &[(&str, &str, bool)] = &[
    ("ClusterTrustBundleProjection", "ClusterTrustBundle", false),
    ("DRADeviceBindingConditions", "DRAResourceClaimDeviceStatus", true),
    ("DRADeviceTaintRules", "DRADeviceTaints", true),
    ("DRAResourceClaimGranularStatusAuthorization", "DRAResourceClaimDeviceStatus", true),
    ("DRAWorkloadResourceClaims", "GenericWorkload", false),
    ("ExtendWebSocketsToKubelet", "NodeDeclaredFeatures", true),
    ("GangScheduling", "GenericWorkload", false),
    ("GracefulNodeShutdownBasedOnPodPriority", "GracefulNodeShutdown", true),
    ("InPlacePodLevelResourcesVerticalScaling", "NodeDeclaredFeatures", true),
    ("InPlacePodLevelResourcesVerticalScaling", "PodLevelResources", true),
    ("InPlacePodVerticalScalingInitContainers", "NodeDeclaredFeatures", true),
    ("MatchLabelKeysInPodTopologySpreadSelectorMerge", "MatchLabelKeysInPodTopologySpread", true),
    ("PodLevelResourceManagers", "PodLevelResources", true),
    ("ResourceHealthStatusMessage", "ResourceHealthStatus", true),
    ("RestartAllContainersOnContainerExits", "ContainerRestartRules", true),
    ("RestartAllContainersOnContainerExits", "NodeDeclaredFeatures", true),
    ("StaleControllerConsistencyDaemonSet", "AtomicFIFO", true),
    ("StaleControllerConsistencyJob", "AtomicFIFO", true),
    ("StaleControllerConsistencyReplicaSet", "AtomicFIFO", true),
    ("StaleControllerConsistencyStatefulSet", "AtomicFIFO", true),
    ("StorageVersionAPI", "APIServerIdentity", true),
    ("TopologyAwareWorkloadScheduling", "GenericWorkload", false),
    ("UnknownVersionInteroperabilityProxy", "APIServerIdentity", true),
    ("UserNamespacesHostNetworkSupport", "NodeDeclaredFeatures", true),
    ("WindowsGracefulNodeShutdown", "GracefulNodeShutdown", true),
    ("WorkloadAwarePreemption", "GangScheduling", false),
    ("WorkloadWithJob", "GenericWorkload", false),
];

/// A gate that is set to true without the one that it needs: both, by name. What a gate that is set to false takes from
/// those that are true by default differs between versions of kubelet, and is left to it.
pub(super) fn missing(is: impl Fn(&str) -> Option<bool>) -> Option<(&'static str, &'static str)> {
    let bad = |(gate, needed, default): &&(&str, &str, bool)| is(gate) == Some(true) && !is(needed).unwrap_or(*default);
    // All of a stage at once set others besides.
    let whole = is("AllAlpha").is_some() || is("AllBeta").is_some();
    NEEDS.iter().filter(|_| !whole).find(bad).map(|(gate, needed, _)| (*gate, *needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_known_by_their_whole_name() {
        let names: Vec<&str> = GATES.split(' ').map(|g| g.trim_end_matches(['+', '-'])).collect();
        assert!(names.is_sorted_by(|a, b| a < b) && names.len() > 200);
        assert_eq!(fixed("MemoryQoS"), Some(None));
        assert_eq!(fixed("KubeletPSI"), Some(None), "fixed in 1.36 alone");
        assert_eq!(fixed("SidecarContainers"), Some(Some(true)));
        assert_eq!(fixed("GitRepoVolumeDriver"), Some(None), "fixed in 1.36 alone");
        for (gate, needed, _) in NEEDS {
            assert!(fixed(gate).is_some() && fixed(needed).is_some(), "{gate} {needed}");
        }
        for unknown in ["", "NodeSwa", "nodeSwap", "NodeSwapp", "+"] {
            assert_eq!(fixed(unknown), None, "{unknown}");
        }
    }
}
