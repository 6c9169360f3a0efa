// SPDX-License-Identifier: Apache-2.0

// Reads what firstboot writes for kubelet with kubelet's own code, and says what kubelet makes of it.
//
// Standard input has one JSON object a line (type question), standard output one answer a line, in the same order. A
// question sets one or more of its parts; the answer's error is of the first part that kubelet refuses.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	cadvisorapi "github.com/google/cadvisor/info/v1"
	"github.com/spf13/pflag"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/http2"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // the format json
	nodeutil "k8s.io/component-helpers/node/util"
	"k8s.io/klog/v2"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	core "k8s.io/kubernetes/pkg/apis/core"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	kubeletscheme "k8s.io/kubernetes/pkg/kubelet/apis/config/scheme"
	kubeletconfigv1beta1 "k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1"
	kubeletvalidation "k8s.io/kubernetes/pkg/kubelet/apis/config/validation"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/memorymanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	evictionapi "k8s.io/kubernetes/pkg/kubelet/eviction/api"
	utilcodec "k8s.io/kubernetes/pkg/kubelet/kubeletconfig/util/codec"
	"k8s.io/kubernetes/pkg/kubelet/logs"
	"k8s.io/kubernetes/pkg/kubelet/stats/pidlimit"
	"k8s.io/kubernetes/pkg/kubelet/sysctl"
	"k8s.io/kubernetes/pkg/kubelet/userns"
	"k8s.io/utils/cpuset"
	netutils "k8s.io/utils/net"
)

type question struct {
	// HTTPS_PROXY and NO_PROXY as in the environment of kubelet and containerd, and the hosts (HOST:PORT) to ask for.
	Proxy   string   `json:"proxy"`
	NoProxy string   `json:"no_proxy"`
	Hosts   []string `json:"hosts"`
	// kubelet's flags, and the name of its node.
	Flags []string `json:"flags"`
	Node  string   `json:"node"`
	// Documents of KubeletConfiguration, JSON: the cluster's, then drop-ins in their order.
	Configs []string `json:"configs"`
}

// All gates at their defaults.
var knownGates = utilfeature.DefaultMutableFeatureGate

type answer struct {
	Error string `json:"error,omitempty"`
	// For each host the URL of the proxy that Go takes, decoded to "HOST USER PASSWORD"; "direct" without one.
	Ways []string `json:"ways,omitempty"`
}

func main() {
	klog.SetLogger(logr.Discard())
	// As cmd/kubelet does.
	if err := logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate); err != nil {
		fmt.Fprintln(os.Stderr, "add feature gates:", err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 4<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	answers := json.NewEncoder(out)
	for lines.Scan() {
		var q question
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&q); err != nil {
			fmt.Fprintln(os.Stderr, "read a question:", err)
			os.Exit(1)
		}
		a, err := judge(&q)
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, "write an answer:", err)
			os.Exit(1)
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "read questions:", err)
		os.Exit(1)
	}
}

func judge(q *question) (answer, error) {
	var a answer
	if q.Proxy != "" {
		ways, err := ways(q)
		if err != nil {
			return a, fmt.Errorf("proxy: %w", err)
		}
		a.Ways = ways
	}
	utilfeature.DefaultMutableFeatureGate, utilfeature.DefaultFeatureGate = knownGates, knownGates
	kc := kubeletconfig.KubeletConfiguration{}
	if len(q.Configs) > 0 {
		merged, err := merged(q.Configs)
		if err != nil {
			return a, fmt.Errorf("configuration: %w", err)
		}
		kc = *merged
	}
	if q.Node != "" {
		if err := flags(q, &kc); err != nil {
			return a, fmt.Errorf("flags: %w", err)
		}
	}
	if len(q.Configs) > 0 {
		if err := valid(&kc); err != nil {
			return a, fmt.Errorf("configuration: %w", err)
		}
	}
	return a, nil
}

