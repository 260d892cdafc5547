// Command cluster is a real Kubernetes of several nodes on one Linux machine, without Docker or a registry,
// and the tool that makes it.
//
// It is one binary with two faces. Called with the name of a Kubernetes program (as the first argument, or
// through a symbolic link of that name, as in kubectl) it is that program. Called otherwise it is the tool:
// up, down, status, load, exec, fault, image (see README.md).
//
// The tool starts itself again for every Kubernetes program, so one file is all that has to be built.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"understudy.dev/tests/cluster/internal/local"
)

func main() {
	if command, ok := components[filepath.Base(os.Args[0])]; ok {
		os.Exit(runComponent(command))
	}
	if len(os.Args) > 1 {
		if command, ok := components[os.Args[1]]; ok {
			os.Args = os.Args[1:]
			os.Exit(runComponent(command))
		}
	}
	if err := local.Command().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
		os.Exit(local.ExitStatus(err))
	}
}
