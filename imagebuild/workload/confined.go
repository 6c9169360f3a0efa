// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// As long as a packet that is dropped is waited for.
	unreachable = 3 * time.Second
	// No pod of this workload has more processes; a host has.
	mostPids = 4096
)

// finit_module(2), which package syscall does not name on every architecture.
var sysFinitModule = map[string]uintptr{"amd64": 313, "arm64": 273}

// confinement is the answer of confined: what the kernel says of this process, and what became of each attempt to
// leave the container; an attempt that succeeded reads "done".
type confinement struct {
	Seccomp  string            `json:"seccomp"`
	AppArmor string            `json:"apparmor"`
	Attempts map[string]string `json:"attempts"`
}

// confined tries what an ordinary pod must not be able to do. Only as the first process of a container: anywhere else
// the attempts would succeed.
func confined() error {
	if os.Getpid() != 1 {
		return errors.New("try to leave a container: this process is not the first one of any")
	}
	answer := confinement{
		Seccomp:  statusField("Seccomp"),
		AppArmor: firstLine("/proc/self/attr/current"),
		Attempts: map[string]string{
			"mount a file system":  outcome(mount()),
			"remount the root":     outcome(syscall.Mount("", "/", "", syscall.MS_REMOUNT|syscall.MS_BIND, "")),
			"load a module":        outcome(loadModule()),
			"trace a host process": outcome(traceHost()),
			"write sysrq-trigger":  outcome(openForWriting("/proc/sysrq-trigger")),
			"write core_pattern":   outcome(openForWriting("/proc/sys/kernel/core_pattern")),
			"join worker":          outcome(dial("unix", "/run/firstboot-network.sock")),
			"runtime":              outcome(dial("unix", "/run/containerd/containerd.sock")),
			"kubelet":              outcome(dial("tcp", net.JoinHostPort(os.Getenv("HOST_IP"), "10250"))),
		},
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode what was tried: %w", err)
	}
	lastWords(text)
	_, err = os.Stdout.Write(text)
	return err
}

// mount covers a directory of the container, and uncovers it again.
func mount() error {
	if err := syscall.Mount("none", "/dev", "tmpfs", 0, ""); err != nil {
		return err
	}
	return syscall.Unmount("/dev", syscall.MNT_DETACH)
}

func outcome(err error) string {
	var number syscall.Errno
	var timeout net.Error
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer"
	}
	return err.Error()
}

// loadModule hands the kernel a module that is none: a process that may load modules gets the error that it is no module.
func loadModule() error {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, _, number := syscall.Syscall(sysFinitModule[runtime.GOARCH], file.Fd(), 0, 0); number != 0 {
		return number
	}
	return nil
}

// traceHost looks for a process of the host among the numbers that it would have.
func traceHost() error {
	err := error(syscall.ESRCH)
	for pid := 2; pid < mostPids; pid++ {
		if pid == os.Getpid() || syscall.Kill(pid, 0) == syscall.ESRCH {
			continue
		}
		if _, own := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); own == nil {
			continue
		}
		if err = syscall.PtraceAttach(pid); err == nil {
			return syscall.PtraceDetach(pid)
		}
	}
	return err
}

func openForWriting(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		file.Close()
	}
	return err
}

func dial(network, address string) error {
	connection, err := net.DialTimeout(network, address, unreachable)
	if err == nil {
		connection.Close()
	}
	return err
}

func statusField(name string) string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimSpace(value)
		}
	}
	return "missing"
}

func firstLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\x00")
}