// Go's own way of reading proxy variables ignores a URL that it cannot parse, and then connects directly.
func ways(q *question) ([]string, error) {
	if _, err := url.Parse(q.Proxy); err != nil {
		return nil, errors.New("the URL cannot be parsed")
	}
	config := httpproxy.Config{HTTPProxy: q.Proxy, HTTPSProxy: q.Proxy, NoProxy: q.NoProxy}
	choose := config.ProxyFunc()
	var ways []string
	for _, host := range q.Hosts {
		via, err := choose(&url.URL{Scheme: "https", Host: host})
		if err != nil {
			return nil, errors.New("the proxy cannot be chosen")
		}
		way := "direct"
		if via != nil {
			password, _ := via.User.Password()
			way = fmt.Sprintf("%s %s %s", via.Host, via.User.Username(), password)
		}
		ways = append(ways, way)
	}
	return ways, nil
}

// As cmd/kubelet/app/server.go (mergeKubeletConfigurations) does. Where that panics, kubelet ends.
func merged(documents []string) (kc *kubeletconfig.KubeletConfiguration, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	_, codecs, err := kubeletscheme.NewSchemeAndCodecs(serializer.EnableStrict)
	if err != nil {
		return nil, err
	}
	first, err := utilcodec.DecodeKubeletConfiguration(context.Background(), codecs, []byte(documents[0]))
	if err != nil {
		return nil, err
	}
	// As loadConfigFile does.
	if first.EvictionHard == nil {
		first.EvictionHard = eviction.DefaultEvictionHard
	}
	versioned := &kubeletv1beta1.KubeletConfiguration{}
	if err := kubeletconfigv1beta1.Convert_config_KubeletConfiguration_To_v1beta1_KubeletConfiguration(first, versioned, nil); err != nil {
		return nil, err
	}
	base, err := json.Marshal(versioned)
	if err != nil {
		return nil, err
	}
	for _, document := range documents[1:] {
		dropIn, _, err := utilcodec.DecodeKubeletConfigurationIntoJSON(codecs, []byte(document))
		if err != nil {
			return nil, err
		}
		if base, err = jsonpatch.MergePatch(base, dropIn); err != nil {
			return nil, err
		}
	}
	versioned = &kubeletv1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(base, versioned); err != nil {
		return nil, err
	}
	kubeletconfigv1beta1.SetDefaults_KubeletConfiguration(versioned)
	kc = &kubeletconfig.KubeletConfiguration{}
	return kc, kubeletconfigv1beta1.Convert_v1beta1_KubeletConfiguration_To_config_KubeletConfiguration(versioned, kc, nil)
}

// What cmd/kubelet/app/server.go validates before kubelet runs, and what it parses when it does.
func valid(kc *kubeletconfig.KubeletConfiguration) error {
	gates := knownGates.DeepCopy()
	// kubelet's packages ask these variables.
	utilfeature.DefaultMutableFeatureGate, utilfeature.DefaultFeatureGate = gates, gates
	if err := gates.SetFromMap(kc.FeatureGates); err != nil {
		return err
	}
	if errs := logsapi.Validate(&kc.Logging, gates, field.NewPath("logging")); len(errs) > 0 {
		return errs.ToAggregate()
	}
	if err := kubeletvalidation.ValidateKubeletConfiguration(kc, gates); err != nil {
		return err
	}
	if err := serves(kc); err != nil {
		return err
	}
	if err := manages(kc); err != nil {
		return err
	}
	return runs(kc)
}

