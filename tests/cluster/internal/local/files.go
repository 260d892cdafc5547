package local

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"understudy.dev/tests/cluster/internal/oci"
	"understudy.dev/tests/cluster/internal/pki"
	"understudy.dev/tests/cluster/internal/plan"
)

// writeFiles writes every file that the parts read.
func (c *cluster) writeFiles() error {
	directories := []string{"pki", "logs", "pids", "exec"}
	files := map[string]string{
		"Corefile":        c.Corefile(),
		"pod-resolv.conf": "nameserver " + plan.DNSService + "\n",
	}
	for n := 1; n <= c.Nodes; n++ {
		node := plan.NodeName(n)
		for _, below := range []string{"cni", "volumes", "plugins", "log/pods", "log/containers"} {
			directories = append(directories, filepath.Join(node, below))
		}
		files[filepath.Join(node, "cni", "pods.conflist")] = c.CNIConfig(n)
		files[filepath.Join(node, "containerd.toml")] = c.ContainerdConfig(n)
		files[filepath.Join(node, "kubelet.yaml")] = c.KubeletConfig(n)
	}
	for _, directory := range directories {
		if err := os.MkdirAll(c.Path(directory), 0o755); err != nil {
			return fmt.Errorf("failed to make a directory of the cluster: %w", err)
		}
	}
	for name, content := range files {
		if err := os.WriteFile(c.Path(name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("failed to write a file of the cluster: %w", err)
		}
	}
	if err := c.writeKeys(); err != nil {
		return err
	}
	return c.writePauseImage()
}

// identities are all users of the cluster's API, by the name of their files.
func (c *cluster) identities() map[string]pki.Identity {
	list := map[string]pki.Identity{
		"admin": {Name: "understudy-admin", Groups: []string{"system:masters"}},
		"apiserver": {Name: "kube-apiserver", Hosts: []string{"localhost", "127.0.0.1", plan.APIAddress, plan.APIService,
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + plan.ClusterDomain}},
		"apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
		"controller-manager":       {Name: "system:kube-controller-manager"},
		"scheduler":                {Name: "system:kube-scheduler"},
		"proxy":                    {Name: "system:kube-proxy"},
		"dns":                      {Name: "understudy:dns"},
		"provisioner":              {Name: "understudy:provisioner"},
	}
	for n := 1; n <= c.Nodes; n++ {
		name := plan.NodeName(n)
		list[name] = pki.Identity{Name: "system:node:" + name, Groups: []string{"system:nodes"},
			Hosts: []string{name, plan.NodeAddress(n)}}
	}
	return list
}

func (c *cluster) writeKeys() error {
	authority, err := pki.NewAuthority(time.Now())
	if err != nil {
		return err
	}
	files := map[string][]byte{"ca.crt": authority.Pair.Certificate, "ca.key": authority.Pair.Key}
	if files["service-account.key"], files["service-account.pub"], err = pki.NewSigningKey(); err != nil {
		return err
	}
	inside := fmt.Sprintf("https://%s:%d", plan.APIAddress, plan.APIPort)
	for name, identity := range c.identities() {
		pair, err := authority.Issue(identity)
		if err != nil {
			return err
		}
		files[name+".crt"], files[name+".key"] = pair.Certificate, pair.Key
		if files[name+".kubeconfig"], err = authority.Kubeconfig(inside, name, pair); err != nil {
			return err
		}
		if name == "admin" {
			outside := fmt.Sprintf("https://127.0.0.1:%d", c.HostPort)
			if files["../kubeconfig"], err = authority.Kubeconfig(outside, name, pair); err != nil {
				return err
			}
		}
	}
	for name, content := range files {
		if err := os.WriteFile(c.Path("pki", name), content, 0o600); err != nil {
			return fmt.Errorf("failed to write a key file: %w", err)
		}
	}
	return nil
}

// writePauseImage packs our pause program as the image of every pod's sandbox.
func (c *cluster) writePauseImage() error {
	layer := c.Path("pause.layer")
	out, err := os.Create(layer)
	if err != nil {
		return fmt.Errorf("failed to create the layer of the pause image: %w", err)
	}
	defer os.Remove(layer)
	defer out.Close()
	entries := []oci.Entry{{Path: "/pause", Source: filepath.Join(c.Bin, "pause"), Mode: 0o755}}
	if err := oci.WriteLayer(out, entries); err != nil {
		return err
	}
	return oci.Write(c.pauseArchive(), oci.Image{Name: plan.PauseImage, Layers: []string{layer},
		Architecture: runtime.GOARCH, Entrypoint: []string{"/pause"}, User: "65535:65535"})
}

func (c *cluster) pauseArchive() string { return c.Path("pause.tar") }
