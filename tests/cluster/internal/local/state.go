// Package local brings the cluster of package plan up on this machine, breaks it on request, and takes it away.
//
// The flow of `up`: clear what a killed run left, write all files, make the network, then start the parts, each
// as soon as what it needs answers. Whether a process runs is asked of the kernel, never remembered.
//
// Invariants: every process of the cluster stands in one of the cluster's cgroups before it runs its own code, so
// `down` finds it there whatever became of the tool; cluster.json is written before anything that has to be taken
// away again and removed last.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// state is what the tool remembers of a cluster between two commands (cluster.json).
type state struct {
	// Nodes counts the nodes.
	Nodes int `json:"nodes"`
	// HostPort is the loopback port of the API server.
	HostPort int `json:"hostPort"`
	// Complete says that `up` once came to its end.
	Complete bool `json:"complete"`
	// Settings are the machine's settings before the cluster.
	Settings map[string]string `json:"settings"`
}

func stateFile(dir string) string { return filepath.Join(dir, "cluster.json") }

// readState reads the state of the cluster in dir; nil if there is none.
func readState(dir string) (*state, error) {
	content, err := os.ReadFile(stateFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var found state
	if err == nil {
		err = json.Unmarshal(content, &found)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to read the state of the cluster: %w", err)
	}
	return &found, nil
}

func writeState(dir string, now *state) error {
	content, err := json.MarshalIndent(now, "", "  ")
	if err != nil {
		return fmt.Errorf("failed to encode the state of the cluster: %w", err)
	}
	temporary := stateFile(dir) + ".new"
	if err := os.WriteFile(temporary, content, 0o644); err != nil {
		return fmt.Errorf("failed to write the state of the cluster: %w", err)
	}
	return os.Rename(temporary, stateFile(dir))
}

// cluster is the plan together with what is known of it on this machine.
type cluster struct {
	plan.Cluster
	state *state
	// launched has, by name, when this run started a kubelet; what is known of its node from before is stale.
	launched map[string]time.Time
}

// binaries is the directory of this program, where its companions lie too.
func binaries() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fmt.Errorf("failed to find this program's own file: %w", err)
	}
	return filepath.Dir(self), nil
}

// open finds the cluster in dir; it fails if there is none.
func open(dir string) (*cluster, error) {
	found, err := readState(dir)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("no cluster in %s: run `cluster up`", dir)
	}
	return opened(dir, found)
}

func opened(dir string, found *state) (*cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: plan.Cluster{Dir: dir, Bin: bin, Nodes: found.Nodes, HostPort: found.HostPort},
		state: found, launched: map[string]time.Time{}}, nil
}

func (c *cluster) recordFile(process string) string { return c.Path("pids", process+".json") }

// record is what is known of a process of the cluster; nothing known is a process that is gone.
func (c *cluster) record(process string) machine.Record {
	found, err := machine.ReadRecord(c.recordFile(process))
	if err != nil {
		return machine.Record{}
	}
	return found
}

// alive says whether the cluster can be gone on with: its network is there and its memory (etcd) runs. Anything
// less is the rest of a killed run, or of the time before a reboot.
func (c *cluster) alive() bool {
	return c.state.Complete && machine.NetnsExists(c.Prefixed(plan.ControlPlane)) &&
		c.record(c.Etcd().Name).State() != machine.Gone
}

// lock keeps a second up or down away; it is released with the returned function, and with the process.
func lock(dir string) (func(), error) {
	name := dir + ".lock"
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("failed to make the directory above %s: %w", dir, err)
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("failed to open the lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("another `cluster up` or `down` works on %s", dir)
	}
	return func() { os.Remove(name); file.Close() }, nil
}
