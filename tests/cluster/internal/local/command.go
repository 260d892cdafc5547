package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"understudy.dev/tests/cluster/internal/imaging"
	"understudy.dev/tests/cluster/internal/plan"
	"understudy.dev/tests/cluster/internal/provision"
)

// ExitStatus is the process's exit status for an error of Command.
func ExitStatus(err error) int {
	if err == nil {
		return 0
	}
	return 1
}

// Command is the tool's command line.
func Command() *cobra.Command {
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes of several nodes on this machine, and the faults to test with",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	directory := os.Getenv("UNDERSTUDY_CLUSTER_DIR")
	if directory == "" {
		directory = plan.DefaultDir
	}
	dir := root.PersistentFlags().String("dir", directory, "where the cluster lives (UNDERSTUDY_CLUSTER_DIR)")
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		*dir, err = filepath.Abs(*dir)
		return err
	}
	root.AddCommand(upCommand(dir), downCommand(dir), statusCommand(dir), loadCommand(dir), kubeconfigCommand(dir),
		execCommand(dir), faultCommand(dir), imaging.Command(), enterCommand(dir), forwardCommand(), provisionerCommand(dir))
	return root
}

// interruptible ends with the user's interrupt, so that a step stops and says where it was.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

func upCommand(dir *string) *cobra.Command {
	var nodes int
	var images []string
	command := &cobra.Command{
		Use: "up", Short: "Make the cluster, or complete what is missing of one that runs", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			p := newProgress(command.ErrOrStderr())
			if err := up(ctx, p, *dir, nodes, images); err != nil {
				return err
			}
			c, err := open(*dir)
			if err != nil {
				return err
			}
			p.say("up: %d nodes", c.Nodes)
			fmt.Fprintf(command.OutOrStdout(), "export KUBECONFIG=%s\n", c.AdminKubeconfig())
			return nil
		},
	}
	command.Flags().IntVar(&nodes, "nodes", 3, "how many nodes")
	command.Flags().StringArrayVar(&images, "image", nil, "an OCI archive to load into every node; may be repeated")
	return command
}

func downCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Take the cluster away; nothing of it stays", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			p := newProgress(command.ErrOrStderr())
			if err := down(p, *dir); err != nil {
				return err
			}
			p.say("down: nothing is left")
			return nil
		},
	}
}

func statusCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what runs and which faults are in force", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return status(context.Background(), command.OutOrStdout(), *dir)
		},
	}
}

func loadCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "load ARCHIVE...", Short: "Load OCI archives into every node", Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			return load(ctx, newProgress(command.ErrOrStderr()), *dir, args)
		},
	}
}

func kubeconfigCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "Print the path of the kubeconfig", Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c, err := open(*dir)
			if err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), c.AdminKubeconfig())
			return nil
		},
	}
}

func execCommand(dir *string) *cobra.Command {
	var place, namespace string
	command := &cobra.Command{
		Use:   "exec [--node PLACE] -- COMMAND...",
		Short: "Run a command of this machine with the network and the names of the cluster",
		Long: "Run a command of this machine with the network and the names of the cluster. The place is `client` (a machine\n" +
			"beside the nodes, which no fault of a node touches), a node, or `cp` (the control plane, without Services).",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return execute(*dir, place, namespace, args) },
	}
	command.Flags().SetInterspersed(false)
	command.Flags().StringVar(&place, "node", plan.Client, "where: client, cp, or a node (2, node-2)")
	command.Flags().StringVar(&namespace, "namespace", "default", "the namespace in which short names are looked up first")
	return command
}

func faultCommand(dir *string) *cobra.Command {
	fault := &cobra.Command{Use: "fault", Short: "Break something, and mend it"}
	onNode := func(use, short string, run func(*cobra.Command, *cluster, string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1),
			RunE: func(command *cobra.Command, args []string) error {
				c, err := open(*dir)
				if err != nil {
					return err
				}
				return run(command, c, args[0])
			}}
	}
	fault.AddCommand(partitionCommand(onNode),
		onNode("heal NODE", "End a node's partition", func(_ *cobra.Command, c *cluster, node string) error {
			return heal(c, node)
		}),
		onNode("node-off NODE", "Take a node's power: silence first, then everything on it dies", func(_ *cobra.Command, c *cluster, node string) error {
			return nodeOff(c, node)
		}),
		onNode("node-on NODE", "Give a node its power back", func(command *cobra.Command, c *cluster, node string) error {
			ctx, cancel := interruptible()
			defer cancel()
			return nodeOn(ctx, newProgress(command.ErrOrStderr()), c, node)
		}),
		onNode("apiserver stop|start|pause|resume", "Stop or freeze the API server", func(_ *cobra.Command, c *cluster, what string) error {
			return apiServerFault(c, what)
		}),
		onNode("etcd save|restore", "Keep what the cluster's memory holds now, and go back to it", func(command *cobra.Command, c *cluster, what string) error {
			ctx, cancel := interruptible()
			defer cancel()
			return etcdFault(ctx, newProgress(command.ErrOrStderr()), c, what)
		}))
	return fault
}

func partitionCommand(onNode func(string, string, func(*cobra.Command, *cluster, string) error) *cobra.Command) *cobra.Command {
	var from []string
	var direction, loss string
	command := onNode("partition NODE", "Cut a node from others; replaces an earlier partition of it",
		func(_ *cobra.Command, c *cluster, node string) error {
			percent, err := strconv.Atoi(strings.TrimSuffix(loss, "%"))
			if err != nil {
				return fmt.Errorf("--loss %q: say a whole number of per cent, as in 30%%", loss)
			}
			return partition(c, node, plan.Cut{From: from, Direction: plan.Direction(direction), LossPercent: percent})
		})
	command.Flags().StringSliceVar(&from, "from", []string{"all"}, "from whom: all, api, peers, client, or other nodes; a list with commas")
	command.Flags().StringVar(&direction, "direction", string(plan.Both), "which packets are lost, seen from the node: in, out or both")
	command.Flags().StringVar(&loss, "loss", "100%", "how many of them are lost")
	return command
}

func enterCommand(dir *string) *cobra.Command {
	var process plan.Process
	var mountsOf int
	var nodeLogs string
	command := &cobra.Command{Use: "enter", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return enter(*dir, process, mountsOf, nodeLogs, args) }}
	command.Flags().SetInterspersed(false)
	command.Flags().StringVar(&process.Place, "place", "", "network namespace")
	command.Flags().StringVar(&process.Cgroup, "cgroup", "", "cgroup")
	command.Flags().IntVar(&mountsOf, "mounts-of", 0, "process whose mounts to share")
	command.Flags().StringVar(&nodeLogs, "node-logs", "", "directory of container logs; makes the mounts of a node")
	return command
}

func forwardCommand() *cobra.Command {
	return &cobra.Command{Use: "forward ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return forward(args[0]) }}
}

func provisionerCommand(dir *string) *cobra.Command {
	var kubeconfig string
	command := &cobra.Command{
		Use: "provisioner", Short: "Serve the StorageClass node-local (started by up)", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ctx, cancel := interruptible()
			defer cancel()
			c, err := open(*dir)
			if err != nil {
				return err
			}
			config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
			if err != nil {
				return fmt.Errorf("failed to read the kubeconfig: %w", err)
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return errors.Join(errors.New("failed to make a client"), err)
			}
			return provision.Run(ctx, client, *dir, mounter{c})
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	return command
}
