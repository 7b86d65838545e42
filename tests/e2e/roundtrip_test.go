package e2e

import (
	"bytes"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// trip is one request of the round trip, with its answers.
type trip struct {
	getRequest
	kind    kind
	decode  func(getResponse) (decoded, error)
	online  getResponse
	derived bool // not sent online: the answer comes from a list
}

// TestReplayedAnswersAreThoseOfTheServer records every kind that the API server lists, in every
// form, and compares the offline answers object by object: byte for byte in protobuf, by value in
// JSON.
func TestReplayedAnswersAreThoseOfTheServer(t *testing.T) {
	s := newSite(t)
	random := randomOf(t)
	s.customResources()
	s.allowEverywhere(rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}})
	kinds := s.kinds()
	s.populate(random, kinds)
	p := s.pod(withoutApp)

	trips := map[string][]*trip{} // by kind: while a kind is recorded, its objects must not change
	filled := 0
	for i, f := range p.sendDirectly(listsOf(kinds)) {
		k := kinds[i]
		d, err := decodeList(f)
		if err != nil || f.Status != http.StatusOK {
			t.Fatalf("list %s: %d %v %s", k.GroupVersionResource, f.Status, err, f.text())
		}
		if len(d.objects) > 0 {
			filled++
		} else {
			t.Logf("no object of %s", k.GroupVersionResource)
		}
		trips[k.String()] = tripsOf(k, d)
	}
	t.Logf("%d kinds, %d of them with objects", len(kinds), filled)
	if len(kinds) < 50 || filled*10 < len(kinds)*9 {
		t.Errorf("%d of %d kinds have objects, too few for this test", filled, len(kinds))
	}

	asked := p.recordAll(trips)
	p.offline()
	t.Run("offline", func(t *testing.T) { replayed(t, p.in(t), asked) })
	p.restart("rockpool-sidecar")
	t.Run("offline after a restart", func(t *testing.T) { replayed(t, p.in(t), asked) })
}

func listsOf(kinds []kind) (all []getRequest) {
	for _, k := range kinds {
		all = append(all, getRequest{Target: k.collectionPath(), Accept: acceptJSON})
	}
	return all
}

// tripsOf are the requests for a kind that has objects.
func tripsOf(k kind, d decoded) (all []*trip) {
	for _, accept := range []string{acceptJSON, acceptProtobuf, acceptMetadataList, protobufMetadataAll} {
		all = append(all, &trip{getRequest: getRequest{Target: k.collectionPath(), Accept: accept}, kind: k, decode: decodeList})
	}
	keys := slices.Sorted(maps.Keys(d.objects))
	for i, key := range keys[:min(2, len(keys))] {
		for _, accept := range []string{acceptJSON, acceptProtobuf, acceptMetadata, protobufMetadata} {
			target := k.objectPath(key)
			all = append(all, &trip{getRequest: getRequest{Target: target, Accept: accept}, kind: k, decode: decodeObject, derived: i > 0})
		}
	}
	return all
}

// recordAll sends all requests online and compares each answer with the API server's own. It
// requests that before and after, and repeats a kind that has changed in between. It returns the
// requests that can be sent offline.
func (p *testPod) recordAll(trips map[string][]*trip) (asked []*trip) {
	t := p.site.t
	t.Helper()
	moved := map[string]string{} // the change, by kind
	for range 5 {
		var all []*trip
		for _, of := range trips {
			all = append(all, of...)
		}
		requests := make([]getRequest, len(all))
		var through []getRequest
		for i, a := range all {
			requests[i] = a.getRequest
			if !a.derived {
				through = append(through, a.getRequest)
			}
		}
		before, online, after := p.sendDirectly(requests), p.send(through), p.sendDirectly(requests)
		clear(moved)
		for i, a := range all {
			if diff := difference(a.decode, before[i], after[i], false); diff != "" {
				moved[a.kind.String()] = diff
			}
		}
		n := 0
		for i, a := range all {
			own := after[i]
			if !a.derived {
				own = online[n]
				n++
			}
			if moved[a.kind.String()] != "" {
				continue
			}
			if diff := difference(a.decode, after[i], own, false); diff != "" {
				t.Errorf("online %s as %s: %s", a.Target, a.Accept, diff)
			}
			if a.online = own; own.Status == http.StatusOK {
				asked = append(asked, a)
			}
			delete(trips, a.kind.String())
		}
		if len(trips) == 0 {
			return asked
		}
	}
	t.Errorf("these kinds change all the time: %v", moved)
	return asked
}

