package dispatch

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"rockpool.dev/sidecar/upstream"
)

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// answerZipped makes the API server compress a list for those who ask for it. change, if not nil, is
// given the compressed bytes.
func (g *harness) answerZipped(text string, change func([]byte) io.Reader) {
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		if r.Header.Get("Accept-Encoding") != "gzip" {
			return textResponse(200, text), nil
		}
		body := io.Reader(bytes.NewReader(zipped(g.t, text)))
		if change != nil {
			body = change(zipped(g.t, text))
		}
		resp := response(200, io.NopCloser(body))
		resp.Header.Set("Content-Encoding", "gzip")
		return resp, nil
	})
}

func (g *harness) requestZipped(url string) *http.Request {
	r := g.request("GET", url)
	r.Header.Set("Accept-Encoding", "gzip")
	return r
}

func listWith(objects int) string {
	var items []string
	for i := range objects {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":"a%d","namespace":"shop","uid":"u%d","resourceVersion":"%d"}}`, i, i, i+1))
	}
	return `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"99999"},"items":[` + strings.Join(items, ",") + `]}`
}

func TestACompressedListPassesAsItIsAndIsRecorded(t *testing.T) {
	for _, c := range []struct {
		name    string
		objects int
		reader  func(io.Reader) io.Reader
	}{
		{"small", 1, func(r io.Reader) io.Reader { return r }},
		{"byte by byte", 3, iotest.OneByteReader},
		{"the last bytes with the end", 3, iotest.DataErrReader},
		{"large", 20000, func(r io.Reader) io.Reader { return r }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newHarness(t)
			text := listWith(c.objects)
			g.answerZipped(text, func(raw []byte) io.Reader { return c.reader(bytes.NewReader(raw)) })
			resp, err := g.RoundTrip(g.requestZipped(path))
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Header.Get("Content-Encoding"); got != "gzip" {
				t.Errorf("Content-Encoding %q", got)
			}
			raw, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(raw, zipped(t, text)) {
				t.Errorf("%d bytes differ from those of the API server", len(raw))
			}
			g.flush()
			g.failAll(&upstream.LinkError{})
			code, offline := g.do(g.requestZipped(path))
			if code != 200 || strings.Count(offline, `"name"`) != c.objects {
				t.Errorf("offline %d with %d objects, want %d", code, strings.Count(offline, `"name"`), c.objects)
			}
		})
	}
}

func TestAListThatIsNotWholeIsNotRecorded(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func([]byte) io.Reader
	}{
		{"it breaks off", func(raw []byte) io.Reader {
			return io.MultiReader(bytes.NewReader(raw[:len(raw)/2]), iotest.ErrReader(&upstream.LinkError{}))
		}},
		{"its checksum is wrong", func(raw []byte) io.Reader {
			raw[len(raw)-6] ^= 1
			return bytes.NewReader(raw)
		}},
		{"it is not gzip", func(raw []byte) io.Reader { return strings.NewReader(listWith(1)) }},
		{"it ends early", func(raw []byte) io.Reader { return bytes.NewReader(raw[:len(raw)-9]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newHarness(t)
			g.answerZipped(listWith(3000), c.change)
			resp, err := g.RoundTrip(g.requestZipped(path))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body) // the client gets what there is
			if err := resp.Body.Close(); err != nil {
				t.Fatal(err)
			}
			g.flush()
			g.failAll(&upstream.LinkError{})
			if code, text := g.do(g.request("GET", path)); code != 503 {
				t.Errorf("offline %d %.100s", code, text)
			}
		})
	}
}

func TestAClientThatLeavesACompressedListEndsItsRecording(t *testing.T) {
	g := newHarness(t)
	g.answerZipped(listWith(20000), nil)
	resp, err := g.RoundTrip(g.requestZipped(path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil { // goleak finds the goroutine if it is left
		t.Fatal(err)
	}
	g.flush()
	g.failAll(&upstream.LinkError{})
	if code, text := g.do(g.request("GET", path)); code != 503 {
		t.Errorf("offline %d %.100s", code, text)
	}
}

func TestOnlyListsAreAskedForCompressed(t *testing.T) {
	g := newHarness(t)
	g.answerZipped(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}`, nil)
	if code, text := g.do(g.requestZipped(path + "/a")); code != 200 || !strings.HasPrefix(text, "{") {
		t.Errorf("%d %q", code, text)
	}
	if got := g.lastRequest().Header.Get("Accept-Encoding"); got != "" {
		t.Errorf("asked for %q", got)
	}
}

// Without an Audit-Id only the body tells whose answer it is, and compressed bytes do not.
func TestACompressedListWithoutAnAuditIDIsRecorded(t *testing.T) {
	g := newHarness(t)
	g.answerZipped(listWith(3), nil)
	answer := g.link.Answer()
	g.link.SetAnswer(func(r *http.Request) (*http.Response, error) {
		resp, err := answer(r)
		resp.Header.Del("Audit-Id")
		return resp, err
	})
	resp, err := g.RoundTrip(g.requestZipped(path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	g.flush()
	g.failAll(&upstream.LinkError{})
	if code, offline := g.do(g.requestZipped(path)); code != 200 || strings.Count(offline, `"name"`) != 3 {
		t.Errorf("offline %d: %s", code, offline)
	}
}
