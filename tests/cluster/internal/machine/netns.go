// Package machine does to this machine what the cluster needs: network namespaces, cgroups, mounts, processes.
//
// Everything it makes has a name given by the caller and can be found and removed by that name alone; nothing is
// ever found by the name of a program. Deliberately absent: what a cluster is (package plan) and in which order
// it comes up (package local).
package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// InNetns runs work with the calling thread inside a network namespace. Sockets that work opens stay there, and so
// do programs that it starts.
func InNetns(file string, work func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("failed to open the own network namespace: %w", err)
	}
	defer unix.Close(home)
	if err := EnterNetns(file); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	failed := work()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked and ends with its goroutine: nobody else may run in the wrong namespace.
		return fmt.Errorf("failed to return from the network namespace %s: %w", file, err)
	}
	runtime.UnlockOSThread()
	return failed
}

// EnterNetns moves the calling thread into a network namespace for good.
func EnterNetns(file string) error {
	namespace, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("failed to open the network namespace %s: %w", file, err)
	}
	defer unix.Close(namespace)
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("failed to enter the network namespace %s: %w", file, err)
	}
	return nil
}

// MakeNetns makes a named network namespace with its loopback unset, as `ip netns` does.
func MakeNetns(name string) error { return run("", "ip", "netns", "add", name) }

// NetnsExists says whether a named network namespace is there.
func NetnsExists(name string) bool {
	_, err := os.Stat(filepath.Join("/run/netns", name))
	return err == nil
}

// RemoveNetns removes a named network namespace, if it is there.
func RemoveNetns(name string) error {
	if !NetnsExists(name) {
		return nil
	}
	return run("", "ip", "netns", "delete", name)
}

// ConfigureLinks runs `ip -batch` lines in a named network namespace.
func ConfigureLinks(name, lines string) error { return run(lines, "ip", "-n", name, "-batch", "-") }

// RemoveLinks removes every link of a named network namespace but some.
func RemoveLinks(name string, kept ...string) error {
	said, err := exec.Command("ip", "-n", name, "-json", "link", "show").Output()
	if err != nil {
		return fmt.Errorf("failed to list the links of the network namespace %s: %w", name, err)
	}
	var links []struct {
		Name string `json:"ifname"`
	}
	if err := json.Unmarshal(said, &links); err != nil {
		return fmt.Errorf("failed to read the links of the network namespace %s: %w", name, err)
	}
	for _, link := range links {
		if slices.Contains(kept, link.Name) {
			continue
		}
		// The kernel removes a dead pod's link by itself, maybe at this moment.
		if err := run("", "ip", "-n", name, "link", "delete", link.Name); err != nil && !strings.Contains(err.Error(), "Cannot find device") {
			return err
		}
	}
	return nil
}

// ApplyRules runs nftables commands in the network namespace of a file, all or none.
func ApplyRules(file, rules string) error {
	return InNetns(file, func() error { return run(rules, "nft", "-f", "-") })
}

// RulesPresent says whether an nftables table exists in the network namespace of a file.
func RulesPresent(file, table string) bool {
	return InNetns(file, func() error { return run("", "nft", "list", "table", "inet", table) }) == nil
}

// AllowForwarding lets a network namespace route between its links.
func AllowForwarding(file string) error {
	return InNetns(file, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	})
}

// run runs a program to its end; what it said on failure is part of the error.
func run(input, program string, args ...string) error {
	command := exec.Command(program, args...)
	command.Stdin = strings.NewReader(input)
	said, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("failed to run %s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(said))
	}
	return nil
}
