package filter

import (
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/sidecar/api/wire"
)

// raw answers every request with the same bytes.
type raw struct {
	body      string
	mediaType string
}

func (r raw) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {r.mediaType}}, ContentLength: -1,
		Body: io.NopCloser(&slow{rest: r.body}),
	}, nil
}

// slow is a body that arrives in small chunks.
type slow struct{ rest string }

func (s *slow) Read(p []byte) (int, error) {
	if s.rest == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(7, len(p))], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// FuzzAnswer passes any bytes through a GET, a LIST and a WATCH of Services.
func FuzzAnswer(f *testing.F) {
	s := newServer(f)
	service := newService("web", map[string]string{"svc.openyurt.io/discard": "true"})
	s.put(service)
	for _, format := range formats {
		e := encoding{t: f, format: format, kind: kinds["services"]}
		asJSON := format == wire.JSON
		f.Add(string(e.typed(service)), uint8(0), asJSON)
		f.Add(string(e.list("5", []object{service, newService("db", nil)})), uint8(1), asJSON)
		stream := format.AppendEvent(nil, wire.Added, e.typed(service))
		stream = format.AppendEvent(stream, wire.Modified, e.typed(newService("web", nil)))
		stream = format.AppendEvent(stream, wire.Bookmark, format.Bookmark("Service", "v1", "9", true))
		f.Add(string(format.AppendEvent(stream, wire.Deleted, e.typed(service))), uint8(2), asJSON)
	}
	e := encoding{t: f, format: wire.JSON, kind: kinds["services"], table: true}
	f.Add(string(e.tableOf("5", []object{service})), uint8(1), true)
	f.Add(string(wire.JSON.AppendEvent(nil, wire.Added, e.tableOf("5", []object{service}))), uint8(2), true)
	master := &corev1.Service{}
	master.Namespace, master.Name, master.Spec.ClusterIP = "default", "kubernetes", "10.96.0.1"
	f.Add(string(e.bare(master)), uint8(0), true)

	f.Fuzz(func(t *testing.T, body string, verb uint8, asJSON bool) {
		format, uri := wire.Protobuf, []string{
			"/api/v1/namespaces/shop/services/web", pathServices, pathServices + "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
		}[verb%3]
		if asJSON {
			format = wire.JSON
		}
		fl := newFilter(t, raw{body, format.MediaType()})
		defer fl.Close()
		resp, err := fl.RoundTrip(newRequest(uri, format.MediaType()))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	})
}
