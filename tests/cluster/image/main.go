// Command image is `cluster image` by itself: without Kubernetes in the same binary it is built in seconds.
package main

import (
	"fmt"
	"os"

	"understudy.dev/tests/cluster/internal/imaging"
)

func main() {
	if err := imaging.Command().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}
