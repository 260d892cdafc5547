package machine

import (
	"errors"
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

// NodeMounts makes what a node must not share with the host or another node: /run, the CNI cache, and the
// directory of container logs, which lies below logs. Mounts below it propagate, as on a machine of its own.
func NodeMounts(logs string) error {
	mounts := []func() error{
		func() error { return mountTmpfs("/run") },
		func() error { return os.MkdirAll("/run/netns", 0o755) },
		func() error { return mountTmpfs("/var/lib/cni") },
		func() error { return unix.Mount(logs, "/var/log/containers", "", unix.MS_BIND, "") },
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") },
	}
	for _, mount := range mounts {
		if err := mount(); err != nil {
			return fmt.Errorf("failed to make the node's mounts: %w", err)
		}
	}
	return nil
}

// SharedDirectories are directories of the host over which every node mounts its own; the host must have them.
var SharedDirectories = []string{"/var/lib/cni", "/var/log/containers"}

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

// MakeDirectories makes the directories that are missing and lists them, for later removal.
func MakeDirectories(wanted []string) ([]string, error) {
	var made []string
	for _, directory := range wanted {
		err := os.Mkdir(directory, 0o755)
		if err == nil {
			made = append(made, directory)
		} else if !errors.Is(err, os.ErrExist) {
			return made, fmt.Errorf("failed to make %s: %w", directory, err)
		}
	}
	return made, nil
}
