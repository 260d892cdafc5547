package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Entry says where a program is to run.
type Entry struct {
	// Netns is the file of its network namespace.
	Netns string
	// Cgroup is the cgroup it joins.
	Cgroup string
	// MountsOf is the process whose mounts it shares; 0 for none.
	MountsOf int
	// PrivateMounts are made in a mount namespace of its own; nil for none.
	PrivateMounts func() error
}

// Become replaces this process by a program at the place of the entry. It returns only on failure.
func Become(entry Entry, args []string) error {
	// Namespaces belong to the thread; the thread that calls exec is the one that survives it.
	runtime.LockOSThread()
	if err := JoinCgroup(entry.Cgroup); err != nil {
		return err
	}
	if err := EnterNetns(entry.Netns); err != nil {
		return err
	}
	if entry.MountsOf != 0 {
		if err := enterMounts(entry.MountsOf); err != nil {
			return err
		}
	}
	if entry.PrivateMounts != nil {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("failed to make a mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("failed to detach the mounts from the host's: %w", err)
		}
		if err := entry.PrivateMounts(); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("failed to find the program: %w", err)
	}
	return fmt.Errorf("failed to run %s: %w", program, syscall.Exec(program, args, os.Environ()))
}

func enterMounts(pid int) error {
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("failed to open the mounts of process %d: %w", pid, err)
	}
	defer unix.Close(namespace)
	// A thread that shares its working directory with others may not change its mounts.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("failed to separate the thread's directory: %w", err)
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("failed to enter the mounts of process %d: %w", pid, err)
	}
	return nil
}

// HiddenDirectories are those of the host that a node covers with empty ones of its own, so that the kubelets, the
// runtimes and their plug-ins, which write below them whatever they are told, neither meet each other nor leave
// anything behind.
var HiddenDirectories = []string{"/run", "/var/lib", "/var/log"}

// NodeMounts makes what a node must not share with the host or another node. logs is where its container logs
// are kept. Mounts below it propagate, as on a machine of its own.
func NodeMounts(logs string) error {
	const containerLogs = "/var/log/containers"
	for _, directory := range HiddenDirectories {
		if err := mountTmpfs(directory); err != nil {
			return err
		}
	}
	for _, directory := range []string{"/run/netns", containerLogs} {
		if err := os.Mkdir(directory, 0o755); err != nil {
			return fmt.Errorf("failed to make a directory of the node: %w", err)
		}
	}
	if err := unix.Mount(logs, containerLogs, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("failed to mount the node's container logs: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("failed to let the node's mounts propagate: %w", err)
	}
	return nil
}

// ResolverMounts gives a command its own /etc/resolv.conf, with this content. scratch is any directory.
func ResolverMounts(scratch, content string) error {
	if err := mountTmpfs(scratch); err != nil {
		return fmt.Errorf("failed to mount over %s: %w", scratch, err)
	}
	file := filepath.Join(scratch, "resolv.conf")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		return fmt.Errorf("failed to write the resolver's file: %w", err)
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return fmt.Errorf("failed to find the resolver's file: %w", err)
	}
	if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("failed to mount over %s: %w", target, err)
	}
	return nil
}

func mountTmpfs(target string) error {
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("failed to mount %s: %w", target, err)
	}
	return nil
}
