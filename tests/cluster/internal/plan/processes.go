package plan

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// Mounts says which mounts a process sees.
type Mounts int

// The mount namespaces of the cluster's processes.
const (
	// HostMounts: those of the host.
	HostMounts Mounts = iota
	// NodeMounts: new ones, the node's own (a fresh /run, /var/lib/cni and /var/log/containers).
	NodeMounts
	// RuntimeMounts: those of the node's container runtime, which holds them.
	RuntimeMounts
)

// Process is one program of the cluster: what it is called, where it runs and how it is started.
type Process struct {
	// Name is unique in the cluster; log and pid file are named after it.
	Name string
	// Place is the network namespace.
	Place string
	// Cgroup holds the process and all its descendants.
	Cgroup string
	// Node is the node's number, 0 for the control plane.
	Node int
	// Mounts says which mounts it sees.
	Mounts Mounts
	// Args is the program and its arguments.
	Args []string
}

func (c Cluster) central(name string, args ...string) Process {
	return Process{Name: name, Place: ControlPlane, Cgroup: c.Prefixed(ControlPlane), Args: args}
}

func (c Cluster) self() string { return filepath.Join(c.Bin, "cluster") }

// Etcd keeps the cluster's state, without fsync: it need not survive the machine.
func (c Cluster) Etcd() Process {
	return c.central("etcd", "etcd", "--data-dir", c.Path("etcd"), "--unsafe-no-fsync", "--logger", "zap",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380")
}

// APIServer finds kubelets by address (their names are in no DNS), and webhooks behind Services by their pods,
// for no Service translation runs in the control plane's namespace.
func (c Cluster) APIServer() Process {
	pki := func(name string) string { return c.Path("pki", name) }
	return c.central("apiserver", c.self(), "kube-apiserver",
		"--etcd-servers", "http://127.0.0.1:2379",
		"--service-cluster-ip-range", ServiceRange,
		"--secure-port", strconv.Itoa(APIPort), "--advertise-address", APIAddress,
		"--cert-dir", pki("apiserver"),
		"--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
		"--client-ca-file", pki("ca.crt"),
		"--service-account-key-file", pki("service-account.pub"),
		"--service-account-signing-key-file", pki("service-account.key"),
		"--service-account-issuer", "https://kubernetes.default.svc."+ClusterDomain,
		"--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction",
		"--allow-privileged", "--enable-aggregator-routing",
		"--kubelet-preferred-address-types", "InternalIP",
		"--kubelet-certificate-authority", pki("ca.crt"),
		"--kubelet-client-certificate", pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key", pki("apiserver-kubelet-client.key"))
}

// Forwarder carries connections from the loopback port of the host, whose listening socket it inherits, to the
// API server.
func (c Cluster) Forwarder() Process {
	return c.central("forwarder", c.self(), "forward", fmt.Sprintf("127.0.0.1:%d", APIPort))
}

// Controllers are the programs that need the API server, in the order of their start.
func (c Cluster) Controllers() []Process {
	kubeconfig := func(user string) string { return c.ComponentKubeconfig(user) }
	client := c.proxy("proxy-client", Client, ClientAddress, NodeName(1))
	client.Cgroup = c.Prefixed(ControlPlane)
	return []Process{
		c.central("controller-manager", c.self(), "kube-controller-manager",
			"--kubeconfig", kubeconfig("controller-manager"), "--cert-dir", c.Path("pki", "controller-manager"),
			"--service-account-private-key-file", c.Path("pki", "service-account.key"),
			"--root-ca-file", c.Path("pki", "ca.crt"),
			"--cluster-signing-cert-file", c.Path("pki", "ca.crt"),
			"--cluster-signing-key-file", c.Path("pki", "ca.key"),
			"--use-service-account-credentials", "--leader-elect=false"),
		c.central("scheduler", c.self(), "kube-scheduler", "--kubeconfig", kubeconfig("scheduler"),
			"--cert-dir", c.Path("pki", "scheduler"), "--leader-elect=false"),
		c.central("provisioner", c.self(), "provisioner", "--kubeconfig", kubeconfig("provisioner"),
			"--dir", c.Dir),
		c.central("coredns", filepath.Join(c.Bin, "coredns"), "-conf", c.Path("Corefile")),
		client,
	}
}

// Runtime is node n's containerd, the first process of a node and the holder of its mounts.
func (c Cluster) Runtime(n int) Process {
	return c.onNode(n, NodeMounts, "containerd", "containerd", "--config", c.NodePath(n, "containerd.toml"))
}

// Agents are the Kubernetes programs of node n.
func (c Cluster) Agents(n int) []Process {
	kubelet := c.onNode(n, RuntimeMounts, "kubelet", c.self(), "kubelet",
		"--config", c.NodePath(n, "kubelet.yaml"), "--kubeconfig", c.ComponentKubeconfig(NodeName(n)),
		"--hostname-override", NodeName(n), "--node-ip", NodeAddress(n),
		"--root-dir", c.NodePath(n, "kubelet"), "--cert-dir", c.NodePath(n, "pki"),
		"--node-labels", fmt.Sprintf("topology.kubernetes.io/zone=zone-%d", n))
	proxy := c.proxy(fmt.Sprintf("proxy-%d", n), NodeName(n), NodeAddress(n), NodeName(n))
	proxy.Node, proxy.Mounts, proxy.Cgroup = n, RuntimeMounts, c.Prefixed(NodeName(n))
	return []Process{kubelet, proxy}
}

func (c Cluster) onNode(n int, mounts Mounts, name string, args ...string) Process {
	return Process{Name: fmt.Sprintf("%s-%d", name, n), Place: NodeName(n), Cgroup: c.Prefixed(NodeName(n)),
		Node: n, Mounts: mounts, Args: args}
}

// proxy translates Services in one place. The client place has no node of its own: its proxy reads node 1's, for
// without one it would wait half a minute, and needs of it only that it exists. The connection tracking
// limits belong to the host and are left alone.
func (c Cluster) proxy(name, place, address, node string) Process {
	return Process{Name: name, Place: place, Args: []string{c.self(), "kube-proxy",
		"--kubeconfig", c.ComponentKubeconfig("proxy"), "--hostname-override", node,
		"--bind-address", address, "--proxy-mode", "nftables", "--cluster-cidr", PodRange,
		"--oom-score-adj", "0", "--conntrack-max-per-core", "0", "--conntrack-min", "0",
		"--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0"}}
}

// Processes are all programs that a whole cluster runs.
func (c Cluster) Processes() []Process {
	all := append([]Process{c.Etcd(), c.APIServer(), c.Forwarder()}, c.Controllers()...)
	for n := 1; n <= c.Nodes; n++ {
		all = append(append(all, c.Runtime(n)), c.Agents(n)...)
	}
	return all
}
