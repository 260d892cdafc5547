// Package oci writes container images as OCI archives: a tar of oci-layout, index.json and blobs, which
// containerd, kind, k3d and podman load without a registry. A manifest.json beside them serves docker load.
//
// The same input gives the same bytes: entries are sorted, times fixed, owners root, layers not compressed.
// Deliberately absent: pulling, pushing, more than one platform per archive.
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// epoch is the time of every file in a layer and of every image.
var epoch = time.Unix(0, 0).UTC()

// Entry is one file of a layer. Exactly one of Source, Content and Target says what it is; none: a directory.
type Entry struct {
	// Path is where it lies in the image, absolute.
	Path string
	// Source is the file of this machine whose bytes it takes.
	Source string
	// Content is the bytes themselves; nil unless they are given here.
	Content []byte
	// Target is where a symbolic link points.
	Target string
	// Mode holds the permission bits.
	Mode os.FileMode
}

// Image is what an archive holds.
type Image struct {
	// Name is the whole reference, with registry and tag.
	Name string
	// Layers are uncompressed tar files, the lowest first.
	Layers []string
	// Architecture is as Go names it.
	Architecture string
	// Entrypoint is the program and its first arguments.
	Entrypoint []string
	// User is uid:gid, or empty for root.
	User string
	// Environment is a list of NAME=value.
	Environment []string
}

// Tree lists a directory of this machine as the entries of a layer.
func Tree(root string) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(root, func(file string, found os.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		info, err := found.Info()
		if err != nil {
			return err
		}
		entry := Entry{Path: "/" + strings.TrimPrefix(strings.TrimPrefix(file, root), "/"), Mode: info.Mode()}
		switch {
		case info.Mode().IsRegular():
			entry.Source = file
		case info.Mode()&os.ModeSymlink != 0:
			if entry.Target, err = os.Readlink(file); err != nil {
				return err
			}
		case !info.IsDir():
			return fmt.Errorf("%s is neither file, directory nor link", file)
		}
		entries = append(entries, entry)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("failed to list the tree %s: %w", root, err)
	}
	return entries, nil
}

// WriteLayer writes entries, and the directories above them, as one tar.
func WriteLayer(w io.Writer, entries []Entry) error {
	entries = append([]Entry{}, entries...)
	sort.SliceStable(entries, func(a, b int) bool { return entries[a].Path < entries[b].Path })
	archive := tar.NewWriter(w)
	written := map[string]bool{"/": true}
	for _, entry := range entries {
		entry.Path = path.Clean("/" + entry.Path)
		if err := writeParents(archive, written, path.Dir(entry.Path)); err != nil {
			return err
		}
		if written[entry.Path] {
			return fmt.Errorf("the layer has %s twice", entry.Path)
		}
		written[entry.Path] = true
		if err := writeEntry(archive, entry); err != nil {
			return fmt.Errorf("failed to add %s to the layer: %w", entry.Path, err)
		}
	}
	return archive.Close()
}

func writeParents(archive *tar.Writer, written map[string]bool, directory string) error {
	if written[directory] {
		return nil
	}
	if err := writeParents(archive, written, path.Dir(directory)); err != nil {
		return err
	}
	written[directory] = true
	return archive.WriteHeader(header(directory+"/", tar.TypeDir, 0o755))
}

func header(name string, kind byte, mode os.FileMode) *tar.Header {
	bits := int64(mode.Perm())
	if mode&os.ModeSticky != 0 {
		bits |= 0o1000
	}
	return &tar.Header{Typeflag: kind, Name: strings.TrimPrefix(name, "/"), Mode: bits, ModTime: epoch, Format: tar.FormatPAX}
}

func writeEntry(archive *tar.Writer, entry Entry) error {
	switch {
	case entry.Target != "":
		link := header(entry.Path, tar.TypeSymlink, 0o777)
		link.Linkname = entry.Target
		return archive.WriteHeader(link)
	case entry.Content != nil:
		file := header(entry.Path, tar.TypeReg, entry.Mode)
		file.Size = int64(len(entry.Content))
		if err := archive.WriteHeader(file); err != nil {
			return err
		}
		_, err := archive.Write(entry.Content)
		return err
	case entry.Source != "":
		return writeFile(archive, entry)
	default:
		return archive.WriteHeader(header(entry.Path+"/", tar.TypeDir, entry.Mode))
	}
}

