package local

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
	"understudy.dev/tests/cluster/internal/provision"
)

// mounter mounts volumes where a node sees them: in the mounts of its container runtime, which end with it.
type mounter struct{ c *cluster }

// Mount implements provision.Mounter.
func (m mounter) Mount(node, image, path string) error {
	n, err := m.c.NodeNumber(node)
	if err != nil {
		return err
	}
	if err := m.c.onNode(n, "mount", "-o", "loop", image, path); err != nil {
		return err
	}
	return m.c.onNode(n, "chmod", "0777", path)
}

// Unmount implements provision.Mounter.
func (m mounter) Unmount(node, path string) error {
	n, err := m.c.NodeNumber(node)
	if err != nil {
		return err
	}
	mounted, err := m.c.mounted(n, path)
	if err != nil || !mounted {
		return err
	}
	return m.c.onNode(n, "umount", path)
}

// mountVolumes gives a node whose power is back the file systems of its volumes.
func (c *cluster) mountVolumes(n int) error {
	images, err := filepath.Glob(c.NodePath(n, "volumes", provision.Image("*")))
	if err != nil {
		return fmt.Errorf("failed to list the volumes of the node: %w", err)
	}
	for _, image := range images {
		path := strings.TrimSuffix(image, provision.Image(""))
		if err := (mounter{c}).Mount(plan.NodeName(n), image, path); err != nil {
			return err
		}
	}
	return nil
}

// onNode runs a command of this machine with a node's mounts.
func (c *cluster) onNode(n int, args ...string) error {
	process := c.Runtime(n)
	holder := c.record(process.Name)
	if holder.State() == machine.Gone {
		return fmt.Errorf("node %d is off", n)
	}
	enter := []string{"enter", "--dir", c.Dir, "--place", process.Place, "--cgroup", process.Cgroup,
		"--mounts-of", fmt.Sprint(holder.PID), "--"}
	if said, err := exec.Command(c.selfPath(), append(enter, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("failed to run %s on node %d: %w: %s", args[0], n, err, said)
	}
	return nil
}

// mounted says whether a node sees a mount at path; a node that is off sees none.
func (c *cluster) mounted(n int, path string) (bool, error) {
	holder := c.record(c.Runtime(n).Name)
	if holder.State() == machine.Gone {
		return false, nil
	}
	mounts, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", holder.PID))
	if err != nil {
		return false, fmt.Errorf("failed to list the mounts of the node: %w", err)
	}
	defer mounts.Close()
	scanner := bufio.NewScanner(mounts)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		const mountPoint = 4
		if len(fields) > mountPoint && fields[mountPoint] == path {
			return true, nil
		}
	}
	return false, scanner.Err()
}
