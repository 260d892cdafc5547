package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// layerFile writes entries as a layer in a temporary directory.
func layerFile(t *testing.T, entries ...Entry) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(WriteLayer(out, entries), out.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// read lists a tar: headers in order, contents by name.
func read(t *testing.T, file string) ([]*tar.Header, map[string][]byte) {
	t.Helper()
	opened, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	var headers []*tar.Header
	contents := map[string][]byte{}
	archive := tar.NewReader(opened)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return headers, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		headers = append(headers, header)
		if contents[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALayerHasParentsBeforeChildrenAndNothingOfThisMachine(t *testing.T) {
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	headers, contents := read(t, layerFile(t,
		Entry{Path: "/usr/bin/program", Source: source, Mode: 0o755},
		Entry{Path: "/usr/bin/alias", Target: "program"},
		Entry{Path: "/tmp", Mode: os.ModeDir | os.ModeSticky | 0o777},
		Entry{Path: "/etc/empty", Content: []byte{}, Mode: 0o644}))
	var names []string
	for _, header := range headers {
		names = append(names, fmt.Sprintf("%s %o", header.Name, header.Mode))
		if header.Uid != 0 || header.Gid != 0 || header.Uname != "" || !header.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s has owner %d:%d %q and time %s", header.Name, header.Uid, header.Gid, header.Uname, header.ModTime)
		}
	}
	want := []string{"etc/ 755", "etc/empty 644", "tmp/ 1777", "usr/ 755", "usr/bin/ 755", "usr/bin/alias 777", "usr/bin/program 755"}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("entries %q, want %q", names, want)
	}
	if string(contents["usr/bin/program"]) != "bytes" {
		t.Errorf("the program holds %q", contents["usr/bin/program"])
	}
}

func TestTwoEntriesOfOnePathAreRefused(t *testing.T) {
	err := WriteLayer(io.Discard, []Entry{{Path: "/a", Content: []byte("1")}, {Path: "a", Content: []byte("2")}})
	if err == nil || !strings.Contains(err.Error(), "/a twice") {
		t.Errorf("error: %v", err)
	}
}

func TestATreeComesBackAsItWas(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755),
		os.WriteFile(filepath.Join(root, "usr/lib/x.so"), []byte("so"), 0o644),
		os.Symlink("usr/lib", filepath.Join(root, "lib")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	entries, err := Tree(root)
	if err != nil {
		t.Fatal(err)
	}
	headers, contents := read(t, layerFile(t, entries...))
	if len(headers) != 4 || headers[0].Name != "lib" || headers[0].Linkname != "usr/lib" || string(contents["usr/lib/x.so"]) != "so" {
		t.Errorf("headers %v", headers)
	}
}

// sample is an image of two layers.
func sample(t *testing.T) Image {
	return Image{
		Name:         "localhost/understudy/operator:dev",
		Layers:       []string{layerFile(t, Entry{Path: "/base", Content: []byte("base"), Mode: 0o644}), layerFile(t, Entry{Path: "/top", Content: []byte("top"), Mode: 0o755})},
		Architecture: "amd64", Entrypoint: []string{"/usr/bin/understudy", "agent"}, User: "65532:65532",
	}
}

type document struct {
	Manifests []descriptor
	Config    json.RawMessage
	Layers    []descriptor
	RootFS    struct {
		DiffIDs []string `json:"diff_ids"`
	}
	Architecture string
}

func TestEveryBlobOfAnArchiveIsWhatItsNameSays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(file, sample(t)); err != nil {
		t.Fatal(err)
	}
	_, contents := read(t, file)
	blobs := 0
	for name, content := range contents {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			blobs++
			if digest != fmt.Sprintf("%x", sha256.Sum256(content)) {
				t.Errorf("%s holds something else", name)
			}
		}
	}
	if blobs != 4 || string(contents["oci-layout"]) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("%d blobs, layout %s", blobs, contents["oci-layout"])
	}
}

func TestAnArchiveLeadsFromItsIndexToItsLayers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := Write(file, sample(t)); err != nil {
		t.Fatal(err)
	}
	_, contents := read(t, file)
	var index, manifest, config document
	decode := func(content []byte, into any) {
		t.Helper()
		if err := json.Unmarshal(content, into); err != nil {
			t.Fatal(err)
		}
	}
	decode(contents["index.json"], &index)
	top := index.Manifests[0]
	if top.Annotations["io.containerd.image.name"] != "localhost/understudy/operator:dev" || top.Annotations["org.opencontainers.image.ref.name"] != "dev" {
		t.Errorf("annotations %v", top.Annotations)
	}
	decode(contents[top.path()], &manifest)
	var described descriptor
	decode(manifest.Config, &described)
	decode(contents[described.path()], &config)
	if len(manifest.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 || config.Architecture != "amd64" {
		t.Fatalf("manifest %+v, config %+v", manifest, config)
	}
	for n, layer := range manifest.Layers {
		if config.RootFS.DiffIDs[n] != layer.Digest || int64(len(contents[layer.path()])) != layer.Size {
			t.Errorf("layer %d: %+v, diff %s, %d bytes", n, layer, config.RootFS.DiffIDs[n], len(contents[layer.path()]))
		}
	}
	if text := string(contents[described.path()]); !strings.Contains(text, `"Entrypoint":["/usr/bin/understudy","agent"]`) || !strings.Contains(text, `"User":"65532:65532"`) {
		t.Errorf("config %s", text)
	}
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(contents["manifest.json"], &docker)
	if len(docker) != 1 || docker[0].Config != described.path() || len(docker[0].Layers) != 2 {
		t.Errorf("manifest.json %+v", docker)
	}
}

func TestTheSameImageIsTheSameBytes(t *testing.T) {
	var written [][]byte
	for range 2 {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := Write(file, sample(t)); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		written = append(written, content)
	}
	if !bytes.Equal(written[0], written[1]) {
		t.Error("two archives of one image differ")
	}
}

func TestAnArchiveThatFailsLeavesTheOldOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := sample(t)
	image.Layers = append(image.Layers, filepath.Join(t.TempDir(), "missing"))
	if err := Write(file, image); err == nil {
		t.Fatal("an image with a missing layer was written")
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Fatalf("left: %v, %v", left, err)
	}
	if content, _ := os.ReadFile(file); string(content) != "old" {
		t.Errorf("the old archive holds %q now", content)
	}
}

func TestALibraryThatNoLayerHasIsNamed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs a program of Linux")
	}
	needed, err := MissingLibraries("/bin/true", nil)
	if err != nil || len(needed) == 0 || needed[0] != "libc.so.6" {
		t.Fatalf("needed: %v, %v", needed, err)
	}
	with := layerFile(t, Entry{Path: "/usr/lib/x86_64-linux-gnu/libc.so.6", Content: []byte{}, Mode: 0o644})
	if missing, err := MissingLibraries("/bin/true", []string{with}); err != nil || len(missing) != 0 {
		t.Errorf("missing: %v, %v", missing, err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 0\n# longer than an ELF header\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if missing, err := MissingLibraries(script, nil); err != nil || len(missing) != 0 {
		t.Errorf("a script: %v, %v", missing, err)
	}
}
