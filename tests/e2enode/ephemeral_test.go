package e2enode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ephemeralLimit is the limit of ephemeral storage of the applications in testdata.
const ephemeralLimit = 64 << 20

func TestACacheInTheEphemeralStorageDoesNotEvictThePod(t *testing.T) {
	s := newSite(t, "ephemeral")
	const objects = 75 // of 1 MB each
	s.fill(objects, "first")
	s.kubectl("apply", "-f", "testdata/ephemeral.yaml")
	p := s.pod("filling")
	p.sees("app", "present", fmt.Sprintf("filler-%02d", objects-1), "first")
	used := func() int64 {
		t.Helper()
		var bytes int64
		s.until("the kubelet knows that the cache takes more than the application may", func(ctx context.Context) (err error) {
			if bytes, err = s.ephemeralStorage(ctx, p.UID); err == nil && bytes <= ephemeralLimit {
				err = fmt.Errorf("it takes %d bytes", bytes)
			}
			return err
		})
		return bytes
	}
	used()
	// Each object anew: the write-ahead log and the free pages grow as well.
	for _, content := range []string{"second", "third"} {
		s.fill(objects, content)
		p.sees("app", "updated", fmt.Sprintf("filler-%02d", objects-1), content)
	}
	t.Logf("the pod takes %d MiB of ephemeral storage", used()>>20)

	// The kubelet evicts pods of this node by the same figures.
	s.kubectl("apply", "-f", "testdata/evicted.yaml")
	other := s.pod("evicted")
	volume := filepath.Join("/var/lib/kubelet/pods", string(other.UID), "volumes/kubernetes.io~empty-dir/rockpool-cache")
	s.try(os.WriteFile(filepath.Join(volume, "file"), make([]byte, ephemeralLimit+ephemeralLimit/8), 0o600))
	s.until("the kubelet evicts a pod that takes as much without Rockpool", func(ctx context.Context) error {
		if evicted, err := s.evicted(ctx, other.UID); err != nil || !evicted {
			return errors.Join(err, errors.New("it is not evicted"))
		}
		return nil
	})
	used()
	if evicted, err := s.evicted(s.ctx, p.UID); err != nil || evicted {
		t.Errorf("evicted: %v, %v", evicted, err)
	}
	if now := s.pod("filling"); now.UID != p.UID || now.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod is %s, was %s: %+v", now.UID, p.UID, now.Status.ContainerStatuses)
	}
}

// evicted reports whether the kubelet has evicted a pod. A program that ends well at SIGTERM leaves a
// pod whose status does not tell.
func (s *site) evicted(ctx context.Context, uid types.UID) (bool, error) {
	events, err := testEnv.Client().CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=Evicted,involvedObject.uid=" + string(uid)})
	if err != nil {
		return false, err
	}
	return len(events.Items) > 0, nil
}

// fill creates or changes ConfigMaps, not over the link. Each has 1 MB in JSON.
func (s *site) fill(n int, content string) {
	s.t.Helper()
	// The program does not print binary data: its logs are ephemeral storage, too.
	binary := map[string][]byte{"content": bytes.Repeat([]byte(content[:1]), 750_000)}
	api := testEnv.Client().CoreV1().ConfigMaps(s.namespace)
	for i := range n {
		cm := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("filler-%02d", i)},
			Data:       map[string]string{"value": content}, BinaryData: binary,
		}
		_, err := api.Update(s.ctx, cm, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) {
			_, err = api.Create(s.ctx, cm, metav1.CreateOptions{})
		}
		s.try(err)
	}
}

// ephemeralStorage is what the kubelet knows of a pod's use.
func (s *site) ephemeralStorage(ctx context.Context, uid types.UID) (int64, error) {
	nodes, err := testEnv.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	raw, err := testEnv.Client().CoreV1().RESTClient().Get().Resource("nodes").Name(nodes.Items[0].Name).SubResource("proxy").Suffix("stats/summary").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	// https://kubernetes.io/docs/reference/instrumentation/node-metrics/
	var summary struct {
		Pods []struct {
			PodRef  struct{ UID types.UID }
			Storage struct{ UsedBytes *int64 } `json:"ephemeral-storage"`
		}
	}
	if err := json.Unmarshal(raw, &summary); err != nil {
		return 0, err
	}
	for _, p := range summary.Pods {
		if p.PodRef.UID == uid && p.Storage.UsedBytes != nil {
			return *p.Storage.UsedBytes, nil
		}
	}
	return 0, errors.New("the kubelet has no figures of the pod yet")
}
