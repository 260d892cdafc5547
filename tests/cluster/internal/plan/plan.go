// Package plan says what the local cluster consists of: names, addresses, files, command lines and rules.
//
// Everything here is pure: a Cluster in, text and argument lists out. Package local carries it out, package
// machine knows how. Nothing here reads the clock, the disk or the network.
//
// The address plan lies whole in 198.18.0.0/15, the range set aside for benchmarks, and is only ever
// configured inside network namespaces of the cluster's own, so the host keeps its routes:
//
//	198.18.0.1            control plane (etcd, API server, controllers, provisioner)
//	198.18.0.2            the client place: a machine without a kubelet, where tests run their clients
//	198.18.0.3            DNS, beside the control plane but apart from it, so that cutting a node from the
//	                      API server leaves it its names
//	198.18.0.10+N         node N
//	198.18.(128+N).0/24   the pods of node N
//	198.19.0.0/16         Services
package plan

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultDir is where the cluster lives unless --dir or UNDERSTUDY_CLUSTER_DIR says otherwise.
const DefaultDir = "/var/tmp/understudy-cluster"

// MaxNodes bounds the nodes of one machine: every node costs about 250 MiB.
const MaxNodes = 9

// The fixed addresses of the plan; see the package comment.
const (
	APIAddress    = "198.18.0.1"
	APIPort       = 6443
	ClientAddress = "198.18.0.2"
	DNSAddress    = "198.18.0.3"
	DNSService    = "198.19.0.10"
	APIService    = "198.19.0.1"
	PodRange      = "198.18.128.0/17"
	ServiceRange  = "198.19.0.0/16"
	ClusterDomain = "cluster.local"
)

// PauseImage is the sandbox image of every pod; it is ours and never pulled.
const PauseImage = "localhost/understudy/pause:1"

// Cluster is one local cluster: where it lives and how large it is.
type Cluster struct {
	// Dir holds all files of the cluster; absolute.
	Dir string
	// Bin holds the binaries (cluster itself, coredns, pause); absolute.
	Bin string
	// Nodes counts the nodes; they are numbered from 1.
	Nodes int
	// HostPort is the loopback port of the host on which the API server answers.
	HostPort int
}

// prefix begins the name of every network namespace and cgroup of this cluster. The default directory has the
// plain one; another directory gets its own, so that two clusters never touch each other's things.
func (c Cluster) prefix() string {
	if c.Dir == DefaultDir {
		return "us"
	}
	return fmt.Sprintf("us%x", sha256.Sum256([]byte(c.Dir)))[:8]
}

// Prefixed is the name that a part of the cluster has among the host's namespaces and cgroups.
func (c Cluster) Prefixed(part string) string { return c.prefix() + "-" + part }

// NodeName is the Kubernetes name of node n.
func NodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// NodeAddress is the address of node n on the network between the nodes.
func NodeAddress(n int) string { return fmt.Sprintf("198.18.0.%d", 10+n) }

// PodSubnet is the range from which node n gives its pods addresses.
func PodSubnet(n int) string { return fmt.Sprintf("198.18.%d.0/24", 128+n) }

// The names of the places that are not nodes.
const (
	ControlPlane = "cp"
	Client       = "client"
)

// Places are all network namespaces of the cluster, the control plane first.
func (c Cluster) Places() []string {
	places := []string{ControlPlane, Client}
	for n := 1; n <= c.Nodes; n++ {
		places = append(places, NodeName(n))
	}
	return places
}

// Cgroups are the cgroups that hold every process of the cluster: one for the control plane, one per node.
func (c Cluster) Cgroups() []string {
	groups := []string{c.Prefixed(ControlPlane)}
	for n := 1; n <= c.Nodes; n++ {
		groups = append(groups, c.Prefixed(NodeName(n)))
	}
	return groups
}

// NodeNumber reads "2" or "node-2" and refuses a node that the cluster does not have.
func (c Cluster) NodeNumber(name string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "node-"))
	if err != nil || n < 1 || n > c.Nodes {
		return 0, fmt.Errorf("no node %q: the cluster has node-1 to node-%d", name, c.Nodes)
	}
	return n, nil
}

// Place reads the name of a place for a command: cp, client, or a node.
func (c Cluster) Place(name string) (string, error) {
	if name == ControlPlane || name == Client {
		return name, nil
	}
	n, err := c.NodeNumber(name)
	if err != nil {
		return "", fmt.Errorf("no place %q: say client, cp or a node (node-1 to node-%d)", name, c.Nodes)
	}
	return NodeName(n), nil
}

// Path joins names below the cluster's directory.
func (c Cluster) Path(names ...string) string {
	return filepath.Join(append([]string{c.Dir}, names...)...)
}

// NodePath joins names below the directory of node n.
func (c Cluster) NodePath(n int, names ...string) string {
	return c.Path(append([]string{NodeName(n)}, names...)...)
}

// AdminKubeconfig is the file that people and tests use, from the host.
func (c Cluster) AdminKubeconfig() string { return c.Path("kubeconfig") }

// ComponentKubeconfig is the file with which a part of the cluster reaches the API server.
func (c Cluster) ComponentKubeconfig(user string) string { return c.Path("pki", user+".kubeconfig") }

// ContainerdSocket is where the container runtime of node n answers, also from the host.
func (c Cluster) ContainerdSocket(n int) string { return c.NodePath(n, "containerd.sock") }

// LogFile is where the process of this name writes.
func (c Cluster) LogFile(process string) string { return c.Path("logs", process+".log") }

// Netns is the file of a place's network namespace.
func (c Cluster) Netns(place string) string { return "/run/netns/" + c.Prefixed(place) }
