package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// stopPatience is how long the API server may take to end by itself before it is killed.
const stopPatience = 5 * time.Second

// partition cuts a node from others, by rules in its own network namespace.
func partition(c *cluster, node string, cut plan.Cut) error {
	n, err := c.NodeNumber(node)
	if err != nil {
		return err
	}
	rules, err := c.CutRules(n, cut)
	if err != nil {
		return err
	}
	return machine.ApplyRules(c.Netns(plan.NodeName(n)), rules)
}

// heal ends a node's partition.
func heal(c *cluster, node string) error {
	n, err := c.NodeNumber(node)
	if err != nil {
		return err
	}
	return machine.ApplyRules(c.Netns(plan.NodeName(n)), plan.HealRules(plan.CutTable))
}

// healAll ends every partition, and lets a paused API server go on when it is launched.
func (c *cluster) healAll() error {
	for n := 1; n <= c.Nodes; n++ {
		if err := heal(c, plan.NodeName(n)); err != nil {
			return err
		}
	}
	return nil
}

// off says whether a node has no power: its runtime holds its mounts, and without it there is no node.
func (c *cluster) off(n int) bool { return c.record(c.Runtime(n).Name).State() == machine.Gone }

// nodeOff takes a node's power: first nothing leaves it any more, then everything on it dies at once.
func nodeOff(c *cluster, node string) error {
	n, err := c.NodeNumber(node)
	if err != nil {
		return err
	}
	if err := machine.ApplyRules(c.Netns(plan.NodeName(n)), plan.OffRules()); err != nil {
		return err
	}
	return machine.KillCgroup(c.Prefixed(plan.NodeName(n)), killBound)
}

// powerCycle puts a node that is off into the condition of a machine that boots: no process, no address given to
// a pod, no pod's link or rule left in its kernel, and a network that works. A dead pod's link would hold the route
// to the address that its successor gets, until the kernel has removed it: the successor would have none.
func (c *cluster) powerCycle(n int) error {
	if err := machine.KillCgroup(c.Prefixed(plan.NodeName(n)), killBound); err != nil {
		return err
	}
	if err := os.RemoveAll(c.NodePath(n, "addresses")); err != nil {
		return fmt.Errorf("failed to forget the addresses of the node's pods: %w", err)
	}
	if err := machine.RemoveLinks(c.Prefixed(plan.NodeName(n)), "lo", "eth0"); err != nil {
		return err
	}
	return machine.ApplyRules(c.Netns(plan.NodeName(n)), plan.BootRules()+plan.HealRules(plan.OffTable))
}

// nodeOn gives a node its power back and returns when its runtime answers; the kubelet then restarts its pods.
func nodeOn(ctx context.Context, p *progress, c *cluster, node string) error {
	n, err := c.NodeNumber(node)
	if err != nil {
		return err
	}
	if err := c.startRuntime(ctx, p, n, nil); err != nil {
		return err
	}
	return c.launchAll(c.Agents(n))
}

// apiServerFault stops, starts, pauses or resumes the API server.
func apiServerFault(c *cluster, what string) error {
	record := c.record(c.APIServer().Name)
	switch what {
	case "stop":
		return record.Stop(stopPatience, killBound)
	case "start":
		return c.launch(c.APIServer())
	case "pause":
		return record.Signal(syscall.SIGSTOP)
	case "resume":
		if record.State() == machine.Gone {
			return errors.New("the API server is stopped, not paused: `cluster fault apiserver start`")
		}
		return record.Signal(syscall.SIGCONT)
	default:
		return fmt.Errorf("no fault %q of the API server: say stop, start, pause or resume", what)
	}
}