// replayed sends the requests again offline.
func replayed(t *testing.T, p *testPod, asked []*trip) {
	requests := make([]getRequest, len(asked))
	for i, a := range asked {
		requests[i] = a.getRequest
	}
	whole := 0
	for i, f := range p.send(requests) {
		a := asked[i]
		if a.kind.Resource == "componentstatuses" {
			// The server generates these objects at each request, without a resourceVersion, so
			// there is no snapshot of them.
			if f.Status != http.StatusServiceUnavailable && f.Status != http.StatusOK {
				t.Errorf("%s: %d %s", a.Target, f.Status, f.text())
			}
			continue
		}
		if diff := difference(a.decode, a.online, f, true); diff != "" {
			t.Errorf("%s as %s: %s", a.Target, a.Accept, diff)
			continue
		}
		whole++
	}
	t.Logf("%d of %d answers are the server's", whole, len(asked))
}

// difference returns the difference between two answers that a client can see. The resourceVersion
// of a recorded list must not be older. It may be newer: the newest list of a kind may answer all
// requests, and a watch of the sidecar's own may have moved it on.
func difference(decode func(getResponse) (decoded, error), want, got getResponse, recorded bool) string {
	if want.Error != "" || got.Error != "" {
		return "the answer broke off: " + want.Error + got.Error
	}
	if want.Status != got.Status {
		return http.StatusText(got.Status) + ", want " + http.StatusText(want.Status) + ": " + got.text()
	}
	if want.Status != http.StatusOK {
		return ""
	}
	if want.contentType() != got.contentType() {
		return "Content-Type " + got.contentType() + ", want " + want.contentType()
	}
	a, err := decode(want)
	if err != nil {
		return "the server's: " + err.Error()
	}
	b, err := decode(got)
	if err != nil {
		return err.Error() + ": " + got.text()
	}
	if recorded && a.version != "" && newest(a.version, b.version) != b.version {
		return "resourceVersion " + b.version + ", want " + a.version + " or newer"
	}
	diff := a.difference(b)
	if diff == "" && recorded {
		diff = a.reordered(b)
	}
	return diff
}

// difference compares kinds and objects.
func (d decoded) difference(other decoded) string {
	if d.kind != other.kind || d.apiVersion != other.apiVersion {
		return other.apiVersion + " " + other.kind + ", want " + d.apiVersion + " " + d.kind
	}
	if diff := cmp.Diff(d.identities(), other.identities()); diff != "" {
		return "objects (-want +got):\n" + diff
	}
	for key, a := range d.objects {
		b := other.objects[key]
		if !bytes.Equal(a.raw, b.raw) {
			return key + ": other bytes\n" + cmp.Diff(a.raw, b.raw)
		}
		if !reflect.DeepEqual(a.value, b.value) {
			return key + " (-want +got):\n" + cmp.Diff(a.value, b.value)
		}
	}
	return ""
}

// reordered returns how the order of the objects differs.
func (d decoded) reordered(other decoded) string {
	if slices.Equal(d.order, other.order) {
		return ""
	}
	return "the order of objects (-want +got):\n" + cmp.Diff(d.order, other.order)
}

// identities are the identities of the objects, without their content.
func (d decoded) identities() map[string]string {
	all := map[string]string{}
	for key, o := range d.objects {
		all[key] = o.uid + " at " + o.version
	}
	return all
}
