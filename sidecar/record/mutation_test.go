package record

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// inProtobuf wraps a message in the envelope.
func inProtobuf(t *testing.T, kind string, m interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: "v1", Kind: kind}, Raw: raw}
	out, err := u.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return "k8s\x00" + string(out)
}

func TestTheResponseToAWriteShowsWhetherTheObjectIsDeleted(t *testing.T) {
	meta := func(more string) string {
		return `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u-a","resourceVersion":"12"` + more + `}}`
	}
	const deleted = `,"deletionTimestamp":"2026-01-01T00:00:00Z"`
	success := metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{Name: "a", UID: "u-a"}}
	partial := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "shop", UID: "u-a", ResourceVersion: "12"}}
	held := *partial.DeepCopy()
	held.Finalizers = []string{"example.com/hold"}
	freed := *partial.DeepCopy()
	freed.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_767_225_600, 0)}
	for name, tt := range map[string]struct {
		verb    string
		format  wire.Format
		body    string
		deleted bool
	}{
		"a Status":                                  {request.Delete, wire.JSON, `{"kind":"Status","apiVersion":"v1","status":"Success","details":{"name":"a","uid":"u-a"}}`, true},
		"a Status without a uid":                    {request.Delete, wire.JSON, `{"kind":"Status","apiVersion":"v1","status":"Success"}`, true},
		"a Status of a failure":                     {request.Delete, wire.JSON, `{"kind":"Status","apiVersion":"v1","status":"Failure"}`, false},
		"the object as it was":                      {request.Delete, wire.JSON, meta(""), true},
		"the object with a finalizer":               {request.Delete, wire.JSON, meta(deleted + `,"finalizers":["x"]`), false},
		"the object in its grace period":            {request.Delete, wire.JSON, meta(deleted + `,"deletionGracePeriodSeconds":30`), false},
		"the object with a grace period of 0":       {request.Delete, wire.JSON, meta(deleted + `,"deletionGracePeriodSeconds":0`), true},
		"the object with a deletionTimestamp only":  {request.Delete, wire.JSON, meta(deleted), false},
		"invalid JSON":                              {request.Delete, wire.JSON, `{"kind":`, false},
		"a Status in protobuf":                      {request.Delete, wire.Protobuf, inProtobuf(t, "Status", &success), true},
		"an object in protobuf":                     {request.Delete, wire.Protobuf, inProtobuf(t, "ConfigMap", &partial), true},
		"an object with a finalizer in protobuf":    {request.Delete, wire.Protobuf, inProtobuf(t, "ConfigMap", &held), false},
		"an update":                                 {request.Update, wire.JSON, meta(""), false},
		"an update that leaves a finalizer":         {request.Update, wire.JSON, meta(deleted + `,"finalizers":["x"]`), false},
		"an update that removes the last finalizer": {request.Update, wire.JSON, meta(deleted), true},
		"an update of a pod that is stopping":       {request.Update, wire.JSON, meta(deleted + `,"deletionGracePeriodSeconds":30`), false},
		"an update of a pod that has stopped":       {request.Update, wire.JSON, meta(deleted + `,"deletionGracePeriodSeconds":0`), true},
		"a patch":                                   {request.Patch, wire.JSON, meta(""), false},
		"a patch that removes the last finalizer":   {request.Patch, wire.Protobuf, inProtobuf(t, "ConfigMap", &freed), true},
		"a patch in protobuf":                       {request.Patch, wire.Protobuf, inProtobuf(t, "ConfigMap", &partial), false},
		"a patch answered with a Status":            {request.Patch, wire.JSON, `{"kind":"Status","apiVersion":"v1","status":"Success"}`, false},
		"a create":                                  {request.Create, wire.JSON, meta(deleted), false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.list(configmaps, listOf(10, configMap("a", 1)))
			h.now = h.now.Add(time.Second)
			source := h.source(configmaps + "/a")
			source.Info.Verb = tt.verb
			h.read(h.teeWrite(source, tt.format, answer(strings.NewReader(tt.body))))
			o, _ := h.observed("a")
			if got := o.Says == store.Gone; got != tt.deleted || got && (!slices.Equal(o.UIDs, []string{"u-a"}) || o.Floor != "10") {
				t.Errorf("it is deleted: %v %+v", got, o)
			}
		})
	}
}

