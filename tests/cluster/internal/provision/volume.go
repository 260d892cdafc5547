// Package provision makes the node-bound volumes of the local cluster: a claim that the scheduler has given a node
// becomes a directory of that node and a local PersistentVolume pinned to it, so a lost node really takes its
// volumes with it.
//
// Invariants: a volume's name is derived from its claim's UID, so a repeated attempt finds its own work; a
// directory is removed only below the node's directory of volumes, after its claim is gone, and only when the
// volume's policy is Delete. A volume is as large as the disk below it, unless its class says that sizes are
// enforced: it is then a file system of the claim's size. Deliberately absent: raw block volumes, resizing, snapshots.
package provision

import (
	"fmt"
	"path/filepath"
	"slices"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Provisioner is the name under which StorageClasses ask for these volumes.
const Provisioner = "understudy.dev/node-local"

// The annotations by which scheduler, volume controller and provisioner talk to each other.
const (
	selectedNode  = "volume.kubernetes.io/selected-node"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

// VolumeName is the name of the volume, and of its directory, for a claim.
func VolumeName(claim *core.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// VolumePath is where the volumes of a node lie below the cluster's directory.
func VolumePath(dir, node, volume string) string { return filepath.Join(dir, node, "volumes", volume) }

// Enforced says whether the volumes of a class are as large as their claims and no larger.
func Enforced(class *storage.StorageClass) bool { return class.Parameters["size"] == "enforced" }

// Image is the file that holds the file system of a volume whose size is enforced.
func Image(path string) string { return path + ".img" }

// Wanted says whether a claim is ours to serve now, and on which node.
func Wanted(claim *core.PersistentVolumeClaim, class *storage.StorageClass) (node string, wanted bool) {
	if class == nil || class.Provisioner != Provisioner || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil {
		return "", false
	}
	node = claim.Annotations[selectedNode]
	return node, node != ""
}

// Refusal says why a claim can never be served; empty if it can.
func Refusal(claim *core.PersistentVolumeClaim) string {
	if mode := claim.Spec.VolumeMode; mode != nil && *mode != core.PersistentVolumeFilesystem {
		return fmt.Sprintf("volumeMode %s: only Filesystem is served", *mode)
	}
	if claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil {
		return "a data source is not served"
	}
	for _, mode := range claim.Spec.AccessModes {
		if !slices.Contains([]core.PersistentVolumeAccessMode{core.ReadWriteOnce, core.ReadWriteOncePod}, mode) {
			return fmt.Sprintf("access mode %s: a volume of one node is ReadWriteOnce or ReadWriteOncePod", mode)
		}
	}
	return ""
}

// Volume is the object that serves a claim on a node from a directory.
func Volume(claim *core.PersistentVolumeClaim, class *storage.StorageClass, node, path string) *core.PersistentVolume {
	policy := core.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: VolumeName(claim), Annotations: map[string]string{provisionedBy: Provisioner}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: policy,
			StorageClassName:              class.Name,
			ClaimRef: &core.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			PersistentVolumeSource: core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{
					{Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node}}}}}}},
		},
	}
}

// Discarded says whether a volume is ours, has lost its claim, and is to go with its data; path is its directory.
func Discarded(volume *core.PersistentVolume) (path string, discarded bool) {
	if volume.Annotations[provisionedBy] != Provisioner || volume.Status.Phase != core.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete || volume.Spec.Local == nil {
		return "", false
	}
	return volume.Spec.Local.Path, true
}
