package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// pauseBound is how long etcd's threads may take to stand still.
const pauseBound = 5 * time.Second

// etcdFault keeps a copy of what etcd holds, or goes back to it.
func etcdFault(ctx context.Context, p *progress, c *cluster, what string) error {
	switch what {
	case "save":
		return c.saveEtcd()
	case "restore":
		return c.restoreEtcd(ctx, p)
	default:
		return fmt.Errorf("no fault %q of etcd: say save or restore", what)
	}
}

func (c *cluster) etcdData() string { return c.Path("etcd") }

func (c *cluster) etcdCopy() string { return c.Path("etcd.saved") }

// saveEtcd copies etcd's files while it stands still: what it finds there later is what a process that was killed
// at this moment would have left, which it is made for.
func (c *cluster) saveEtcd() error {
	record := c.record(c.Etcd().Name)
	if err := record.Pause(pauseBound); err != nil {
		return errors.Join(err, record.Signal(syscall.SIGCONT))
	}
	return errors.Join(copyTree(c.etcdData(), c.etcdCopy()), record.Signal(syscall.SIGCONT))
}

// restoreEtcd goes back to the copy as Kubernetes' own instructions say: the API server stopped meanwhile, and all
// programs that remember what they saw of it started anew. What runs in pods is left alone.
func (c *cluster) restoreEtcd(ctx context.Context, p *progress) error {
	if _, err := os.Stat(c.etcdCopy()); err != nil {
		return fmt.Errorf("there is nothing to go back to: `cluster fault etcd save` comes first: %w", err)
	}
	watching := c.Controllers()
	for n := 1; n <= c.Nodes; n++ {
		watching = append(watching, c.Agents(n)...)
	}
	for _, processes := range [][]plan.Process{{c.APIServer()}, append(watching, c.Etcd())} {
		if err := c.stopAll(ctx, processes); err != nil {
			return err
		}
	}
	if err := copyTree(c.etcdCopy(), c.etcdData()); err != nil {
		return err
	}
	if err := c.launchAll([]plan.Process{c.Etcd(), c.APIServer()}); err != nil {
		return err
	}
	err := p.do(ctx, step{name: "API server answers", bound: apiBound, log: c.LogFile("apiserver"), run: c.apiReady})
	if err != nil {
		return err
	}
	for _, place := range c.Places() {
		if err := machine.ApplyRules(c.Netns(place), plan.NoServicesRules()); err != nil {
			return err
		}
	}
	return c.launchAll(watching)
}

func (c *cluster) stopAll(ctx context.Context, processes []plan.Process) error {
	var work []func(context.Context) error
	for _, process := range processes {
		work = append(work, func(context.Context) error { return c.record(process.Name).Stop(stopPatience, killBound) })
	}
	return together(ctx, work...)
}

// copyTree makes a directory a copy of another one.
func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("failed to remove an older copy: %w", err)
	}
	if said, err := exec.Command("cp", "-a", "--sparse=always", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("failed to copy %s: %w: %s", from, err, said)
	}
	return nil
}
