package dispatch

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/upstream/upstreamtest"
)

func TestMissedChangesAreSentInTheFormOfTheWatch(t *testing.T) {
	for name, form := range map[string]request.Form{
		"protobuf":             {Format: wire.Protobuf, Representation: request.Object},
		"metadata in protobuf": {Format: wire.Protobuf, Representation: request.Metadata},
		"metadata in JSON":     {Format: wire.JSON, Representation: request.Metadata},
	} {
		t.Run(name, func(t *testing.T) {
			g := newHarness(t)
			f := &forms{form}
			r := func(url string) *http.Request {
				r := g.request("GET", url)
				r.Header.Set("Accept", strings.Replace(form.AcceptList(), "MetadataList", "Metadata", 1))
				return r
			}
			up := newStream()
			version, listAccept := "10", "" // watches from another version get 410
			g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
				body := io.ReadCloser(up)
				mediaType := form.Format.WatchMediaType()
				q := r.URL.Query()
				switch {
				case q.Get("limit") != "":
					listAccept = r.Header.Get("Accept")
					body, mediaType = io.NopCloser(strings.NewReader(f.list("20", f.item("b", "ub", "12")))), form.Format.MediaType()
				case !q.Has("watch"):
					body, mediaType = io.NopCloser(strings.NewReader(f.list("10", f.item("a", "ua", "5")))), form.Format.MediaType()
				case q.Get("resourceVersion") != version:
					body = io.NopCloser(strings.NewReader(f.expired()))
				}
				resp := response(200, body)
				resp.Header.Set("Content-Type", mediaType)
				return resp, nil
			})
			g.do(r(path))
			c := g.open(r(watchFrom10 + bookmarks))
			version = "20"
			first := up
			up = newStream()
			go first.w.CloseWithError(upstreamtest.ErrDown)
			kind, api := f.kind()
			c.want(f.event("DELETED", "a", "ua", "10") + f.event("ADDED", "b", "ub", "12") +
				string(form.Format.AppendEvent(nil, wire.Bookmark, form.Format.Bookmark(kind, api, "20", false))))
			if listAccept != form.AcceptList() {
				t.Errorf("listed as %q", listAccept)
			}
			_ = up.w.Close()
			c.wantEnd(io.EOF)
		})
	}
}

// forms makes answers in one form.
type forms struct{ request.Form }

func (f *forms) kind() (kind, apiVersion string) {
	if f.Representation == request.Metadata {
		return wire.PartialKind, wire.PartialAPIVersion
	}
	return "ConfigMap", "v1"
}

func (f *forms) item(name, uid, rv string) []byte {
	if f.Format == wire.JSON {
		kind, api := f.kind()
		return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"name":%q,"namespace":"shop","uid":%q,"resourceVersion":%q}}`, kind, api, name, uid, rv)
	}
	var o metav1.PartialObjectMetadata // every message has its metadata in the same field
	o.Name, o.Namespace, o.UID, o.ResourceVersion = name, "shop", types.UID(uid), rv
	raw, err := o.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

func (f *forms) event(kind, name, uid, rv string) string {
	object := f.item(name, uid, rv)
	if f.Format == wire.Protobuf {
		k, api := f.kind()
		object = f.Format.AppendTyped(nil, k, api, object)
	}
	return string(f.Format.AppendEvent(nil, kind, object))
}

func (f *forms) list(rv string, items ...[]byte) string {
	kind, api := f.kind()
	if f.Format == wire.JSON {
		return fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q},"items":[%s]}`, kind+"List", api, rv, items[0])
	}
	size := 0
	for _, item := range items {
		size += wire.ItemSize(len(item))
	}
	body := wire.AppendListHead(nil, kind+"List", api, rv, size)
	for _, item := range items {
		body = wire.AppendItem(body, item)
	}
	return string(wire.AppendEnvelopeEnd(body))
}

func (f *forms) expired() string {
	status := []byte(expiredStatus)
	if f.Format == wire.Protobuf {
		raw, err := (&metav1.Status{Status: "Failure", Code: 410, Reason: "Expired"}).Marshal()
		if err != nil {
			panic(err)
		}
		status = f.Format.AppendTyped(nil, "Status", "v1", raw)
	}
	return string(f.Format.AppendEvent(nil, wire.Error, status))
}
