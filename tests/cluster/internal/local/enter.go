package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// execute replaces this process by a command of the user's in one of the cluster's places: the host's files, the
// place's network and names, and a kubeconfig that works there.
func execute(dir, place, namespace string, args []string) error {
	c, err := open(dir)
	if err != nil {
		return err
	}
	where, err := c.Place(place)
	if err != nil {
		return err
	}
	if err := os.Setenv("KUBECONFIG", c.ComponentKubeconfig("admin")); err != nil {
		return fmt.Errorf("failed to set KUBECONFIG: %w", err)
	}
	return machine.Become(machine.Entry{
		Netns:  c.Netns(where),
		Cgroup: c.Prefixed(plan.ControlPlane),
		PrivateMounts: func() error {
			return machine.ResolverMounts(c.Path("exec"), plan.ResolvConf(where, namespace))
		},
	}, args)
}

// enter is how the tool starts a process of the cluster; see launch.
func enter(dir string, process plan.Process, mountsOf int, nodeLogs string, args []string) error {
	c := plan.Cluster{Dir: dir}
	entry := machine.Entry{Netns: c.Netns(process.Place), Cgroup: process.Cgroup, MountsOf: mountsOf}
	if nodeLogs != "" {
		entry.PrivateMounts = func() error { return machine.NodeMounts(nodeLogs) }
	}
	return machine.Become(entry, args)
}

// inheritedListener is the descriptor on which the forwarder finds the host's listening socket.
const inheritedListener = 3

// forward carries every connection of the inherited listener to an address of the own network namespace, until
// it is killed.
func forward(address string) error {
	listener, err := net.FileListener(os.NewFile(inheritedListener, "listener"))
	if err != nil {
		return fmt.Errorf("failed to take over the host's listening socket: %w", err)
	}
	for {
		from, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "failed to accept a connection: %v\n", err)
			continue
		}
		go carry(from, address)
	}
}

// carry joins two connections. The end of one side's sending is passed on, and both close when both have ended.
func carry(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Fprintf(os.Stderr, "failed to reach %s: %v\n", address, err)
		return
	}
	defer to.Close()
	var ended sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		ended.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			if half, ok := way[1].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		})
	}
	ended.Wait()
}