// InitializeTLS, and the server that kubelet starts with it.
func serves(kc *kubeletconfig.KubeletConfiguration) error {
	suites, err := cliflag.TLSCipherSuites(kc.TLSCipherSuites)
	if err != nil {
		return err
	}
	least, err := cliflag.TLSVersion(kc.TLSMinVersion)
	if err != nil {
		return err
	}
	curves, err := cliflag.TLSCurvePreferences(kc.TLSCurvePreferences)
	if err != nil {
		return err
	}
	config := &tls.Config{MinVersion: least, CipherSuites: suites, CurvePreferences: curves}
	if err := http2.ConfigureServer(&http.Server{TLSConfig: config}, nil); err != nil {
		return err
	}
	if netutils.ParseIPSloppy(kc.Address) == nil {
		return errors.New("address is no IP address")
	}
	if kc.Port == kc.HealthzPort || kc.Port == kc.ReadOnlyPort || kc.ReadOnlyPort == kc.HealthzPort {
		return errors.New("two servers on one port")
	}
	return nil
}

// A machine that every device is at least: what is wrong here does not depend on the hardware.
var machine = cadvisorapi.MachineInfo{
	NumCores: 4, NumPhysicalCores: 4, NumSockets: 1, MemoryCapacity: 8 << 30,
	Topology: []cadvisorapi.Node{{Id: 0, Memory: 8 << 30, Distances: []uint64{10}, Cores: []cadvisorapi.Core{
		{Id: 0, Threads: []int{0}}, {Id: 1, Threads: []int{1}}, {Id: 2, Threads: []int{2}}, {Id: 3, Threads: []int{3}},
	}}},
}

// As run in cmd/kubelet/app/server.go and NewContainerManager in pkg/kubelet/cm/container_manager_linux.go do.
func manages(kc *kubeletconfig.KubeletConfiguration) error {
	cpus, err := cpuset.Parse(kc.ReservedSystemCPUs)
	if err != nil {
		return err
	}
	kubeReserved, systemReserved := maps.Clone(kc.KubeReserved), maps.Clone(kc.SystemReserved)
	if cpus.Size() > 0 {
		delete(kubeReserved, "cpu")
		if systemReserved == nil {
			systemReserved = map[string]string{}
		}
		systemReserved["cpu"] = strconv.Itoa(cpus.Size())
	}
	reserved := v1.ResourceList{}
	for _, list := range []map[string]string{kubeReserved, systemReserved} {
		for name, value := range list {
			switch v1.ResourceName(name) {
			case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage, pidlimit.PIDs:
			default:
				return fmt.Errorf("cannot reserve %q resource", name)
			}
			quantity, err := resource.ParseQuantity(value)
			if err != nil {
				return fmt.Errorf("failed to parse quantity of %q: %w", name, err)
			}
			if quantity.Sign() < 0 {
				return fmt.Errorf("resource quantity for %q cannot be negative", name)
			}
			quantity.Add(reserved[v1.ResourceName(name)])
			reserved[v1.ResourceName(name)] = quantity
		}
	}
	thresholds, err := eviction.ParseThresholdConfig([]string{}, kc.EvictionHard, nil, nil, nil)
	if err != nil {
		return err
	}
	for _, threshold := range thresholds {
		if threshold.Signal == evictionapi.SignalMemoryAvailable {
			value := evictionapi.GetThresholdQuantity(threshold.Value, resource.NewQuantity(8<<30, resource.BinarySI))
			value.Add(reserved[v1.ResourceMemory])
			reserved[v1.ResourceMemory] = *value
		}
	}
	if _, err := cm.ParseQOSReserved(kc.QOSReserved); err != nil {
		return err
	}
	for name, value := range reserved {
		if value.IsZero() {
			delete(reserved, name)
		}
	}
	options := kc.TopologyManagerPolicyOptions
	affinity, err := topologymanager.NewManager(machine.Topology, kc.TopologyManagerPolicy, kc.TopologyManagerScope, options)
	if err != nil {
		return err
	}
	// The state's directory is used when they are started.
	if _, err := cpumanager.NewManager(logr.Discard(), kc.CPUManagerPolicy, kc.CPUManagerPolicyOptions,
		kc.CPUManagerReconcilePeriod.Duration, &machine, cpus, reserved, "", affinity); err != nil {
		return err
	}
	_, err = memorymanager.NewManager(logr.Discard(), kc.MemoryManagerPolicy, &machine, reserved, kc.ReservedMemory, "", affinity)
	return err
}

