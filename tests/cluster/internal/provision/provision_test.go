package provision

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// conditionBound is how long the controller may take; it needs milliseconds.
const conditionBound = 20 * time.Second

func class() *storage.StorageClass {
	return &storage.StorageClass{ObjectMeta: meta.ObjectMeta{Name: "node-local"}, Provisioner: Provisioner}
}

func claim() *core.PersistentVolumeClaim {
	name := "node-local"
	return &core.PersistentVolumeClaim{
		ObjectMeta: meta.ObjectMeta{Namespace: "shop", Name: "orders-1-data", UID: types.UID("7e57"),
			Annotations: map[string]string{selectedNode: "node-2"}},
		Spec: core.PersistentVolumeClaimSpec{
			StorageClassName: &name,
			AccessModes:      []core.PersistentVolumeAccessMode{core.ReadWriteOncePod},
			Resources:        core.VolumeResourceRequirements{Requests: core.ResourceList{core.ResourceStorage: resource.MustParse("8Gi")}},
		},
	}
}

func TestAVolumeIsPinnedToItsNodeAndItsClaim(t *testing.T) {
	volume := Volume(claim(), class(), "node-2", "/dir/node-2/volumes/pvc-7e57")
	spec := volume.Spec
	term := spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	if volume.Name != "pvc-7e57" || term.Key != "kubernetes.io/hostname" || term.Values[0] != "node-2" {
		t.Errorf("volume %s, affinity %v", volume.Name, term)
	}
	if spec.ClaimRef.Namespace != "shop" || spec.ClaimRef.Name != "orders-1-data" || spec.ClaimRef.UID != "7e57" {
		t.Errorf("claim %v", spec.ClaimRef)
	}
	if size := spec.Capacity[core.ResourceStorage]; size.String() != "8Gi" || spec.AccessModes[0] != core.ReadWriteOncePod {
		t.Errorf("capacity %s, access %v", size.String(), spec.AccessModes)
	}
	if spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		t.Errorf("policy %s where the class names none", spec.PersistentVolumeReclaimPolicy)
	}
	retain := core.PersistentVolumeReclaimRetain
	kept := class()
	kept.ReclaimPolicy = &retain
	if policy := Volume(claim(), kept, "node-2", "/x").Spec.PersistentVolumeReclaimPolicy; policy != retain {
		t.Errorf("policy %s where the class says Retain", policy)
	}
}

func TestOnlyAnUnservedClaimOfOurClassWithANodeIsWanted(t *testing.T) {
	if node, wanted := Wanted(claim(), class()); !wanted || node != "node-2" {
		t.Errorf("node %q, wanted %v", node, wanted)
	}
	foreign, bound, early, leaving := class(), claim(), claim(), claim()
	foreign.Provisioner = "someone.else/disk"
	bound.Spec.VolumeName = "pvc-7e57"
	early.Annotations = nil
	leaving.DeletionTimestamp = &meta.Time{}
	for name, wanted := range map[string]bool{
		"another class": second(Wanted(claim(), foreign)), "no class": second(Wanted(claim(), nil)),
		"bound": second(Wanted(bound, class())), "no node yet": second(Wanted(early, class())), "going": second(Wanted(leaving, class())),
	} {
		if wanted {
			t.Errorf("%s: wanted", name)
		}
	}
}

func second(_ string, wanted bool) bool { return wanted }

