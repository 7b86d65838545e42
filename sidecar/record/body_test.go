package record

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

func TestAResponseThatCannotBeSplitIsRecordedVerbatim(t *testing.T) {
	const table = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"columnDefinitions":[],"rows":[]}`
	many := strings.Repeat(configMap("x", 1)+",", 5000)
	for name, tt := range map[string]struct {
		url, body      string
		verbatim, list bool
	}{
		"a list of objects":                       {configmaps, listOf(20, configMap("a", 1)), false, true},
		"an empty list":                           {configmaps, listOf(20), false, true},
		"a list with its kind last":               {configmaps, `{"apiVersion":"v1","items":[` + configMap("a", 1) + `],"kind":"ConfigMapList","metadata":{"resourceVersion":"20"}}`, false, true},
		"an empty list with its kind last":        {configmaps, `{"apiVersion":"v1","items":[],"kind":"ConfigMapList","metadata":{"resourceVersion":"20"}}`, false, true},
		"a table":                                 {configmaps, table, true, false},
		"a page of a table":                       {configmaps + "?limit=1", strings.Replace(table, `"resource`, `"continue":"x","resource`, 1), false, false},
		"a further page of a table":               {configmaps + "?continue=x", table, false, false},
		"a list without a version, as of metrics": {configmaps, `{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1","metadata":{},"items":[` + cm("a", 1) + `]}`, true, false},
		"an empty list without a version":         {configmaps, `{"kind":"PodMetricsList","apiVersion":"metrics.k8s.io/v1","metadata":{},"items":[]}`, true, false},
		"an unknown kind":                         {configmaps, `{"kind":"Surprise","apiVersion":"v1","data":"x"}`, true, false},
		"a page without a first page":             {configmaps + "?continue=x", listOf(20, configMap("a", 1)), false, false},
		"not JSON":                                {configmaps, `<html>`, false, false},
		"a truncated table":                       {configmaps, table[:40], false, false},
		"a table above the bound":                 {configmaps, table[:len(table)-2] + strings.Repeat(" ", maxDocument) + "]}", false, false},
		"a long list with an invalid end":         {configmaps, `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"20"},"items":[` + many + `7]}`, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, cut := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader} {
				if len(tt.body) > 1<<20 {
					cut = iotest.HalfReader
				}
				h := newHarness(t, 0)
				h.read(h.teeList(h.source(tt.url), wire.JSON, answer(cut(strings.NewReader(tt.body)))))
				if got := h.hasResponse(tt.url); got != tt.verbatim {
					t.Errorf("it is recorded verbatim: %v", got)
				}
				if got := len(h.recorded("configmaps")) > 0; got != tt.list {
					t.Errorf("it is a collection: %v", got)
				}
				if n := h.buffered.Load(); n != 0 {
					t.Errorf("%d bytes stay buffered", n)
				}
			}
		})
	}
}

func TestAPartOfAListInProtobufIsRecordedAtItsVersion(t *testing.T) {
	h := newHarness(t, 0)
	part := func(url, token string) {
		t.Helper()
		body := inProtobuf(t, "ConfigMapList", &metav1.PartialObjectMetadataList{
			ListMeta: metav1.ListMeta{ResourceVersion: "12", Continue: token},
			Items:    []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "shop", UID: "u-a", ResourceVersion: "11"}}},
		})
		resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {wire.MediaTypeProtobuf}}, Body: io.NopCloser(strings.NewReader(body))}
		h.read(h.teeDocument(h.source(url), nil, resp))
		h.flush()
	}
	part(configmaps+"?shardSelector=a", "")
	if got, err := h.db.Response(t.Context(), who, configmaps+"?shardSelector=a", ""); err != nil || got.Version != "12" {
		t.Errorf("the list is at version %q: %v", got.Version, err)
	}
	if o, _ := h.observed("a"); o.Says != store.Exists || o.Version != "11" {
		t.Errorf("its object is known as %+v", o)
	}
	part(configmaps+"?shardSelector=b&limit=1", "more")
	if h.hasResponse(configmaps + "?shardSelector=b&limit=1") {
		t.Error("a page is recorded as the whole")
	}
}

func TestALongListIsNotBuffered(t *testing.T) {
	h := newHarness(t, 0)
	l := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(20, configMap("a", 1), configMap("b", 1)))))
	if _, err := io.ReadFull(l, make([]byte, len(listOf(20, configMap("a", 1)))+10)); err != nil {
		t.Fatal(err)
	}
	if n := h.buffered.Load(); n != 0 {
		t.Errorf("%d bytes are buffered after the first item", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAllBufferedBodiesTogetherAreBounded(t *testing.T) {
	h := newHarness(t, 0)
	const urls = 12
	var open []io.ReadCloser
	body := `{"kind":"APIGroupList","x":"` + strings.Repeat("x", maxDocument-100) + `"}`
	for i := range urls {
		resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		r := h.teeDocument(h.source(fmt.Sprintf("/apis/%d", i)), nil, resp)
		if _, err := io.ReadFull(r, make([]byte, len(body)-1)); err != nil {
			t.Fatal(err)
		}
		open = append(open, r)
		if n := h.buffered.Load(); n > maxBuffered {
			t.Fatalf("%d bytes are buffered", n)
		}
	}
	for _, r := range open {
		h.read(r)
	}
	if n := h.buffered.Load(); n != 0 || h.hasResponse(fmt.Sprintf("/apis/%d", urls-1)) {
		t.Errorf("%d bytes stay buffered, or the last body was recorded", n)
	}
}

func TestAGetThatReturnsNoObjectIsRecordedVerbatim(t *testing.T) {
	h := newHarness(t, 0)
	object := func(name, body string) {
		h.read(h.teeObject(new(h.source(configmaps+"/"+name)), wire.JSON, answer(strings.NewReader(body))))
	}
	object("table", `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"rows":[]}`)
	object("nonsense", `<html>`)
	object("a", cm("a", 5))
	for name, want := range map[string]bool{"table": true, "nonsense": false, "a": false} {
		if got := h.hasResponse(configmaps + "/" + name); got != want {
			t.Errorf("%s is recorded verbatim: %v", name, got)
		}
	}
	h.want("seen /@: a@5")
}

func TestADocumentWithAnOldHashIsDropped(t *testing.T) {
	h := newHarness(t, 0)
	put := func(url string) {
		resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}"))}
		h.read(h.teeDocument(h.source(url), nil, resp))
	}
	for _, url := range []string{"/openapi/v3", "/openapi/v3/api/v1?hash=OLD", "/openapi/v3/apis/apps/v1?hash=OLD", "/openapi/v3/api/v1?hash=NEW", "/apis/apps/v1?hash=1", "/apis/apps/v1?hash=2"} {
		put(url)
	}
	for url, want := range map[string]bool{
		"/openapi/v3": true, "/openapi/v3/api/v1?hash=OLD": false, "/openapi/v3/api/v1?hash=NEW": true,
		"/openapi/v3/apis/apps/v1?hash=OLD": true, "/apis/apps/v1?hash=1": true,
	} {
		if got := h.hasResponse(url); got != want {
			t.Errorf("%s is recorded: %v", url, got)
		}
	}
}
