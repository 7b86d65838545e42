package inspect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/store"
)

const (
	who      = "system:serviceaccount:shop:web"
	protobuf = "application/vnd.kubernetes.protobuf"
)

var then = time.UnixMilli(1_700_000_000_000)

// writer is a cache that a sidecar writes.
type writer struct {
	*store.DB
	t   *testing.T
	dir string
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	w := &writer{t: t, dir: t.TempDir()}
	var err error
	if w.DB, err = store.Open(t.Context(), w.dir, store.Options{Now: func() time.Time { return then }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// open attaches to the cache, a minute and a half later.
func (w *writer) open() *Cache {
	w.t.Helper()
	c, err := Open(w.t.Context(), w.dir, func() time.Time { return then.Add(90 * time.Second) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func scope(mediaType string) store.Scope {
	return store.Scope{Principal: who, Version: "v1", Resource: "configmaps", Representation: "object", Namespace: "shop", MediaType: mediaType}
}

func configMap(name string, version int) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u", ResourceVersion: fmt.Sprint(version)},
		Data:       map[string]string{"value": "hello"},
	}
}

func row(t *testing.T, mediaType string, cm *corev1.ConfigMap) store.Object {
	t.Helper()
	o := store.Object{Namespace: cm.Namespace, Name: cm.Name, UID: string(cm.UID), ResourceVersion: cm.ResourceVersion, Encoding: store.JSONBare, UpdatedAt: then,
		Payload: fmt.Appendf(nil, `{"metadata":{"name":%q,"namespace":%q,"uid":"u","resourceVersion":%q},"data":{"value":"hello"}}`, cm.Name, cm.Namespace, cm.ResourceVersion)}
	if mediaType == protobuf {
		var err error
		o.Encoding = store.Protobuf
		if o.Payload, err = cm.Marshal(); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (w *writer) list(s store.Scope, version int, all ...*corev1.ConfigMap) {
	w.t.Helper()
	snapshot := store.NewSnapshot(s, store.Evidence{Asked: w.Next(), Told: w.Next(), Read: store.Latest})
	w.update(func(tx *store.Tx) error {
		for _, cm := range all {
			if err := snapshot.Add(tx, row(w.t, s.MediaType, cm)); err != nil {
				return err
			}
		}
		return snapshot.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", ResourceVersion: fmt.Sprint(version)})
	})
}

func (w *writer) update(f func(*store.Tx) error) {
	w.t.Helper()
	if err := w.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) single(mediaType string, cm *corev1.ConfigMap) {
	w.t.Helper()
	s := scope(mediaType)
	s.Namespace = ""
	w.update(func(tx *store.Tx) error {
		o := row(w.t, mediaType, cm)
		o.Asked, o.Told, o.Read = w.Next(), w.Next(), store.Latest
		return tx.PutSingle(s, "ConfigMap", "v1", o)
	})
}

// objects returns the selected objects in short.
func objects(t *testing.T, c *Cache, s Selection) (out []string) {
	t.Helper()
	n, err := c.Objects(t.Context(), s, func(o Object) error {
		out = append(out, fmt.Sprintf("%s/%s@%s %s %s", o.Namespace, o.Name, o.ResourceVersion(), Age(o.Age), o.Problem))
		return nil
	})
	if err != nil || n != len(out) {
		t.Fatalf("%d objects, %v", n, err)
	}
	return out
}

func TestAnObjectIsShownOnceAsTheProgramWouldGetIt(t *testing.T) {
	w := newWriter(t)
	w.list(scope(protobuf), 10, configMap("a", 9), configMap("b", 2), configMap("gone", 3))
	w.single("application/json", configMap("a", 11))
	w.update(func(tx *store.Tx) error {
		return tx.Observe(scope("").Of(), store.Key{Namespace: "shop", Name: "gone"}, store.Evidence{Says: store.Gone, Asked: w.Next(), Told: w.Next(), Read: store.Latest})
	})
	c := w.open()
	for name, s := range map[string]Selection{"all": {}, "a resource": {Type: "configmaps"}, "a kind": {Type: "ConfigMap"}, "a namespace": {Namespace: "shop"}, "an account": {Account: who}} {
		if got, want := objects(t, c, s), []string{"shop/a@11 1m30s ", "shop/b@2 1m30s "}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, s := range map[string]Selection{"another name": {Name: "c"}, "another namespace": {Namespace: "bar"}, "another account": {Account: "x"}, "a deleted object": {Name: "gone"}} {
		if got := objects(t, c, s); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := c.Objects(t.Context(), Selection{Type: "deployments.apps"}, nil); err == nil || !strings.Contains(err.Error(), "recorded are: configmaps") {
		t.Errorf("an unknown type: %v", err)
	}
}

func TestAnObjectWithoutAnAnswerIsNamedWithTheReason(t *testing.T) {
	w := newWriter(t)
	w.list(scope("application/json"), 10, configMap("a", 9))
	w.update(func(tx *store.Tx) error {
		return tx.Observe(scope("").Of(), store.Key{Namespace: "shop", Name: "a"}, store.Evidence{Says: store.Unknown, Asked: w.Next(), Told: w.Next(), Read: store.Latest})
	})
	got := objects(t, w.open(), Selection{})
	if len(got) != 1 || !strings.Contains(got[0], "not recorded: the latest state of configmaps") {
		t.Errorf("%q", got)
	}
}

func TestProtobufIsPrintedAsYAML(t *testing.T) {
	w := newWriter(t)
	w.list(scope(protobuf), 10, configMap("a", 9), configMap("b", 2))
	var out bytes.Buffer
	p := &Printer{W: &out, Format: YAML}
	if _, err := w.open().Objects(t.Context(), Selection{}, func(o Object) error { return p.Print(o.JSON) }); err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: v1
data:
  value: hello
kind: ConfigMap
metadata:
  name: a
  namespace: shop
  resourceVersion: "9"
  uid: u
`
	first, second, _ := strings.Cut(out.String(), "---\n")
	if first = strings.Replace(first, "  creationTimestamp: null\n", "", 1); first != want || !strings.Contains(second, "name: b\n") {
		t.Errorf("%s", out.String())
	}
}

func TestTheListSaysHowWholeAndHowOldCollectionsAre(t *testing.T) {
	w := newWriter(t)
	w.list(scope(protobuf), 10, configMap("a", 9), configMap("b", 2))
	w.single("application/json", configMap("c", 11))
	all, _, err := w.open().List(t.Context())
	var got []string
	for _, x := range all {
		got = append(got, fmt.Sprintf("%s %s %s %s %d %s %s", x.Resource, x.Namespace, x.Form, x.State, x.Objects, x.At, x.Age))
	}
	if want := []string{"configmaps  json objects 1  ", "configmaps shop protobuf complete 2 10 1m30s"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestAgesHaveTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1400 * time.Millisecond: "1s", 90 * time.Second: "1m30s", 3*time.Hour + 5*time.Minute + time.Second: "3h5m", 76 * time.Hour: "3d4h",
	} {
		if got := Age(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// pages answers with pages of a list, and notes the requests.
type pages struct {
	asked []string
	body  []string
	code  int
}

func (p *pages) fetch(_ context.Context, path, accept string) (*http.Response, error) {
	p.asked = append(p.asked, path)
	body := p.body[0]
	p.body = p.body[1:]
	if !strings.Contains(accept, "as=PartialObjectMetadataList") {
		return nil, fmt.Errorf("asks for %s", accept)
	}
	return &http.Response{StatusCode: p.code, Body: io.NopCloser(strings.NewReader(body))}, nil
}

func page(next string, items ...string) string {
	for i, item := range items {
		name, version, _ := strings.Cut(item, "@")
		items[i] = fmt.Sprintf(`{"metadata":{"namespace":"shop","name":%q,"resourceVersion":%q}}`, name, version)
	}
	return fmt.Sprintf(`{"kind":"PartialObjectMetadataList","metadata":{"continue":%q},"items":[%s]}`, next, strings.Join(items, ","))
}

func TestTheCacheIsComparedWithTheAPIServer(t *testing.T) {
	for name, c := range map[string]struct {
		answer        pages
		asked         int
		want, skipped []string
	}{
		"nothing differs": {answer: pages{code: 200, body: []string{page("", "a@9", "b@2")}}, asked: 1},
		"each difference, over two pages": {
			answer: pages{code: 200, body: []string{page("next", "a@12"), page("", "new@13")}}, asked: 2,
			want: []string{"~ configmaps shop/a (9 → 12)", "- configmaps shop/b (2)", "+ configmaps shop/new (13)"},
		},
		"a list that may not be read": {
			answer: pages{code: 403, body: []string{`{"kind":"Status","message":"forbidden"}`}}, asked: 1, skipped: []string{"configmaps: the API server says 403 forbidden"},
		},
		"an answer that is cut off": {
			answer: pages{code: 200, body: []string{page("", "a@9")[:30]}}, asked: 1, skipped: []string{"configmaps: unexpected EOF"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t)
			w.list(scope(protobuf), 10, configMap("a", 9), configMap("b", 2))
			var got, skipped []string
			err := w.open().DiffServer(t.Context(), Selection{Type: "configmaps"}, c.answer.fetch,
				func(x Change) { got = append(got, x.String()) }, func(why string) { skipped = append(skipped, why) })
			if err != nil || !slices.Equal(got, c.want) || !slices.Equal(skipped, c.skipped) || len(c.answer.asked) != c.asked {
				t.Errorf("%q, skipped %q, asked %q, %v", got, skipped, c.answer.asked, err)
			}
			if first := c.answer.asked[0]; first != "/api/v1/namespaces/shop/configmaps?limit=500" {
				t.Errorf("asked for %s", first)
			}
		})
	}
}

func TestTwoCachesAreCompared(t *testing.T) {
	before, after := newWriter(t), newWriter(t)
	before.list(scope(protobuf), 10, configMap("a", 9), configMap("b", 2))
	after.list(scope("application/json"), 12, configMap("a", 9), configMap("c", 12))
	var got []string
	err := before.open().DiffCache(t.Context(), after.open(), Selection{}, func(x Change) { got = append(got, x.String()) })
	if want := []string{"- configmaps shop/b (2)", "+ configmaps shop/c (12)"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
