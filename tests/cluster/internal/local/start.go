package local

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

//go:embed addons.yaml
var addons string

// requestBound is the longest that one question to the API server may take.
const requestBound = 5 * time.Second

// start starts what does not run, each part as soon as what it needs answers.
func (c *cluster) start(ctx context.Context, p *progress, images []string) error {
	if err := c.healAll(); err != nil {
		return err
	}
	work := []func(context.Context) error{func(ctx context.Context) error { return c.startCentre(ctx, p) }}
	for n := 1; n <= c.Nodes; n++ {
		work = append(work, func(ctx context.Context) error { return c.startRuntime(ctx, p, n, images) })
	}
	if err := together(ctx, work...); err != nil {
		return err
	}
	for n := 1; n <= c.Nodes; n++ {
		if c.record(c.Agents(n)[0].Name).State() == machine.Gone {
			c.launched[plan.NodeName(n)] = time.Now()
		}
		if err := c.launchAll(c.Agents(n)); err != nil {
			return err
		}
	}
	return together(ctx,
		func(ctx context.Context) error {
			return p.do(ctx, step{name: fmt.Sprintf("%d nodes Ready", c.Nodes), bound: nodesBound, log: c.Path("logs"), run: c.nodesReady})
		},
		func(ctx context.Context) error {
			return p.do(ctx, step{name: "DNS answers through its Service", bound: dnsBound, log: c.LogFile("coredns"), run: c.nameFound})
		})
}

// startCentre starts the control plane and applies the add-ons.
func (c *cluster) startCentre(ctx context.Context, p *progress) error {
	if err := c.launchAll([]plan.Process{c.Etcd(), c.APIServer(), c.Forwarder()}); err != nil {
		return err
	}
	err := p.do(ctx, step{name: "API server answers", bound: apiBound, log: c.LogFile("apiserver"), run: c.apiReady})
	if err != nil {
		return err
	}
	if err := c.launchAll(c.Controllers()); err != nil {
		return err
	}
	return p.do(ctx, step{name: "storage class, DNS Service and roles applied", bound: addonsBound, log: c.LogFile("apiserver"), run: c.applyAddons})
}

// startRuntime starts the container runtime of a node and gives it the images.
func (c *cluster) startRuntime(ctx context.Context, p *progress, n int, images []string) error {
	process := c.Runtime(n)
	wasOff := c.off(n)
	if wasOff {
		if err := c.powerCycle(n); err != nil {
			return err
		}
	}
	if err := c.launch(process); err != nil {
		return err
	}
	err := p.do(ctx, step{name: plan.NodeName(n) + ": container runtime answers", bound: runtimeBound, log: c.LogFile(process.Name),
		run: func(ctx context.Context, note func(error)) error {
			return await(ctx, note, func() error {
				if err := c.gone(process.Name); err != nil {
					return err
				}
				return c.ctr(ctx, n, "version")
			})
		}})
	if err != nil {
		return err
	}
	if wasOff {
		if err := c.mountVolumes(n); err != nil {
			return err
		}
	}
	return p.do(ctx, step{name: fmt.Sprintf("%s: %d images loaded", plan.NodeName(n), 1+len(images)), bound: imageBound,
		log: c.LogFile(process.Name), run: func(ctx context.Context, _ func(error)) error {
			return c.importImages(ctx, n, append([]string{c.pauseArchive()}, images...))
		}})
}

func (c *cluster) launchAll(processes []plan.Process) error {
	for _, process := range processes {
		if err := c.launch(process); err != nil {
			return err
		}
	}
	return nil
}

// launch starts a process at its place, unless it runs.
func (c *cluster) launch(process plan.Process) error {
	switch c.record(process.Name).State() {
	case machine.Running:
		return nil
	case machine.Paused:
		return c.record(process.Name).Signal(syscall.SIGCONT)
	case machine.Gone:
	}
	var files []*os.File
	if process.Name == c.Forwarder().Name {
		listener, err := c.listen()
		if err != nil {
			return err
		}
		defer listener.Close()
		files = append(files, listener)
	}
	args := []string{c.selfPath(), "enter", "--dir", c.Dir, "--place", process.Place, "--cgroup", process.Cgroup}
	switch process.Mounts {
	case plan.HostMounts:
	case plan.NodeMounts:
		args = append(args, "--node-logs", c.NodePath(process.Node, "log", "containers"))
	case plan.RuntimeMounts:
		holder := c.record(c.Runtime(process.Node).Name)
		if holder.State() == machine.Gone {
			return fmt.Errorf("%s cannot start: the container runtime of its node is gone; see %s", process.Name,
				c.LogFile(c.Runtime(process.Node).Name))
		}
		args = append(args, "--mounts-of", fmt.Sprint(holder.PID))
	}
	args = append(append(args, "--"), process.Args...)
	_, err := machine.Start(args, c.LogFile(process.Name), c.recordFile(process.Name), files...)
	return err
}

