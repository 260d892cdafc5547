package oci

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
)

// MissingLibraries names the shared libraries that a program needs and none of the layers has. A file that is
// not an ELF program needs none.
func MissingLibraries(program string, layers []string) ([]string, error) {
	binary, err := elf.Open(program)
	var notELF *elf.FormatError
	if errors.As(err, &notELF) || errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", program, err)
	}
	defer binary.Close()
	needed, err := binary.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("failed to read the libraries of %s: %w", program, err)
	}
	present := map[string]bool{}
	for _, layer := range layers {
		if err := namesIn(layer, present); err != nil {
			return nil, fmt.Errorf("failed to list the layer %s: %w", layer, err)
		}
	}
	var missing []string
	for _, library := range needed {
		if !present[library] {
			missing = append(missing, library)
		}
	}
	sort.Strings(missing)
	return missing, nil
}

func namesIn(layer string, names map[string]bool) error {
	file, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewReader(file)
	for {
		entry, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		names[path.Base(entry.Name)] = true
	}
}
