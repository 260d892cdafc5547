package provision

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Mounter shows a node the file system of a volume, and takes it away.
type Mounter interface {
	// Mount mounts the image at path, open to all users.
	Mount(node, image, path string) error
	// Unmount ends what is mounted at path; nothing mounted is no error.
	Unmount(node, path string) error
}

// Controller serves claims and discards released volumes, one at a time.
type Controller struct {
	// dir is the cluster's directory.
	dir     string
	mounter Mounter
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	events  record.EventRecorder
	queue   workqueue.TypedRateLimitingInterface[key]
}

// key names what to look at: a claim by namespace and name, a volume by name alone.
type key struct{ namespace, name string }

// Retries of a failed attempt: quick at first, for tests wait on it, and bounded.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// Run works until ctx ends.
func Run(ctx context.Context, client kubernetes.Interface, dir string, mounter Mounter) error {
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typed.EventSinkImpl{Interface: client.CoreV1().Events("")})
	factory := informers.NewSharedInformerFactory(client, 0)
	c := &Controller{
		dir: dir, mounter: mounter, client: client,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		events:  broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: Provisioner}),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[key](firstRetry, lastRetry)),
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().PersistentVolumeClaims().Informer(), factory.Core().V1().PersistentVolumes().Informer(),
	} {
		if _, err := informer.AddEventHandler(c.handler()); err != nil {
			return fmt.Errorf("failed to watch: %w", err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() { <-ctx.Done(); c.queue.ShutDown() }()
	for {
		item, shut := c.queue.Get()
		if shut {
			return nil
		}
		if err := c.reconcile(ctx, item); err != nil {
			klog.ErrorS(err, "Attempt failed, will be repeated", "namespace", item.namespace, "name", item.name)
			c.queue.AddRateLimited(item)
		} else {
			c.queue.Forget(item)
		}
		c.queue.Done(item)
	}
}

func (c *Controller) handler() cache.ResourceEventHandler {
	add := func(object any) {
		if found, ok := object.(meta.Object); ok {
			c.queue.Add(key{found.GetNamespace(), found.GetName()})
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, now any) { add(now) }}
}

func (c *Controller) reconcile(ctx context.Context, item key) error {
	if item.namespace == "" {
		return c.discard(ctx, item.name)
	}
	claim, err := c.claims.PersistentVolumeClaims(item.namespace).Get(item.name)
	if errors.IsNotFound(err) || (err == nil && claim.Spec.StorageClassName == nil) {
		return nil
	}
	if err != nil {
		return err
	}
	class, err := c.classes.Get(*claim.Spec.StorageClassName)
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	node, wanted := Wanted(claim, class)
	if !wanted {
		return nil
	}
	if err := c.serve(ctx, claim, class, node); err != nil {
		c.events.Event(claim, core.EventTypeWarning, "ProvisioningFailed", err.Error())
		return err
	}
	return nil
}

// serve makes the directory first: a volume object never stands for a directory that is not there.
func (c *Controller) serve(ctx context.Context, claim *core.PersistentVolumeClaim, class *storage.StorageClass, node string) error {
	if refusal := Refusal(claim); refusal != "" {
		c.events.Event(claim, core.EventTypeWarning, "ProvisioningFailed", refusal)
		return nil
	}
	path := VolumePath(c.dir, node, VolumeName(claim))
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fmt.Errorf("node %s has no place for volumes: %w", node, err)
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return fmt.Errorf("failed to make the volume's directory: %w", err)
	}
	// Whatever user the pod runs as may write, with or without fsGroup; the umask would take that away.
	if err := os.Chmod(path, 0o777); err != nil {
		return fmt.Errorf("failed to open the volume's directory to all users: %w", err)
	}
	if Enforced(class) {
		if err := c.limit(ctx, claim, node, path); err != nil {
			return err
		}
	}
	_, err := c.client.CoreV1().PersistentVolumes().Create(ctx, Volume(claim, class, node, path), meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("failed to create the volume: %w", err)
	}
	c.events.Eventf(claim, core.EventTypeNormal, "ProvisioningSucceeded", "made %s on %s", VolumeName(claim), node)
	return nil
}

// limit mounts a file system of the claim's size over the volume's directory. A repeated attempt begins anew: nobody
// uses a volume whose object is not made yet.
func (c *Controller) limit(ctx context.Context, claim *core.PersistentVolumeClaim, node, path string) error {
	if err := c.mounter.Unmount(node, path); err != nil {
		return err
	}
	bytes := claim.Spec.Resources.Requests[core.ResourceStorage]
	kibibytes := fmt.Sprintf("%dk", bytes.Value()/1024)
	// No reserve for the administrator: full means full for everybody.
	command := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", Image(path), kibibytes)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to make the volume's file system: %w: %s", err, said)
	}
	return c.mounter.Mount(node, Image(path), path)
}

func (c *Controller) discard(ctx context.Context, name string) error {
	volume, err := c.volumes.Get(name)
	if errors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.remove(ctx, volume)
}

// remove removes a discarded volume: the directory, if it is one of this cluster's volumes, then the object.
func (c *Controller) remove(ctx context.Context, volume *core.PersistentVolume) error {
	path, discarded := Discarded(volume)
	if !discarded {
		return nil
	}
	name := volume.Name
	below, err := filepath.Rel(c.dir, path)
	parts := strings.Split(below, "/")
	if err != nil || len(parts) != 3 || parts[1] != "volumes" || parts[2] != name {
		return fmt.Errorf("volume %s lies at %s, which is not a place of this cluster's volumes", name, path)
	}
	if _, err := os.Stat(Image(path)); err == nil {
		if err := c.mounter.Unmount(parts[0], path); err != nil {
			return err
		}
	}
	for _, file := range []string{path, Image(path)} {
		if err := os.RemoveAll(file); err != nil {
			return fmt.Errorf("failed to remove the volume's directory: %w", err)
		}
	}
	err = c.client.CoreV1().PersistentVolumes().Delete(ctx, name, meta.DeleteOptions{})
	if err != nil && !errors.IsNotFound(err) {
		return fmt.Errorf("failed to delete the volume: %w", err)
	}
	return nil
}
