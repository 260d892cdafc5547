package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// The bounds of the steps of `up`. A quiet machine needs a tenth of each; they allow for cores that compile
// something else at the same time.
const (
	apiBound      = 120 * time.Second
	runtimeBound  = 90 * time.Second
	imageBound    = 180 * time.Second
	addonsBound   = 90 * time.Second
	nodesBound    = 180 * time.Second
	dnsBound      = 60 * time.Second
	localBound    = 60 * time.Second
	firstHostPort = 16443
	hostPortTries = 50
)

// inotifyInstances replaces the default of 128, which several kubelets and their containers exhaust.
const inotifyInstances = "1024"

// requirements are the Debian programs that the cluster is made of, and the packages that have them.
var requirements = map[string]string{
	"etcd": "etcd-server", "containerd": "containerd", "ctr": "containerd", "runc": "runc", "ip": "iproute2",
	"nft": "nftables", "conntrack": "conntrack", "/usr/lib/cni/ptp": "containernetworking-plugins",
	"/usr/lib/cni/host-local": "containernetworking-plugins", "/usr/lib/cni/loopback": "containernetworking-plugins",
}

// up makes the cluster, or completes what is missing of one that runs.
func up(ctx context.Context, p *progress, dir string, nodes int, images []string) error {
	if nodes < 1 || nodes > plan.MaxNodes {
		return fmt.Errorf("--nodes %d: say 1 to %d", nodes, plan.MaxNodes)
	}
	if err := checkImages(images); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := adopt(p, dir, nodes)
	if err != nil {
		return err
	}
	if err := errors.Join(checkVisible(c.Dir), checkVisible(c.Bin), checkRequirements(c.Bin)); err != nil {
		return err
	}
	if !c.alive() {
		if err := p.do(ctx, step{name: "files, keys and network made", bound: localBound, run: c.prepare}); err != nil {
			return err
		}
	}
	if err := c.start(ctx, p, images); err != nil {
		return err
	}
	c.state.Complete = true
	return writeState(c.Dir, c.state)
}

// adopt decides between going on with what is there and beginning anew.
func adopt(p *progress, dir string, nodes int) (*cluster, error) {
	found, err := readState(dir)
	if err != nil {
		return nil, err
	}
	if found == nil {
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			return nil, fmt.Errorf("%s is not empty and holds no cluster: name another --dir", dir)
		}
		found = &state{Nodes: nodes}
	}
	c, err := opened(dir, found)
	if err != nil {
		return nil, err
	}
	if c.alive() {
		if c.Nodes != nodes {
			return nil, fmt.Errorf("the cluster in %s has %d nodes, not %d: run `cluster down` first", dir, c.Nodes, nodes)
		}
		p.say("the cluster in %s runs; what is missing is completed", dir)
		return c, nil
	}
	if err := clear(p, dir, found); err != nil {
		return nil, err
	}
	return opened(dir, &state{Nodes: nodes})
}

// checkVisible refuses a directory that the nodes could not see.
func checkVisible(dir string) error {
	for _, hidden := range machine.HiddenDirectories {
		if dir == hidden || strings.HasPrefix(dir, hidden+"/") {
			return fmt.Errorf("%s cannot be used: every node covers %s with one of its own", dir, hidden)
		}
	}
	return nil
}

func checkRequirements(bin string) error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and cgroups need root: run it as root")
	}
	var failures []error
	for program, pack := range requirements {
		if _, err := exec.LookPath(program); err != nil {
			failures = append(failures, fmt.Errorf("%s is missing (Debian package %s)", program, pack))
		}
	}
	for _, name := range []string{"cluster", "coredns", "pause"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			failures = append(failures, fmt.Errorf("%s is missing in %s", name, bin))
		}
	}
	if len(failures) > 0 {
		return fmt.Errorf("run tests/cluster/build, which installs and builds what is missing:\n%w", errors.Join(failures...))
	}
	return nil
}

// prepare makes everything that is not a process.
func (c *cluster) prepare(context.Context, func(error)) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return fmt.Errorf("failed to make the cluster's directory: %w", err)
	}
	if err := c.choosePort(); err != nil {
		return err
	}
	if err := c.changeMachine(); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	return c.makeNetwork()
}

// choosePort takes the first free loopback port, so that a second cluster finds one too.
func (c *cluster) choosePort() error {
	for port := firstHostPort; port < firstHostPort+hostPortTries; port++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		listener.Close()
		c.HostPort, c.state.HostPort = port, port
		return nil
	}
	return fmt.Errorf("no loopback port from %d to %d is free", firstHostPort, firstHostPort+hostPortTries-1)
}

// changeMachine does the few things that are not inside a namespace, and remembers how it was before.
func (c *cluster) changeMachine() error {
	var err error
	if c.state.Settings, err = machine.ReadSettings(machine.ChangedSettings); err != nil {
		return err
	}
	if err := writeState(c.Dir, c.state); err != nil {
		return err
	}
	if err := machine.WriteSettings(map[string]string{"fs/inotify/max_user_instances": inotifyInstances}); err != nil {
		return err
	}
	for _, group := range c.Cgroups() {
		if err := machine.MakeCgroup(group); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) makeNetwork() error {
	for _, place := range c.Places() {
		if err := machine.MakeNetns(c.Prefixed(place)); err != nil {
			return err
		}
	}
	centre := c.Prefixed(plan.ControlPlane)
	if err := machine.ConfigureLinks(centre, plan.CentreLinks()); err != nil {
		return err
	}
	for _, place := range c.Places()[1:] {
		if err := machine.ConfigureLinks(centre, c.Attach(place)); err != nil {
			return err
		}
		if err := machine.ConfigureLinks(c.Prefixed(place), c.PlaceLinks(place)); err != nil {
			return err
		}
		if err := machine.AllowForwarding(c.Netns(place)); err != nil {
			return fmt.Errorf("failed to let %s route: %w", place, err)
		}
	}
	return nil
}