// What NewMainKubelet (pkg/kubelet/kubelet.go) parses.
func runs(kc *kubeletconfig.KubeletConfiguration) error {
	if kc.SyncFrequency.Duration <= 0 {
		return errors.New("invalid sync frequency")
	}
	if _, err := eviction.ParseThresholdConfig(kc.EnforceNodeAllocatable, kc.EvictionHard, kc.EvictionSoft, kc.EvictionSoftGracePeriod, kc.EvictionMinimumReclaim); err != nil {
		return err
	}
	switch kc.ConfigMapAndSecretChangeDetectionStrategy {
	case kubeletconfig.WatchChangeDetectionStrategy, kubeletconfig.TTLCacheChangeDetectionStrategy, kubeletconfig.GetChangeDetectionStrategy:
	default:
		return errors.New("unknown configmap and secret manager mode")
	}
	if _, err := logs.NewContainerLogManager(nil, nil, kc.ContainerLogMaxSize, int(kc.ContainerLogMaxFiles), int(kc.ContainerLogMaxWorkers), kc.ContainerLogMonitorInterval); err != nil {
		return err
	}
	if _, err := sysctl.NewAllowlist(kc.AllowedUnsafeSysctls); err != nil {
		return err
	}
	var users *int64
	if kc.UserNamespaces != nil {
		users = kc.UserNamespaces.IDsPerPod
	}
	_, err := userns.MakeUserNsManager(logr.Discard(), pods{most: int(kc.MaxPods)}, users)
	return err
}

// A host without pods and without a user "kubelet": as getKubeletMappings in pkg/kubelet/kubelet_pods.go says.
type pods struct{ most int }

func (p pods) HandlerSupportsUserNamespaces(string) (bool, error) { return true, nil }
func (p pods) GetPodDir(types.UID) string                         { return "" }
func (p pods) ListPodsFromDisk() ([]types.UID, error)             { return nil, os.ErrNotExist }
func (p pods) GetMaxPods() int                                    { return p.most }
func (p pods) GetKubeletMappings(_ klog.Logger, each uint32) (uint32, uint32, error) {
	return each, uint32(1<<32 - uint64(each)), nil
}

// kubelet's flags, and then the Node that it registers, as the API server validates it.
func flags(q *question, kc *kubeletconfig.KubeletConfiguration) error {
	set := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	set.Usage = func() {}
	set.SetOutput(io.Discard)
	f := options.NewKubeletFlags()
	f.AddFlags(set)
	options.AddKubeletConfigFlags(set, kc)
	if err := set.Parse(q.Flags); err != nil {
		return err
	}
	if err := options.ValidateKubeletFlags(f); err != nil {
		return err
	}
	if f.NodeIP != "" {
		_, invalid, err := nodeutil.ParseNodeIPArgument(f.NodeIP, f.CloudProvider)
		if err != nil || len(invalid) > 0 {
			return fmt.Errorf("bad --node-ip: %v %v", invalid, err)
		}
	}
	node := v1.Node{}
	node.Name = q.Node
	node.Labels = map[string]string{"kubernetes.io/hostname": q.Node}
	for key, value := range f.NodeLabels {
		node.Labels[key] = value
	}
	node.Spec.Taints = kc.RegisterWithTaints
	internal := core.Node{}
	if err := corev1.Convert_v1_Node_To_core_Node(&node, &internal, nil); err != nil {
		return err
	}
	if errs := corevalidation.ValidateNode(&internal); len(errs) > 0 {
		var texts []string
		for _, err := range errs {
			texts = append(texts, err.Error())
		}
		return errors.New(strings.Join(texts, "; "))
	}
	return nil
}
