// SPDX-License-Identifier: Apache-2.0

// Reads directories of registries with containerd's own code, and says which hosts it would pull from.
//
// Standard input has one JSON object a line (type question), standard output one answer a line, in the same order.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/log"
)

type question struct {
	// Directory with one directory for each registry.
	Root string `json:"root"`
	// Registry, as in the name of an image.
	Registry string `json:"registry"`
}

type host struct {
	URL    string              `json:"url"`
	Pull   bool                `json:"pull"`
	Push   bool                `json:"push"`
	Header map[string][]string `json:"header,omitempty"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	Hosts []host `json:"hosts,omitempty"`
}

func main() {
	log.L.Logger.SetOutput(io.Discard)
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			fmt.Fprintln(os.Stderr, "read a question:", err)
			os.Exit(1)
		}
		if err := out.Encode(judge(&q)); err != nil {
			fmt.Fprintln(os.Stderr, "write an answer:", err)
			os.Exit(1)
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "read questions:", err)
		os.Exit(1)
	}
}

func judge(q *question) answer {
	options := config.HostOptions{HostDir: config.HostDirFromRoot(q.Root)}
	found, err := config.ConfigureHosts(context.Background(), options)(q.Registry)
	if err != nil {
		return answer{Error: err.Error()}
	}
	var a answer
	for _, h := range found {
		a.Hosts = append(a.Hosts, host{
			URL:    h.Scheme + "://" + h.Host + h.Path,
			Pull:   h.Capabilities.Has(docker.HostCapabilityPull | docker.HostCapabilityResolve),
			Push:   h.Capabilities.Has(docker.HostCapabilityPush),
			Header: h.Header,
		})
	}
	return a
}
