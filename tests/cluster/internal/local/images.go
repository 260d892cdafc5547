package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"understudy.dev/tests/cluster/internal/plan"
)

// ctr runs a command of containerd's own client against node n.
func (c *cluster) ctr(ctx context.Context, n int, args ...string) error {
	args = append([]string{"--address", c.ContainerdSocket(n), "--namespace", "k8s.io"}, args...)
	said, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %v on %s: %w: %s", args[4:], plan.NodeName(n), err, bytes.TrimSpace(said))
	}
	return nil
}

func (c *cluster) importImages(ctx context.Context, n int, archives []string) error {
	for _, archive := range archives {
		if err := c.ctr(ctx, n, "images", "import", archive); err != nil {
			return fmt.Errorf("failed to load %s: %w", archive, err)
		}
	}
	return nil
}

// checkImages refuses an archive that cannot be read before anything is started.
func checkImages(archives []string) error {
	var failures []error
	for _, archive := range archives {
		file, err := os.Open(archive)
		if err != nil {
			failures = append(failures, fmt.Errorf("failed to open the image archive: %w", err))
			continue
		}
		file.Close()
	}
	return errors.Join(failures...)
}

// load gives image archives to every node that is on.
func load(ctx context.Context, p *progress, dir string, archives []string) error {
	c, err := open(dir)
	if err != nil {
		return err
	}
	if err := checkImages(archives); err != nil {
		return err
	}
	var work []func(context.Context) error
	for n := 1; n <= c.Nodes; n++ {
		if c.off(n) {
			p.say("%s is off and gets no images", plan.NodeName(n))
			continue
		}
		work = append(work, func(ctx context.Context) error {
			return p.do(ctx, step{name: fmt.Sprintf("%s: loaded %s", plan.NodeName(n), bases(archives)), bound: imageBound,
				log: c.LogFile(c.Runtime(n).Name), run: func(ctx context.Context, _ func(error)) error {
					return c.importImages(ctx, n, archives)
				}})
		})
	}
	return together(ctx, work...)
}

func bases(archives []string) string {
	text := ""
	for _, archive := range archives {
		text += " " + filepath.Base(archive)
	}
	return text[1:]
}