func writeFile(archive *tar.Writer, entry Entry) error {
	source, err := os.Open(entry.Source)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	file := header(entry.Path, tar.TypeReg, entry.Mode)
	file.Size = info.Size()
	if err := archive.WriteHeader(file); err != nil {
		return err
	}
	_, err = io.Copy(archive, source)
	return err
}

// descriptor names a blob, as every OCI document does.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (d descriptor) path() string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }

// Write writes the image's archive to file, whole or not at all.
func Write(file string, image Image) error {
	temporary := file + ".partial"
	defer os.Remove(temporary)
	out, err := os.Create(temporary)
	if err != nil {
		return fmt.Errorf("failed to create the archive: %w", err)
	}
	defer out.Close()
	if err := writeArchive(out, image); err != nil {
		return fmt.Errorf("failed to write the archive of %s: %w", image.Name, err)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("failed to write the archive of %s: %w", image.Name, err)
	}
	return os.Rename(temporary, file)
}

func writeArchive(out io.Writer, image Image) error {
	archive := tar.NewWriter(out)
	layers := make([]descriptor, 0, len(image.Layers))
	diffs := make([]string, 0, len(image.Layers))
	for _, layer := range image.Layers {
		described, err := describe(layer)
		if err != nil {
			return err
		}
		layers, diffs = append(layers, described), append(diffs, described.Digest)
		if err := writeEntry(archive, Entry{Path: described.path(), Source: layer, Mode: 0o644}); err != nil {
			return err
		}
	}
	add := func(mediaType string, document any) (descriptor, error) {
		return addDocument(archive, mediaType, document)
	}
	config, err := add("application/vnd.oci.image.config.v1+json", image.config(diffs))
	if err != nil {
		return err
	}
	manifest, err := add("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config, "layers": layers})
	if err != nil {
		return err
	}
	manifest.Platform = map[string]string{"architecture": image.Architecture, "os": "linux"}
	manifest.Annotations = map[string]string{
		"io.containerd.image.name":          image.Name,
		"org.opencontainers.image.ref.name": image.Name[strings.LastIndex(image.Name, ":")+1:],
	}
	for _, file := range []struct {
		path    string
		content any
	}{
		{"index.json", map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}}},
		{"manifest.json", []any{map[string]any{"Config": config.path(), "RepoTags": []string{image.Name}, "Layers": paths(layers)}}},
		{"oci-layout", map[string]any{"imageLayoutVersion": "1.0.0"}},
	} {
		content, err := json.Marshal(file.content)
		if err != nil {
			return err
		}
		if err := writeEntry(archive, Entry{Path: file.path, Content: content, Mode: 0o644}); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (image Image) config(diffs []string) map[string]any {
	environment := image.Environment
	if len(environment) == 0 {
		environment = []string{"PATH=/usr/sbin:/usr/bin"}
	}
	return map[string]any{
		"architecture": image.Architecture, "os": "linux", "created": epoch,
		"config": map[string]any{"User": image.User, "Entrypoint": image.Entrypoint, "Env": environment, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	}
}

func paths(blobs []descriptor) []string {
	list := make([]string, 0, len(blobs))
	for _, blob := range blobs {
		list = append(list, blob.path())
	}
	return list
}

func describe(layer string) (descriptor, error) {
	file, err := os.Open(layer)
	if err != nil {
		return descriptor{}, err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err != nil {
		return descriptor{}, err
	}
	return descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: fmt.Sprintf("sha256:%x", hash.Sum(nil)), Size: size}, nil
}

func addDocument(archive *tar.Writer, mediaType string, document any) (descriptor, error) {
	content, err := json.Marshal(document)
	if err != nil {
		return descriptor{}, err
	}
	content = bytes.TrimSpace(content)
	blob := descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(content)), Size: int64(len(content))}
	return blob, writeEntry(archive, Entry{Path: blob.path(), Content: content, Mode: 0o644})
}
