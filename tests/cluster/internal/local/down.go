package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// The bounds of taking away: a killed process may still be in the middle of a write.
const (
	killBound   = 20 * time.Second
	removeBound = 10 * time.Second
)

// down takes away everything that `up` made.
func down(p *progress, dir string) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	found, err := readState(dir)
	if err != nil {
		return err
	}
	if found == nil {
		found = &state{}
	}
	return clear(p, dir, found)
}

// clear removes a cluster in any condition: whole, half made, or half removed. It looks for all nodes that a
// cluster can have, whatever the state says, and goes on after a failure so that little is left.
func clear(p *progress, dir string, found *state) error {
	c, err := opened(dir, found)
	if err != nil {
		return err
	}
	widest := c.Cluster
	widest.Nodes = plan.MaxNodes
	present := c.state.HostPort != 0
	for _, group := range widest.Cgroups() {
		present = present || machine.CgroupExists(group)
	}
	for _, place := range widest.Places() {
		present = present || machine.NetnsExists(widest.Prefixed(place))
	}
	if !present {
		return nil
	}
	begun := time.Now()
	failures := []error{killAll(c, widest)}
	p.say("processes ended (%.1f s)", time.Since(begun).Seconds())
	for _, place := range widest.Places() {
		failures = append(failures, machine.RemoveNetns(widest.Prefixed(place)))
	}
	for _, group := range widest.Cgroups() {
		failures = append(failures, machine.RemoveCgroup(group, removeBound))
	}
	failures = append(failures, machine.WriteSettings(found.Settings))
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("not everything could be taken away; `cluster down` tries again: %w", err)
	}
	p.say("networks and cgroups removed")
	if err := removeDirectory(dir); err != nil {
		return err
	}
	p.say("%s removed", dir)
	return nil
}

// killAll ends the processes in the cgroups, all groups at once, then whatever was recorded and stands in none.
func killAll(c *cluster, widest plan.Cluster) error {
	var work []func(context.Context) error
	for _, group := range widest.Cgroups() {
		work = append(work, func(context.Context) error { return machine.KillCgroup(group, killBound) })
	}
	failures := []error{together(context.Background(), work...)}
	records, err := filepath.Glob(c.recordFile("*"))
	failures = append(failures, err)
	for _, file := range records {
		record, err := machine.ReadRecord(file)
		if err == nil {
			err = record.Stop(0, killBound)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

// removeDirectory removes the cluster's directory, its state file last, and nothing that is mounted below it.
func removeDirectory(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("failed to list the cluster's directory: %w", err)
	}
	for _, entry := range entries {
		if file := filepath.Join(dir, entry.Name()); file != stateFile(dir) {
			if err := os.RemoveAll(file); err != nil {
				return fmt.Errorf("failed to remove the cluster's files: %w", err)
			}
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("failed to remove the cluster's directory: %w", err)
	}
	return nil
}

// unmountBelow ends mounts below a directory. The cluster makes none in the host's mount namespace; a person may
// have, and then their data must not be removed with it.
func unmountBelow(dir string) error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("failed to list the mounts: %w", err)
	}
	defer mounts.Close()
	scanner := bufio.NewScanner(mounts)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		const mountPoint = 4
		if len(fields) > mountPoint && strings.HasPrefix(fields[mountPoint], dir+"/") {
			if err := syscall.Unmount(fields[mountPoint], 0); err != nil {
				return fmt.Errorf("failed to unmount %s: %w", fields[mountPoint], err)
			}
		}
	}
	return scanner.Err()
}
