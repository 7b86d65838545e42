package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"rockpool.dev/tests/bed/link"
)

// over returns direct access over a link.
func (b *bench) over(ctx context.Context, wan *link.Link) (*target, error) {
	t := b.directTarget()
	t.config = rest.CopyConfig(t.config)
	t.config.Host = "https://" + wan.Address()
	return t, b.connect(ctx, t)
}

// remote is one way to the API server, over a link of its own.
type remote struct {
	*target
	wan *link.Link
}

func (r *remote) close() {
	if r.sidecar != nil {
		r.sidecar.stop()
	}
	r.wan.Close()
}

// remotes are direct access and a sidecar, each over a link of its own.
func (b *bench) remotes(ctx context.Context, name string, settings ...string) (all []*remote, err error) {
	for _, direct := range []bool{true, false} {
		r := &remote{}
		if r.wan, err = link.New(b.plane.Address()); err != nil {
			break
		}
		if direct {
			r.target, err = b.over(ctx, r.wan)
		} else {
			r.target, err = b.startRemote(ctx, name, r.wan, settings...)
		}
		if err != nil {
			r.wan.Close()
			break
		}
		all = append(all, r)
	}
	if err != nil {
		for _, r := range all {
			r.close()
		}
		return nil, err
	}
	return all, nil
}

// thin measures a list that fills a thin link.
func (b *bench) thin(ctx context.Context) error {
	const path = "/api/v1/namespaces/" + someNamespace + "/secrets?labelSelector=bulk"
	if err := b.bulk(ctx, 16, 96<<10); err != nil { // 2 MiB on the link
		return err
	}
	for _, l := range []struct {
		name        string
		kbit, queue int
		roundTrip   time.Duration
	}{
		{"1 Mbit/s, 64 KiB, 40 ms", 1000, 64 << 10, 40 * time.Millisecond},
		{"1 Mbit/s, 256 KiB, 400 ms", 1000, 256 << 10, 400 * time.Millisecond},
	} {
		all, err := b.remotes(ctx, "thin")
		if err != nil {
			return err
		}
		shape := link.Shape{Rate: l.kbit * 1000 / 8, Queue: l.queue, RoundTrip: l.roundTrip}
		s := series{}
		for _, r := range all {
			r.wan.SetShape(shape, shape)
			took, _, failure := r.timed(ctx, path, asJSON)
			if failure != nil {
				err = errors.Join(err, fmt.Errorf("%s over %s: %w", r.name, l.name, failure))
			}
			s.add(r.name, took.Seconds())
		}
		for _, r := range all {
			r.close()
		}
		if err != nil {
			return err
		}
		b.report.compare("LIST 2 MB over "+l.name, "to the last byte", "s", s).atMost(1.1, ofRatio)
	}
	return nil
}

// bulk creates Secrets whose data does not compress.
func (b *bench) bulk(ctx context.Context, count, size int) error {
	api := b.plane.Client().CoreV1().Secrets(someNamespace)
	for i := range count {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bulk-%d", i), Labels: map[string]string{"bulk": ""}},
			Data:       map[string][]byte{"random": data},
		}
		if _, err := api.Create(ctx, secret, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// pause waits for a time, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
