package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Direction says which packets of a cut node are lost.
type Direction string

// The directions of a partition, seen from the cut node.
const (
	// In loses what arrives at the node.
	In Direction = "in"
	// Out loses what the node sends.
	Out Direction = "out"
	// Both loses both.
	Both Direction = "both"
)

// CutTable and OffTable are the nftables tables of the two faults; they exist exactly while the fault does.
const (
	CutTable = "understudy_cut"
	OffTable = "understudy_off"
)

// Cut is a partition of one node.
type Cut struct {
	// From names what the node loses: "all", "api", "peers", "client", or other nodes by name.
	From []string
	// Direction says which way packets are lost.
	Direction Direction
	// LossPercent is the share of packets that are lost, 1 to 100; 100 is a full cut.
	LossPercent int
}

// CutRules are the nftables rules that make the cut in the node's namespace; they replace an earlier cut in one
// step. They stand before connection tracking on the way in and after it on the way out, and touch eth0 only:
// pods of the node still reach each other.
func (c Cluster) CutRules(node int, cut Cut) (string, error) {
	if cut.LossPercent < 1 || cut.LossPercent > 100 {
		return "", fmt.Errorf("loss of %d%%: say 1%% to 100%%", cut.LossPercent)
	}
	if !slices.Contains([]Direction{In, Out, Both}, cut.Direction) {
		return "", fmt.Errorf("direction %q: say in, out or both", cut.Direction)
	}
	others, err := c.addresses(node, cut.From)
	if err != nil {
		return "", err
	}
	verdict := "drop"
	if cut.LossPercent < 100 {
		verdict = fmt.Sprintf("numgen random mod 100 < %d drop", cut.LossPercent)
	}
	match := func(field string) string {
		if others == nil {
			return ""
		}
		return fmt.Sprintf("ip %s { %s } ", field, strings.Join(others, ", "))
	}
	arriving, leaving := "", ""
	if cut.Direction != Out {
		arriving = fmt.Sprintf("iifname \"eth0\" %s%s", match("saddr"), verdict)
	}
	if cut.Direction != In {
		leaving = fmt.Sprintf("oifname \"eth0\" %s%s", match("daddr"), verdict)
	}
	return table(CutTable, arriving, leaving), nil
}

// OffRules silence a node that loses its power: nothing leaves it any more, not even the reset of a dying
// connection, which a machine without power would not send either.
func OffRules() string {
	return table(OffTable, "iifname \"eth0\" drop", "oifname \"eth0\" drop")
}

// HealRules removes a fault's table, whether it is there or not.
func HealRules(name string) string {
	return fmt.Sprintf("table inet %[1]s\ndelete table inet %[1]s\n", name)
}

// NoServicesRules forgets what a proxy has set up in a place: one that starts takes chains that are there for filled,
// also those that its predecessor had emptied to remove them a moment later. Connections that are there live on: the
// kernel would stop to translate them with the last chain and the last rule of this kind, so that some stay.
func NoServicesRules() string {
	return `table ip understudy_nat {
  chain arriving { type nat hook prerouting priority -90; policy accept; ct state new counter; }
  chain own { type nat hook output priority -90; policy accept; }
  chain leaving { type nat hook postrouting priority 110; policy accept; }
}
` + BootRules()
}

// BootRules remove what a node's own programs set up in its kernel: a machine that boots has none of it.
func BootRules() string { return "table ip kube-proxy\ndelete table ip kube-proxy\n" }

func table(name, arriving, leaving string) string {
	return HealRules(name) + fmt.Sprintf(`table inet %s {
  chain arriving {
    type filter hook prerouting priority -310; policy accept;
    %s
  }
  chain leaving {
    type filter hook postrouting priority 310; policy accept;
    %s
  }
}
`, name, arriving, leaving)
}

// addresses lists what a cut separates the node from; nil means everything.
func (c Cluster) addresses(node int, from []string) ([]string, error) {
	var list []string
	peer := func(n int) { list = append(list, NodeAddress(n), PodSubnet(n)) }
	for _, name := range from {
		switch name {
		case "all":
			return nil, nil
		case "api":
			list = append(list, APIAddress)
		case "client":
			list = append(list, ClientAddress)
		case "peers":
			for n := 1; n <= c.Nodes; n++ {
				if n != node {
					peer(n)
				}
			}
		default:
			n, err := c.NodeNumber(name)
			if err != nil || n == node {
				return nil, fmt.Errorf("--from %q: say all, api, peers, client or another node", name)
			}
			peer(n)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("a partition from nothing: say --from all, api, peers, client or another node")
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
