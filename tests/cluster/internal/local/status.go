package local

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// status prints what runs and which faults are in force; it fails if anything is not as `up` leaves it.
func status(ctx context.Context, out io.Writer, dir string) error {
	c, err := open(dir)
	if err != nil {
		return err
	}
	wrong := 0
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "KUBECONFIG\t%s\n", c.AdminKubeconfig())
	fmt.Fprintf(table, "API SERVER\thttps://127.0.0.1:%d\n", c.HostPort)
	fmt.Fprintf(table, "\nPROCESS\tSTATE\tPID\tLOG\n")
	for _, process := range c.Processes() {
		record := c.record(process.Name)
		if record.State() != machine.Running {
			wrong++
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", process.Name, record.State(), record.PID, c.LogFile(process.Name))
	}
	ready, err := c.nodeConditions(ctx)
	if err != nil {
		wrong++
		fmt.Fprintf(table, "\nthe API server does not answer: %v\n", err)
	}
	fmt.Fprintf(table, "\nNODE\tREADY\tFAULT\n")
	for n := 1; n <= c.Nodes; n++ {
		name, fault := plan.NodeName(n), "none"
		switch {
		case c.off(n):
			fault = "off"
		case machine.RulesPresent(c.Netns(name), plan.CutTable):
			fault = "partitioned"
		}
		if fault != "none" || ready[name] != "yes" {
			wrong++
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, ready[name], fault)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("failed to print the status: %w", err)
	}
	if wrong > 0 {
		return fmt.Errorf("%d things are not as `cluster up` leaves them", wrong)
	}
	return nil
}

// nodeConditions asks the API server whether each node is Ready.
func (c *cluster) nodeConditions(ctx context.Context) (map[string]string, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	if err != nil {
		return nil, err
	}
	ready := map[string]string{}
	for _, node := range nodes.Items {
		ready[node.Name] = "yes"
		if reason := notReady(&node); reason != "" {
			ready[node.Name] = "no: " + reason
		}
	}
	return ready, nil
}