func TestWhatADirectoryOfOneNodeCannotBeIsRefused(t *testing.T) {
	if refusal := Refusal(claim()); refusal != "" {
		t.Errorf("refused: %s", refusal)
	}
	shared, block, copied := claim(), claim(), claim()
	shared.Spec.AccessModes = []core.PersistentVolumeAccessMode{core.ReadWriteMany}
	mode := core.PersistentVolumeBlock
	block.Spec.VolumeMode = &mode
	copied.Spec.DataSource = &core.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "other"}
	for name, refused := range map[string]*core.PersistentVolumeClaim{"shared": shared, "block": block, "copied": copied} {
		if Refusal(refused) == "" {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestASizeIsEnforcedWhereTheClassSaysSo(t *testing.T) {
	enforced := class()
	enforced.Parameters = map[string]string{"size": "enforced"}
	if Enforced(class()) || !Enforced(enforced) {
		t.Errorf("enforced: %v without the parameter, %v with it", Enforced(class()), Enforced(enforced))
	}
}

// mounts notes what is mounted, by path.
type mounts map[string]string

func (m mounts) Mount(_, image, path string) error { m[path] = image; return nil }

func (m mounts) Unmount(_, path string) error { delete(m, path); return nil }

func TestAVolumeWithASizeIsAFileSystemAndGoesWithIt(t *testing.T) {
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("mkfs.ext4 is missing")
	}
	ctx, mounted := context.Background(), mounts{}
	c := &Controller{dir: t.TempDir(), client: fake.NewClientset(), mounter: mounted}
	path := filepath.Join(c.dir, "node-2", "volumes", "pvc-7e57")
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	small := claim()
	small.Spec.Resources.Requests[core.ResourceStorage] = resource.MustParse("8Mi")
	if err := c.limit(ctx, small, "node-2", path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(Image(path)); err != nil || info.Size() != 8<<20 || mounted[path] != Image(path) {
		t.Fatalf("image %v, %v; mounted: %v", info, err, mounted)
	}
	released := Volume(small, class(), "node-2", path)
	released.Status.Phase = core.VolumeReleased
	if err := c.remove(ctx, released); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(Image(path)); !os.IsNotExist(err) || len(mounted) > 0 {
		t.Errorf("the image: %v; still mounted: %v", err, mounted)
	}
}

func TestOnlyAReleasedVolumeOfOursWithPolicyDeleteIsDiscarded(t *testing.T) {
	released := Volume(claim(), class(), "node-2", "/dir/node-2/volumes/pvc-7e57")
	released.Status.Phase = core.VolumeReleased
	if path, discarded := Discarded(released); !discarded || path != "/dir/node-2/volumes/pvc-7e57" {
		t.Errorf("path %q, discarded %v", path, discarded)
	}
	bound, kept, foreign := released.DeepCopy(), released.DeepCopy(), released.DeepCopy()
	bound.Status.Phase = core.VolumeBound
	kept.Spec.PersistentVolumeReclaimPolicy = core.PersistentVolumeReclaimRetain
	foreign.Annotations = nil
	for name, volume := range map[string]*core.PersistentVolume{"bound": bound, "kept": kept, "foreign": foreign} {
		if _, discarded := Discarded(volume); discarded {
			t.Errorf("%s: discarded", name)
		}
	}
}

// start runs the controller against an API server in memory, with one node.
func start(t *testing.T) (*fake.Clientset, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "node-2", "volumes"), 0o755); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(class())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, client, dir, mounts{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller ended with: %v", err)
		}
	})
	return client, dir
}

// eventually waits for a condition.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(conditionBound)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", conditionBound, err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAClaimBecomesADirectoryAndAVolumeAndGoesWithThem(t *testing.T) {
	ctx := context.Background()
	client, dir := start(t)
	if _, err := client.CoreV1().PersistentVolumeClaims("shop").Create(ctx, claim(), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var volume *core.PersistentVolume
	eventually(t, func() (err error) {
		volume, err = client.CoreV1().PersistentVolumes().Get(ctx, "pvc-7e57", meta.GetOptions{})
		return err
	})
	path := filepath.Join(dir, "node-2", "volumes", "pvc-7e57")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 || volume.Spec.Local.Path != path {
		t.Fatalf("directory %v, %v; the volume lies at %s", info, err, volume.Spec.Local.Path)
	}
	if err := os.WriteFile(filepath.Join(path, "log"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	volume.Status.Phase = core.VolumeReleased
	if _, err := client.CoreV1().PersistentVolumes().UpdateStatus(ctx, volume, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, err := client.CoreV1().PersistentVolumes().Get(ctx, "pvc-7e57", meta.GetOptions{}); !errors.IsNotFound(err) {
			return fmt.Errorf("the volume is still there (%v)", err)
		}
		return nil
	})
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestAVolumeThatLiesElsewhereIsNeverRemoved(t *testing.T) {
	ctx := context.Background()
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "precious"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Controller{dir: t.TempDir(), client: fake.NewClientset()}
	forged := Volume(claim(), class(), "node-2", elsewhere)
	forged.Status.Phase = core.VolumeReleased
	for _, path := range []string{elsewhere, filepath.Join(c.dir, "node-2", "volumes", "pvc-7e57", "..", "pvc-other"), c.dir} {
		forged.Spec.Local.Path = path
		if err := c.remove(ctx, forged); err == nil {
			t.Errorf("%s was removed", path)
		}
	}
	if _, err := os.Stat(filepath.Join(elsewhere, "precious")); err != nil {
		t.Error(err)
	}
}
