package plan

import (
	"fmt"
	"strings"
)

// CentreLinks are the `ip -batch` lines of the control plane's namespace before any place is attached: one
// bridge that is the whole network between the machines.
func CentreLinks() string {
	return strings.Join([]string{
		"link set lo up",
		"link add br0 type bridge",
		"addr add " + APIAddress + "/24 dev br0",
		"addr add " + DNSAddress + "/24 dev br0",
		"link set br0 up",
		"",
	}, "\n")
}

// Attach are the `ip -batch` lines, also for the control plane's namespace, that give a place its cable and, if
// it is a node, the route to its pods.
func (c Cluster) Attach(place string) string {
	lines := []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", place, c.Prefixed(place)),
		fmt.Sprintf("link set %s master br0 up", place),
	}
	if n, err := c.NodeNumber(place); err == nil {
		lines = append(lines, fmt.Sprintf("route add %s via %s", PodSubnet(n), NodeAddress(n)))
	}
	return strings.Join(lines, "\n") + "\n"
}

// PlaceLinks are the `ip -batch` lines of an attached place's own namespace: its address, and the routes to the
// pods of every other node. Pods are routed, not tunnelled: one bridge is between all nodes.
func (c Cluster) PlaceLinks(place string) string {
	own, address := 0, ClientAddress
	if n, err := c.NodeNumber(place); err == nil {
		own, address = n, NodeAddress(n)
	}
	lines := []string{
		"link set lo up",
		"addr add " + address + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + APIAddress,
	}
	for n := 1; n <= c.Nodes; n++ {
		if n != own {
			lines = append(lines, fmt.Sprintf("route add %s via %s", PodSubnet(n), NodeAddress(n)))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// ResolvConf is what a command in one of the places resolves names with. Nodes and the client place ask the
// DNS Service; the control plane has no Services and asks the server itself.
func ResolvConf(place, namespace string) string {
	server := DNSService
	if place == ControlPlane {
		server = DNSAddress
	}
	return fmt.Sprintf("nameserver %s\nsearch %s.svc.%[3]s svc.%[3]s %[3]s\noptions ndots:5 timeout:2 attempts:2\n",
		server, namespace, ClusterDomain)
}
