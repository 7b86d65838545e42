package replay

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"rockpool.dev/store"
)

func TestBodiesThatAreOpenAtTheSameTimeShareNoBuffer(t *testing.T) {
	h := newHarness(t)
	get := func(name string) io.ReadCloser {
		t.Helper()
		resp, err := h.Answer(t.Context(), ask("/api/v1/namespaces/shop/pods/"+name, "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Body
	}
	wants := func(body io.Reader, name string) {
		t.Helper()
		if raw, err := io.ReadAll(body); err != nil || !strings.Contains(string(raw), `"name":"`+name+`"`) {
			t.Errorf("got %q, %v; want pod %s", raw, err, name)
		}
	}
	large := bare("shop", "large", 7)
	large.Payload = append(large.Payload[:len(large.Payload)-1], `,"x":"`+strings.Repeat("x", 2*objectBuffer)+`"}`...)
	h.record("/api/v1/namespaces/shop/pods", 9, bare("shop", "a", 5), bare("shop", "b", 6), large)

	first := get("a")
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("a closed body gives %v, want %v", err, http.ErrBodyReadAfterClose)
	}
	a, b, c := get("a"), get("b"), get("large")
	wants(c, "large")
	wants(b, "b")
	wants(a, "a")
	for _, body := range []io.ReadCloser{a, b, c} {
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestARepeatedGetAllocatesLittle(t *testing.T) {
	h := newHarness(t)
	h.update(func(tx *store.Tx) error {
		return h.putSingle(tx, scope("/api/v1/pods"), "Pod", "v1", bare("shop", "a", 5))
	})
	q := ask("/api/v1/namespaces/shop/pods/a", "application/json")
	n := testing.AllocsPerRun(200, func() {
		resp, err := h.Answer(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	})
	if n > 18 {
		t.Errorf("%.0f allocations, want at most 18", n)
	}
}
