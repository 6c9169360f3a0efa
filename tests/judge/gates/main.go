// SPDX-License-Identifier: Apache-2.0

// Prints the feature gates that this version of kubelet knows, one a line, sorted: NAME, its default "on" or "off" with
// a "!" where it cannot be changed, and the gates that must be on where it is on.
package main

import (
	"fmt"
	"os"
	"slices"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/kubernetes/pkg/features" // registers the gates
)

func main() {
	gates := utilfeature.DefaultMutableFeatureGate
	// As cmd/kubelet does.
	if err := logsapi.AddFeatureGates(gates); err != nil {
		fmt.Fprintln(os.Stderr, "add feature gates:", err)
		os.Exit(1)
	}
	var lines []string
	for name, spec := range gates.GetAll() {
		if spec.PreRelease == featuregate.PreAlpha {
			continue
		}
		line := string(name) + " off"
		if spec.Default {
			line = string(name) + " on"
		}
		if spec.LockToDefault {
			line += "!"
		}
		needs := slices.Sorted(slices.Values(gates.Dependencies()[name]))
		for _, need := range needs {
			line += " " + string(need)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
}
