package plan

import (
	"strings"
	"testing"
)

var three = Cluster{Dir: DefaultDir, Bin: "/cache/bin", Nodes: 3, HostPort: 16443}

func TestAFullCutIsOneTableThatReplacesAnEarlierOne(t *testing.T) {
	rules, err := three.CutRules(2, Cut{From: []string{"all"}, Direction: Both, LossPercent: 100})
	if err != nil {
		t.Fatal(err)
	}
	want := `table inet understudy_cut
delete table inet understudy_cut
table inet understudy_cut {
  chain arriving {
    type filter hook prerouting priority -310; policy accept;
    iifname "eth0" drop
  }
  chain leaving {
    type filter hook postrouting priority 310; policy accept;
    oifname "eth0" drop
  }
}
`
	if rules != want {
		t.Errorf("rules:\n%s\nwant:\n%s", rules, want)
	}
}

func TestACutNamesWhomItSeparatesAndNeverTheNodeItself(t *testing.T) {
	cases := map[string]struct {
		cut  Cut
		has  []string
		lack []string
	}{
		"a lossy way in from the API server": {
			Cut{From: []string{"api"}, Direction: In, LossPercent: 30},
			[]string{`iifname "eth0" ip saddr { 198.18.0.1 } numgen random mod 100 < 30 drop`}, []string{"oifname"}},
		"the way out to the other nodes and their pods": {
			Cut{From: []string{"peers"}, Direction: Out, LossPercent: 100},
			[]string{`oifname "eth0" ip daddr { 198.18.0.11, 198.18.0.13, 198.18.129.0/24, 198.18.131.0/24 } drop`},
			[]string{"iifname", "198.18.0.12", "198.18.130.0"}},
		"one node and the clients, named twice": {
			Cut{From: []string{"node-3", "client", "3"}, Direction: Both, LossPercent: 100},
			[]string{`ip saddr { 198.18.0.13, 198.18.0.2, 198.18.131.0/24 } drop`,
				`ip daddr { 198.18.0.13, 198.18.0.2, 198.18.131.0/24 } drop`}, nil},
	}
	for name, c := range cases {
		rules, err := three.CutRules(2, c.cut)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, text := range c.has {
			if !strings.Contains(rules, text) {
				t.Errorf("%s: no %q in\n%s", name, text, rules)
			}
		}
		for _, text := range c.lack {
			if strings.Contains(rules, text) {
				t.Errorf("%s: %q in\n%s", name, text, rules)
			}
		}
	}
}

func TestACutThatMakesNoSenseIsRefused(t *testing.T) {
	for name, cut := range map[string]Cut{
		"from nobody":        {Direction: Both, LossPercent: 100},
		"from itself":        {From: []string{"node-2"}, Direction: Both, LossPercent: 100},
		"from a fourth node": {From: []string{"node-4"}, Direction: Both, LossPercent: 100},
		"no loss":            {From: []string{"all"}, Direction: Both},
		"too much loss":      {From: []string{"all"}, Direction: Both, LossPercent: 101},
		"sideways":           {From: []string{"all"}, Direction: "sideways", LossPercent: 100},
	} {
		if rules, err := three.CutRules(2, cut); err == nil {
			t.Errorf("%s: accepted as\n%s", name, rules)
		}
	}
}

func TestPlacesAreFoundByNameOrNumber(t *testing.T) {
	for name, want := range map[string]string{"client": "client", "cp": "cp", "2": "node-2", "node-3": "node-3"} {
		if place, err := three.Place(name); err != nil || place != want {
			t.Errorf("%s: %q, %v", name, place, err)
		}
	}
	for _, name := range []string{"", "0", "4", "2x", "node-", "host"} {
		if place, err := three.Place(name); err == nil {
			t.Errorf("%q was taken for %s", name, place)
		}
	}
}

func TestTwoClustersShareNoName(t *testing.T) {
	other := three
	other.Dir = "/var/tmp/another"
	if three.Prefixed("node-1") != "us-node-1" {
		t.Errorf("the default cluster's node is called %s", three.Prefixed("node-1"))
	}
	if name := other.Prefixed("node-1"); name == three.Prefixed("node-1") || len(name) != len("us123456-node-1") {
		t.Errorf("the other cluster's node is called %s", name)
	}
}

func TestEveryPlaceReachesThePodsOfEveryOtherNode(t *testing.T) {
	if lines := three.PlaceLinks("node-2"); strings.Contains(lines, "198.18.130.0/24") ||
		!strings.Contains(lines, "route add 198.18.129.0/24 via 198.18.0.11\nroute add 198.18.131.0/24 via 198.18.0.13\n") {
		t.Errorf("node-2:\n%s", lines)
	}
	if lines := three.PlaceLinks(Client); strings.Count(lines, "route add 198.18.1") != 3 || !strings.Contains(lines, "addr add 198.18.0.2/24") {
		t.Errorf("client:\n%s", lines)
	}
	if lines := three.Attach("node-2"); !strings.Contains(lines, "netns us-node-2\n") || !strings.Contains(lines, "route add 198.18.130.0/24 via 198.18.0.12") {
		t.Errorf("attaching node-2:\n%s", lines)
	}
	if lines := three.Attach(Client); strings.Contains(lines, "route") {
		t.Errorf("attaching the client place:\n%s", lines)
	}
}

func TestNamesResolveFirstInTheGivenNamespace(t *testing.T) {
	want := "nameserver 198.19.0.10\nsearch shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2 attempts:2\n"
	if text := ResolvConf(Client, "shop"); text != want {
		t.Errorf("client: %q", text)
	}
	if text := ResolvConf(ControlPlane, "shop"); !strings.HasPrefix(text, "nameserver 198.18.0.3\n") {
		t.Errorf("the control plane has no Services, yet asks one: %q", text)
	}
}

func TestProcessesAreUniqueAndStandInACgroupOfTheirs(t *testing.T) {
	groups := map[string]bool{}
	for _, group := range three.Cgroups() {
		groups[group] = true
	}
	seen := map[string]bool{}
	for _, process := range three.Processes() {
		if seen[process.Name] {
			t.Errorf("two processes are called %s", process.Name)
		}
		seen[process.Name] = true
		if !groups[process.Cgroup] {
			t.Errorf("%s stands in %q, which nobody removes", process.Name, process.Cgroup)
		}
		if process.Node > 0 && (process.Place != NodeName(process.Node) || process.Mounts == HostMounts) {
			t.Errorf("%s of node %d runs at %s with mounts %d", process.Name, process.Node, process.Place, process.Mounts)
		}
	}
	if len(seen) != 3+5+3*3 {
		t.Errorf("%d processes", len(seen))
	}
}

func TestAKubeletConfigIsNotTakenForJSON(t *testing.T) {
	config := three.KubeletConfig(2)
	if strings.HasPrefix(config, "{") {
		t.Error("the kubelet would parse it as JSON")
	}
	for _, line := range []string{"cgroupRoot: /us-node-2\n", "failCgroupV1: false\n", `nodefs.available: "1%"`,
		"containerRuntimeEndpoint: unix:///var/tmp/understudy-cluster/node-2/containerd.sock\n"} {
		if !strings.Contains(config, line) {
			t.Errorf("no %q in\n%s", line, config)
		}
	}
}
