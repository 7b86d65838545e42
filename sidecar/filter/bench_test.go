package filter

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"rockpool.dev/sidecar/api/wire"
)

// fixed answers every LIST of EndpointSlices with the same bytes.
type fixed struct {
	*server
	body      []byte
	mediaType string
	path      string
}

func (f *fixed) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == f.path {
		return f.response(http.StatusOK, f.mediaType, io.NopCloser(bytes.NewReader(f.body))), nil
	}
	return f.server.RoundTrip(r)
}

// slices10k returns a list of 10,000 slices with ten endpoints each, of 1,000 Services, one in ten of
// which has its endpoints at its node.
func slices10k(b *testing.B, s *server, format wire.Format) []byte {
	e := encoding{t: b, format: format, kind: kinds["endpointslices"]}
	var all []object
	for i := range 10_000 {
		service := fmt.Sprintf("service-%03d", i%1000)
		nodes := make([]string, 10)
		for n := range nodes {
			nodes[n] = fmt.Sprintf("edge-%d", (i+n)%100)
		}
		o := newSlice(fmt.Sprintf("%s-%05d", service, i), service, nodes...)
		o.ResourceVersion = "50"
		for n := range o.Endpoints {
			ready := true
			o.Endpoints[n].Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}
		}
		all = append(all, o)
	}
	for i := range 100 {
		s.put(newService(fmt.Sprintf("service-%03d", i*10), topology("kubernetes.io/hostname")))
	}
	return e.list("100", all)
}

// BenchmarkList reads a list to the last byte: as it comes, and through the Dispatcher, which records it.
func BenchmarkList(b *testing.B) {
	for _, recorded := range []bool{false, true} {
		benchmarkList(b, recorded)
	}
}

func benchmarkList(b *testing.B, recorded bool) {
	for _, format := range formats {
		s := newServer(b)
		body := slices10k(b, s, format)
		fixed := &fixed{s, body, format.MediaType(), pathSlices}
		var below http.RoundTripper = fixed
		how := " "
		if recorded {
			how = " recorded "
			e := newEdge(b)
			e.link.SetAnswer(fixed.RoundTrip)
			below = e.dispatcher()
		}
		for name, list := range map[string]string{"filtered": "servicetopology", "unfiltered": "-servicetopology,-discardcloudservice,-forwardkubesvctraffic"} {
			b.Run(name+how+format.MediaType(), func(b *testing.B) {
				f := newFilter(b, below)
				f.Set(choose(b, list))
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				buf := make([]byte, 32<<10)
				for b.Loop() {
					resp, err := f.RoundTrip(newRequest(pathSlices, format.MediaType()))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, buf); err != nil {
						b.Fatal(err)
					}
					_ = resp.Body.Close()
				}
			})
		}
	}
}

// BenchmarkOther is what a request for a resource costs that no filter touches.
func BenchmarkOther(b *testing.B) {
	s := newServer(b)
	const path = "/api/v1/namespaces/shop/pods"
	below := &fixed{s, []byte(`{}`), wire.MediaTypeJSON, path}
	for name, next := range map[string]http.RoundTripper{"with": newFilter(b, below), "without": below} {
		b.Run(name, func(b *testing.B) {
			r := newRequest(path, wire.MediaTypeJSON)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := next.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}
