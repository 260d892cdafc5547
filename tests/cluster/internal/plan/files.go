package plan

import "fmt"

// CNIConfig wires pods by point-to-point links and routes. A bridge would let two pods of one node answer each
// other behind the back of the Service translation, for this kernel does not show bridged packets to nftables.
func (c Cluster) CNIConfig(n int) string {
	return fmt.Sprintf(`{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {
      "type": "host-local",
      "dataDir": %q,
      "ranges": [[{"subnet": %q}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`, c.NodePath(n, "addresses"), PodSubnet(n))
}

// ContainerdConfig keeps everything of node n's runtime below the node's directory, but its running state, which
// lies on the node's own /run and is lost with the node's power. restrict_oom_score_adj is for machines without
// CAP_SYS_RESOURCE, where runc dies when it may not lower the score.
func (c Cluster) ContainerdConfig(n int) string {
	return fmt.Sprintf(`version = 2
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
`, c.NodePath(n, "containerd"), c.ContainerdSocket(n), c.NodePath(n, "opt"), PauseImage, c.NodePath(n, "cni"))
}

// KubeletConfig is the kubelet's of node n. Images are never collected, for no registry could bring them back.
func (c Cluster) KubeletConfig(n int) string {
	return fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupRoot: /%s
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
containerRuntimeEndpoint: unix://%s
tlsCertFile: %s
tlsPrivateKeyFile: %s
authentication:
  x509: {clientCAFile: %s}
  anonymous: {enabled: false}
  webhook: {enabled: true}
authorization: {mode: Webhook}
clusterDNS: [%s]
clusterDomain: %s
resolvConf: %s
podLogsDir: %s
volumePluginDir: %s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: "1%%", imagefs.available: "1%%"}
`, c.Prefixed(NodeName(n)), c.ContainerdSocket(n), c.Path("pki", NodeName(n)+".crt"),
		c.Path("pki", NodeName(n)+".key"), c.Path("pki", "ca.crt"), DNSService, ClusterDomain,
		c.Path("pod-resolv.conf"), c.NodePath(n, "log", "pods"), c.NodePath(n, "plugins"))
}

// Corefile answers for the cluster's names and refuses every other name at once: no question leaves the machine.
func (c Cluster) Corefile() string {
	return fmt.Sprintf(`%[1]s 18.198.in-addr.arpa 19.198.in-addr.arpa {
    bind %[2]s
    errors
    kubernetes %[1]s in-addr.arpa {
        kubeconfig %[3]s
        pods insecure
        ttl 1
    }
}
. {
    bind %[2]s
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`, ClusterDomain, DNSAddress, c.ComponentKubeconfig("dns"))
}
