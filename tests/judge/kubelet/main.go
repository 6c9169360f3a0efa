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
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"golang.org/x/net/http/httpproxy"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
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
	"k8s.io/kubernetes/pkg/kubelet/eviction"
	utilcodec "k8s.io/kubernetes/pkg/kubelet/kubeletconfig/util/codec"
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
	gates := utilfeature.DefaultMutableFeatureGate.DeepCopy()
	if err := gates.SetFromMap(kc.FeatureGates); err != nil {
		return err
	}
	if errs := logsapi.Validate(&kc.Logging, gates, field.NewPath("logging")); len(errs) > 0 {
		return errs.ToAggregate()
	}
	if err := kubeletvalidation.ValidateKubeletConfiguration(kc, gates); err != nil {
		return err
	}
	if _, err := eviction.ParseThresholdConfig(kc.EnforceNodeAllocatable, kc.EvictionHard, kc.EvictionSoft, kc.EvictionSoftGracePeriod, kc.EvictionMinimumReclaim); err != nil {
		return err
	}
	for _, list := range []map[string]string{kc.KubeReserved, kc.SystemReserved} {
		for name, value := range list {
			switch v1.ResourceName(name) {
			case v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage, "pid":
			default:
				return fmt.Errorf("cannot reserve %q resource", name)
			}
			if quantity, err := resource.ParseQuantity(value); err != nil {
				return fmt.Errorf("failed to parse quantity of %q: %w", name, err)
			} else if quantity.Sign() < 0 {
				return fmt.Errorf("resource quantity for %q cannot be negative", name)
			}
		}
	}
	return nil
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
