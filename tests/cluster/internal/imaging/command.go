// Package imaging is the command line of package oci: it writes container images without a container engine.
package imaging

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"understudy.dev/tests/cluster/internal/oci"
)

// Command is `image` with its subcommands.
func Command() *cobra.Command {
	image := &cobra.Command{Use: "image", Short: "Write container images as OCI archives, without a container engine",
		SilenceUsage: true, SilenceErrors: true}
	image.AddCommand(layerCommand(), archiveCommand())
	return image
}

func layerCommand() *cobra.Command {
	var out string
	command := &cobra.Command{Use: "layer --out FILE DIRECTORY", Short: "Write a directory as one layer", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			entries, err := oci.Tree(args[0])
			if err != nil {
				return err
			}
			return writeLayer(out, entries)
		}}
	command.Flags().StringVar(&out, "out", "", "the layer to write")
	_ = command.MarkFlagRequired("out")
	return command
}

func archiveCommand() *cobra.Command {
	var out string
	var image oci.Image
	var files, links []string
	command := &cobra.Command{Use: "archive --name NAME --out FILE", Short: "Write an archive of layers, files and links", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return writeImage(out, image, files, links) }}
	flags := command.Flags()
	flags.StringVar(&out, "out", "", "the archive to write")
	flags.StringVar(&image.Name, "name", "", "the image's whole name, with registry and tag")
	flags.StringArrayVar(&image.Layers, "layer", nil, "a layer below the files; may be repeated, the lowest first")
	flags.StringArrayVar(&files, "file", nil, "SOURCE:PATH[:MODE], a file of this machine (mode 0755 if not given); may be repeated")
	flags.StringArrayVar(&links, "link", nil, "TARGET:PATH, a symbolic link; may be repeated")
	flags.StringArrayVar(&image.Entrypoint, "entrypoint", nil, "the program, then its arguments; may be repeated")
	flags.StringVar(&image.User, "user", "", "uid:gid")
	flags.StringArrayVar(&image.Environment, "env", nil, "NAME=value; may be repeated")
	flags.StringVar(&image.Architecture, "arch", runtime.GOARCH, "as Go names it")
	_ = command.MarkFlagRequired("out")
	_ = command.MarkFlagRequired("name")
	return command
}

// writeImage puts the files and links into one layer of their own, on top.
func writeImage(out string, image oci.Image, files, links []string) error {
	var entries []oci.Entry
	for _, text := range files {
		entry, err := fileEntry(text)
		if err != nil {
			return err
		}
		missing, err := oci.MissingLibraries(entry.Source, image.Layers)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			return fmt.Errorf("%s needs %s, which no layer of the image has", entry.Source, strings.Join(missing, ", "))
		}
		entries = append(entries, entry)
	}
	for _, text := range links {
		target, path, ok := strings.Cut(text, ":")
		if !ok {
			return fmt.Errorf("--link %q: say TARGET:PATH", text)
		}
		entries = append(entries, oci.Entry{Path: path, Target: target})
	}
	layer := out + ".layer"
	defer os.Remove(layer)
	if err := writeLayer(layer, entries); err != nil {
		return err
	}
	image.Layers = append(image.Layers, layer)
	return oci.Write(out, image)
}

func fileEntry(text string) (oci.Entry, error) {
	parts := strings.Split(text, ":")
	entry := oci.Entry{Mode: 0o755}
	switch len(parts) {
	case 2:
	case 3:
		mode, err := strconv.ParseUint(parts[2], 8, 12)
		if err != nil {
			return entry, fmt.Errorf("--file %q: the mode is not octal", text)
		}
		entry.Mode = os.FileMode(mode)
	default:
		return entry, fmt.Errorf("--file %q: say SOURCE:PATH or SOURCE:PATH:MODE", text)
	}
	entry.Source, entry.Path = parts[0], parts[1]
	return entry, nil
}

func writeLayer(file string, entries []oci.Entry) error {
	out, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("failed to create the layer: %w", err)
	}
	return errors.Join(oci.WriteLayer(out, entries), out.Close())
}
