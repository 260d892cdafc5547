package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// unifiedCgroups says whether this machine has cgroup v2 alone; else every controller has a tree of its own.
func unifiedCgroups() bool {
	_, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers"))
	return err == nil
}

// cgroupTrees are the roots of all cgroup hierarchies, on a machine of both kinds that of v2 included: runc leaves
// groups there too.
func cgroupTrees() ([]string, error) {
	if unifiedCgroups() {
		return []string{cgroupMount}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, fmt.Errorf("failed to list the cgroup controllers: %w", err)
	}
	var trees []string
	for _, entry := range entries {
		// Symbolic links (cpu,cpuacct of some systems) lead to trees that are in the list already.
		if entry.IsDir() {
			trees = append(trees, filepath.Join(cgroupMount, entry.Name()))
		}
	}
	return trees, nil
}

// MakeCgroup makes a cgroup below the root, in every hierarchy. A node's kubelet puts its pods below it; the
// processes that are not pods go into its child `system`.
func MakeCgroup(name string) error {
	trees, err := cgroupTrees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		directory := filepath.Join(tree, name)
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return fmt.Errorf("failed to make the cgroup %s: %w", directory, err)
		}
		switch {
		case unifiedCgroups():
			err = errors.Join(enableControllers(tree), enableControllers(directory))
		case filepath.Base(tree) == "cpuset":
			// A v1 cpuset takes no process before both files are set.
			err = errors.Join(copyFile(tree, directory, "cpuset.cpus"), copyFile(tree, directory, "cpuset.mems"))
		default:
		}
		if err != nil {
			return fmt.Errorf("failed to set up the cgroup %s: %w", directory, err)
		}
	}
	return os.MkdirAll(systemCgroup(name), 0o755)
}

func enableControllers(directory string) error {
	available, err := os.ReadFile(filepath.Join(directory, "cgroup.controllers"))
	if err != nil {
		return err
	}
	wanted := ""
	for _, controller := range strings.Fields(string(available)) {
		wanted += "+" + controller + " "
	}
	return os.WriteFile(filepath.Join(directory, "cgroup.subtree_control"), []byte(wanted), 0o644)
}

func copyFile(from, to, name string) error {
	value, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, name), value, 0o644)
}

// systemCgroup is where processes that are not pods stand. Under v1 one hierarchy is enough: it is there to
// find them all again, not to limit them.
func systemCgroup(name string) string {
	if unifiedCgroups() {
		return filepath.Join(cgroupMount, name, "system")
	}
	return filepath.Join(cgroupMount, "pids", name, "system")
}

// JoinCgroup moves the calling process into the system part of a cgroup.
func JoinCgroup(name string) error {
	if err := os.WriteFile(filepath.Join(systemCgroup(name), "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("failed to enter the cgroup %s: %w", name, err)
	}
	return nil
}

// walkCgroup visits a cgroup and all below it, children first, in every hierarchy.
func walkCgroup(name string, visit func(directory string) error) error {
	trees, err := cgroupTrees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		var directories []string
		err := filepath.WalkDir(filepath.Join(tree, name), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				directories = append(directories, path)
			}
			return err
		})
		if err != nil {
			return err
		}
		slices.Reverse(directories)
		for _, directory := range directories {
			if err := visit(directory); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// CgroupExists says whether a cgroup is there in any hierarchy.
func CgroupExists(name string) bool {
	found := false
	_ = walkCgroup(name, func(string) error { found = true; return nil })
	return found
}

// CgroupProcesses lists every process in a cgroup and below it.
func CgroupProcesses(name string) ([]int, error) {
	var list []int
	err := walkCgroup(name, func(directory string) error {
		content, err := os.ReadFile(filepath.Join(directory, "cgroup.procs"))
		if errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
			return nil
		}
		for _, field := range strings.Fields(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				list = append(list, pid)
			}
		}
		return err
	})
	slices.Sort(list)
	return slices.Compact(list), err
}

// KillCgroup ends every process in a cgroup, those included that are born meanwhile, and returns when none is
// left.
func KillCgroup(name string, bound time.Duration) error {
	deadline := time.Now().Add(bound)
	for {
		processes, err := CgroupProcesses(name)
		if err != nil {
			return fmt.Errorf("failed to list the processes of the cgroup %s: %w", name, err)
		}
		if len(processes) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of the cgroup %s are still there %s after SIGKILL", processes, name, bound)
		}
		for _, pid := range processes {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(pollInterval)
	}
}

// RemoveCgroup removes an empty cgroup and all below it.
func RemoveCgroup(name string, bound time.Duration) error {
	deadline := time.Now().Add(bound)
	for {
		err := walkCgroup(name, func(directory string) error { return os.Remove(directory) })
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pollInterval)
	}
}
