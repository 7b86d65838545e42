package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// recordedAll checks that the complete collections of a resource in a namespace have the server's
// objects in their versions, and at least the given resourceVersion.
func (b *bench) recordedAll(ctx context.Context, resource, namespace string, version uint64) error {
	want, err := b.versions(ctx, resource, namespace)
	if err != nil {
		return err
	}
	var problem string
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 10*time.Second, true, func(ctx context.Context) (bool, error) {
		problem, err = b.difference(ctx, resource, namespace, version, want)
		return problem == "", err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		b.report.wrong("%s of namespace %s in the cache: %s", resource, namespace, problem)
		return nil
	}
	return err
}

// versions returns the resourceVersions of the server's objects, by name.
func (b *bench) versions(ctx context.Context, resource, namespace string) (map[string]string, error) {
	body, err := b.direct.body(ctx, "/api/v1/namespaces/"+namespace+"/"+resource, asJSON)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []metav1.PartialObjectMetadata
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	versions := map[string]string{}
	for _, o := range list.Items {
		versions[o.Name] = o.ResourceVersion
	}
	return versions, nil
}

// difference returns the first difference between the cache and the server, or "".
func (b *bench) difference(ctx context.Context, resource, namespace string, version uint64, want map[string]string) (string, error) {
	c := b.on.sidecar
	collections, err := c.sql(ctx, fmt.Sprintf("SELECT id, resource_version FROM collection WHERE state = 'complete' AND resource = '%s' AND namespace = '%s'", resource, namespace))
	if err != nil {
		return "", err
	}
	if collections == "" {
		return "no complete collection", nil
	}
	for line := range strings.Lines(collections) {
		id, at, _ := strings.Cut(strings.TrimSpace(line), "|")
		if n, err := strconv.ParseUint(at, 10, 64); err != nil || n < version {
			return fmt.Sprintf("collection %s is at version %s, the last event had %d", id, at, version), nil
		}
		objects, err := c.sql(ctx, "SELECT name, resource_version FROM object WHERE collection_id = "+id)
		if err != nil {
			return "", err
		}
		n := 0
		for line := range strings.Lines(objects) {
			n++
			name, at, _ := strings.Cut(strings.TrimSpace(line), "|")
			if at != want[name] {
				return fmt.Sprintf("%s is recorded at version %q, the server has %q", name, at, want[name]), nil
			}
		}
		if n != len(want) {
			return fmt.Sprintf("collection %s has %d objects, the server %d", id, n, len(want)), nil
		}
	}
	return "", nil
}