func TestA404ProvesAbsenceOnlyIfItIsAboutTheObject(t *testing.T) {
	const status = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","details":{"name":"a","kind":"configmaps"},"code":404}`
	replace := func(old, new string) string { return strings.Replace(status, old, new, 1) }
	inBinary := metav1.Status{Reason: metav1.StatusReasonNotFound, Code: 404, Details: &metav1.StatusDetails{Name: "a", Kind: "configmaps"}}
	for name, tt := range map[string]struct {
		url    string
		format wire.Format
		body   string
		proof  bool
	}{
		"about the object":             {"/a", wire.JSON, status, true},
		"about the object in protobuf": {"/a", wire.Protobuf, inProtobuf(t, "Status", &inBinary), true},
		"about another name":           {"/a", wire.JSON, replace(`"a"`, `"b"`), false},
		"about another resource":       {"/a", wire.JSON, replace("configmaps", "webhooks"), false},
		"about another group":          {"/a", wire.JSON, replace(`"kind":"configmaps"`, `"group":"x","kind":"configmaps"`), false},
		"the resource is not served":   {"/a", wire.JSON, `{"kind":"Status","apiVersion":"v1","reason":"NotFound","details":{},"code":404}`, false},
		"the path is not served":       {"/a", nil, "404 page not found", false},
		"about the object of a scale":  {"/a/scale", wire.JSON, replace("configmaps", "configmaps/scale"), true},
		"a subresource is not there":   {"/a/scale", wire.JSON, `{"kind":"Status","apiVersion":"v1","reason":"NotFound","details":{},"code":404}`, false},
		"from a watch cache":           {"/a?resourceVersion=0", wire.JSON, status, false},
		"not a Status":                 {"/a", wire.JSON, cm("a", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(cm("a", 7)))))
			h.flush()
			h.now = h.now.Add(time.Second)
			h.read(h.teeStatus(h.source(configmaps+tt.url), tt.format, answer(strings.NewReader(tt.body))))
			if o, ok := h.observed("a"); (o.Says == store.Gone && o.Read == store.Latest) != tt.proof || ok && !o.At.Equal(h.now) {
				t.Errorf("it is proven: %+v", o)
			}
		})
	}
}

func TestANewerResponseReplacesAnObservation(t *testing.T) {
	object := func(h *harness, url string, rv int) {
		h.read(h.teeObject(new(h.source(configmaps+url)), wire.JSON, answer(strings.NewReader(cm("a", rv)))))
	}
	const table = `{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"20"},"rows":[]}`
	verbatim := func(h *harness, url, mediaType, body string) {
		resp := answer(strings.NewReader(body))
		resp.Header.Set("Content-Type", mediaType)
		h.read(h.teeDocument(h.source(configmaps+url), nil, resp))
	}
	for name, tt := range map[string]struct {
		then func(*harness)
		says store.Says // empty: the observation is superseded
	}{
		"the object was read as a table": {func(h *harness) {
			h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(table))))
		}, store.Exists},
		"the object was read in YAML":        {func(h *harness) { verbatim(h, "/a", "application/yaml", "kind: ConfigMap") }, store.Unknown},
		"its scale was read":                 {func(h *harness) { verbatim(h, "/a/scale", "application/json", `{"kind":"Scale"}`) }, store.Unknown},
		"another object was read as a table": {func(h *harness) { verbatim(h, "/b", "application/json", table) }, store.Gone},
		"a table of the collection":          {func(h *harness) { verbatim(h, "", "application/json", table) }, store.Gone},
		"the object was read again":          {func(h *harness) { object(h, "/a", 9) }, ""},
		"a watch cache returned it":          {func(h *harness) { object(h, "/a?resourceVersion=0", 9) }, store.Gone},
		"a list of the namespace":            {func(h *harness) { h.list(configmaps, listOf(20)) }, ""},
		"a list of all namespaces":           {func(h *harness) { h.list("/api/v1/configmaps", listOf(20)) }, ""},
		"a selection":                        {func(h *harness) { h.list(configmaps+"?labelSelector=x", listOf(20)) }, store.Gone},
		"a selection that has the object":    {func(h *harness) { h.list(configmaps+"?labelSelector=x", listOf(20, configMap("a", 9))) }, ""},
		"a list from a watch cache":          {func(h *harness) { h.list(configmaps+"?resourceVersion=0", listOf(20)) }, store.Gone},
		"the server forbids reading it":      {func(h *harness) { h.forbidden(h.source(configmaps + "/a")) }, store.Unknown},
		"it exists already":                  {func(h *harness) { h.exists("a") }, store.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			source := h.source(configmaps + "/a")
			h.observe(&source, source.key(), source.evidence(store.Gone, ""))
			h.flush()
			h.now = h.now.Add(-time.Hour) // the clock does not matter
			tt.then(h)
			if o, _ := h.observed("a"); o.Says != tt.says {
				t.Errorf("it is %q", o.Says)
			}
		})
	}
}