func (c *cluster) selfPath() string { return c.Forwarder().Args[0] }

// listen opens the host's side of the way to the API server. The socket belongs to the host's network wherever
// the process that accepts from it runs.
func (c *cluster) listen() (*os.File, error) {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.HostPort))
	if err != nil {
		return nil, fmt.Errorf("failed to open the host's port of the API server: %w", err)
	}
	defer listener.Close()
	return listener.(*net.TCPListener).File()
}

// gone is a final error if a process that should run does not.
func (c *cluster) gone(processes ...string) error {
	for _, process := range processes {
		if c.record(process).State() == machine.Gone {
			return final{fmt.Errorf("the process %s has ended; log: %s\n  | %s", process, c.LogFile(process),
				strings.Join(tail(c.LogFile(process)), "\n  | "))}
		}
	}
	return nil
}

func (c *cluster) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.AdminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("failed to read the kubeconfig: %w", err)
	}
	config.Timeout = requestBound
	return kubernetes.NewForConfig(config)
}

func (c *cluster) apiReady(ctx context.Context, note func(error)) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return await(ctx, note, func() error {
		if err := c.gone(c.Etcd().Name, c.APIServer().Name, c.Forwarder().Name); err != nil {
			return err
		}
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

func (c *cluster) applyAddons(ctx context.Context, note func(error)) error {
	return await(ctx, note, func() error {
		if err := c.gone(c.APIServer().Name, "controller-manager", "scheduler", "provisioner"); err != nil {
			return err
		}
		command := exec.CommandContext(ctx, c.selfPath(), "kubectl", "--kubeconfig", c.AdminKubeconfig(),
			"apply", "--server-side", "--force-conflicts", "--filename", "-")
		command.Stdin = strings.NewReader(addons)
		if said, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("failed to apply the add-ons: %w: %s", err, said)
		}
		return nil
	})
}

func (c *cluster) nodesReady(ctx context.Context, note func(error)) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	var agents []string
	for n := 1; n <= c.Nodes; n++ {
		for _, process := range append(c.Agents(n), c.Runtime(n)) {
			agents = append(agents, process.Name)
		}
	}
	return await(ctx, note, func() error {
		if err := c.gone(agents...); err != nil {
			return err
		}
		nodes, err := client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
		if err != nil {
			return err
		}
		waiting := map[string]string{}
		for n := 1; n <= c.Nodes; n++ {
			waiting[plan.NodeName(n)] = "not registered"
		}
		for _, node := range nodes.Items {
			reason := notReady(&node)
			if reason == "" {
				reason, err = c.stale(ctx, client, node.Name)
			}
			if err != nil {
				return err
			}
			if reason != "" {
				waiting[node.Name] = reason
			} else {
				delete(waiting, node.Name)
			}
		}
		if len(waiting) > 0 {
			return fmt.Errorf("not ready: %v", waiting)
		}
		return nil
	})
}

// stale says that what is known of a node is from before its kubelet was started; empty if it is from after. The
// kubelet renews the node's Lease first thing.
func (c *cluster) stale(ctx context.Context, client kubernetes.Interface, node string) (string, error) {
	launched, ok := c.launched[node]
	if !ok {
		return "", nil
	}
	lease, err := client.CoordinationV1().Leases(core.NamespaceNodeLease).Get(ctx, node, meta.GetOptions{})
	if errors.IsNotFound(err) {
		// A node that has never had one is new, and so is what is known of it.
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Before(&meta.MicroTime{Time: launched}) {
		return "not heard of since it was started", nil
	}
	return "", nil
}

// notReady says why a node does not take pods; empty if it does.
func notReady(node *core.Node) string {
	for _, condition := range node.Status.Conditions {
		if condition.Type == core.NodeReady && condition.Status != core.ConditionTrue {
			return condition.Message
		}
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == core.TaintNodeNotReady || taint.Key == core.TaintNodeUnreachable {
			return "taint " + taint.Key
		}
	}
	if len(node.Status.Conditions) == 0 {
		return "no status yet"
	}
	return ""
}
