// SPDX-License-Identifier: Apache-2.0

// Command demo is the workload that proves a node: `serve` answers HTTP on port 8080 with the names of its pod and
// node, `fetch URL` asks such a server by its Service name and reports what came, `confined` tries to leave its container
// and reports what stopped it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	address = ":8080"
	// Where Kubernetes reads a pod's last words.
	terminationLog = "/dev/termination-log"
	// How long fetch tries in all unless it is given a time, and how long a single attempt may take. The server and DNS may
	// start long after it on a slow device.
	patience = 10 * time.Minute
	attempt  = 5 * time.Second
	pause    = 500 * time.Millisecond
)

// identity is the answer of serve. Both names come from the downward API.
type identity struct {
	Pod  string `json:"pod"`
	Node string `json:"node"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		lastWords([]byte(err.Error()))
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case len(args) == 1 && args[0] == "serve":
		return serve(ctx)
	case len(args) == 2 && args[0] == "fetch":
		return fetch(ctx, args[1], patience)
	case len(args) == 3 && args[0] == "fetch":
		limit, err := time.ParseDuration(args[2])
		if err != nil {
			return fmt.Errorf("read how long fetch tries: %w", err)
		}
		return fetch(ctx, args[1], limit)
	case len(args) == 1 && args[0] == "confined":
		return confined()
	}
	return fmt.Errorf("usage: demo serve | demo fetch URL [DURATION] | demo confined")
}

func serve(ctx context.Context) error {
	me := identity{Pod: os.Getenv("POD_NAME"), Node: os.Getenv("NODE_NAME")}
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(me); err != nil {
			log.Printf("answer %s: %v", r.RemoteAddr, err)
		}
	}
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: attempt}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Printf("pod %s on node %s answers on %s", me.Pod, me.Node, address)
	select {
	case err := <-failed:
		return fmt.Errorf("listen on %s: %w", address, err)
	case <-ctx.Done():
		return server.Shutdown(context.Background())
	}
}

// fetch asks until it gets an answer of status 200 or the limit has passed; the last failure is the error.
func fetch(ctx context.Context, url string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		body, err := get(ctx, url)
		if err == nil {
			lastWords(body)
			_, err = os.Stdout.Write(body)
			return err
		}
		// What ended the wait is not what was wrong before.
		if ctx.Err() == nil || last == nil {
			last = err
			log.Print(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %w", limit, last)
		case <-time.After(pause):
		}
	}
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, answer.Status)
	}
	return body, nil
}

func lastWords(text []byte) {
	// Outside of a pod there is no such file, and no program reads it.
	if file, err := os.OpenFile(terminationLog, os.O_WRONLY|os.O_TRUNC, 0); err == nil {
		defer file.Close()
		_, _ = file.Write(text)
	}
}