// exists has the API server refuse to create a ConfigMap.
func (h *harness) exists(name string) {
	source := h.source(configmaps)
	source.Info.Verb, source.Info.Class = request.Create, request.ClassWrite
	resp := answer(strings.NewReader(
		`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"AlreadyExists","details":{"name":"` + name + `","kind":"configmaps"},"code":409}`))
	resp.StatusCode = http.StatusConflict
	h.read(h.teeStatus(source, wire.JSON, resp))
}

func TestAWriteDropsVerbatimResponses(t *testing.T) {
	urls := []string{configmaps, configmaps + "/a", configmaps + "/a?pretty=1", configmaps + "/a/scale", configmaps + "/a/status", configmaps + "/ab"}
	for name, tt := range map[string]struct {
		write func(*harness, Source)
		url   string
		left  []bool
	}{
		"of the object": {func(h *harness, s Source) { h.read(h.teeWrite(s, wire.JSON, answer(strings.NewReader(cm("a", 9))))) },
			"/a", []bool{true, false, false, false, false, true}},
		"of the status": {func(h *harness, s Source) { h.read(h.teeWrite(s, wire.JSON, answer(strings.NewReader(cm("a", 9))))) },
			"/a/status?fieldManager=x", []bool{true, false, false, false, false, true}},
		"of the scale": {func(h *harness, s Source) { h.read(h.teeIndirect(s, wire.JSON, answer(strings.NewReader(`{}`)))) },
			"/a/scale?x=1", []bool{true, false, false, false, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 0)
			for _, url := range urls {
				resp := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"kind":"Table"}`))}
				h.read(h.teeDocument(h.source(url), nil, resp))
			}
			source := h.source(configmaps + tt.url)
			source.Info.Verb = "patch"
			tt.write(h, source)
			for i, url := range urls {
				if got := h.hasResponse(url); got != tt.left[i] {
					t.Errorf("%s is recorded: %v", url, got)
				}
			}
		})
	}
}

func TestADeleteCollectionMakesItsNamespaceDoubtful(t *testing.T) {
	h := newHarness(t, 0)
	h.list(configmaps, listOf(10, configMap("a", 1)))
	h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(cm("a", 7)))))
	const another = "/api/v1/namespaces/shop/configmapsets/a"
	for _, url := range []string{configmaps, configmaps + "/a", configmaps + "/a?pretty=1", configmaps + "/a/status", another} {
		resp := answer(strings.NewReader(`{"kind":"Table"}`))
		resp.Header.Set("Content-Type", "application/json")
		h.read(h.teeDocument(h.source(url), nil, resp))
	}
	h.deletedMany(h.source(configmaps + "?labelSelector=x"))
	h.want("complete shop/@10: a@1", "seen /@: a@7")
	for url, want := range map[string]bool{configmaps: false, configmaps + "/a": false, configmaps + "/a?pretty=1": false, configmaps + "/a/status": false, another: true} {
		if got := h.hasResponse(url); got != want {
			t.Errorf("%s is recorded: %v", url, got)
		}
	}
	if o, ok := h.observed(""); !ok || o.Says != store.Unknown || o.Floor != "10" {
		t.Errorf("the namespace is %+v", o)
	}
}

func TestADeletionCoversRowsThatWereReceivedBeforeIt(t *testing.T) {
	for name, receive := range map[string]func(*harness){
		"read by GET": func(h *harness) {
			h.read(h.teeObject(new(h.source(configmaps+"/a")), wire.JSON, answer(strings.NewReader(cm("a", 7)))))
		},
		"in a list": func(h *harness) {
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(10, configMap("a", 7))))))
		},
		"in a watch": func(h *harness) {
			h.read(h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(listOf(6)))))
			w := h.Watch(h.source(configmaps+"?watch=true&resourceVersion=6"), wire.JSON)
			defer w.Close()
			h.events(w, "ADDED a 7")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := idleHarness(t, t.TempDir(), 0)
			receive(h)
			h.now = h.now.Add(30 * time.Millisecond)
			h.read(h.teeStatus(h.source(configmaps+"/a"), wire.JSON, answer(strings.NewReader(
				`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","details":{"name":"a","kind":"configmaps"},"code":404}`))))
			h.now = h.now.Add(time.Second) // both wait in the queue
			h.write(t.Context(), h.take())
			if o, _ := h.known("a"); !slices.Equal(o.UIDs, []string{"u-a"}) {
				t.Errorf("hidden uids: %v", o.UIDs)
			}
			if got := h.recorded("configmaps"); strings.HasPrefix(got[0], "seen") && strings.Contains(got[0], "a@7") {
				t.Errorf("recorded %v", got)
			}
		})
	}
}
