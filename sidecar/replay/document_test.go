package replay

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"rockpool.dev/store"
)

func TestARecordedBodyReplacesA304(t *testing.T) {
	h := newHarness(t)
	q := ask("/apis", "")
	h.update(func(tx *store.Tx) error {
		return tx.PutResponse(store.Response{Principal: who, Path: "/apis", Status: 200, MediaType: "application/json", ETag: `"1"`,
			Headers: `{"Vary":["Accept","Accept-Encoding"],"Last-Modified":["yesterday"],"Cache-Control":["private"]}`, Body: []byte("groups")})
	})
	notModified := &http.Response{StatusCode: 304, Header: http.Header{"Date": {"now"}, "Etag": {`"1"`}, "Cache-Control": {"public"}, "Audit-Id": {"x"}, "Vary": {"Accept"}}, Body: http.NoBody}
	resp, err := h.Unchanged(t.Context(), q, `"1"`, notModified)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(raw) != "groups" || resp.ContentLength != 6 {
		t.Fatalf("%+v %s %v", resp, raw, err)
	}
	for name, want := range map[string]string{"Date": "now", "ETag": `"1"`, "Cache-Control": "public", "Audit-Id": "x", "Vary": "Accept", "Last-Modified": "yesterday",
		"Content-Type": "application/json", "Content-Length": "6", "Cache-Status": "", "Age": ""} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if vary := resp.Header.Values("Vary"); len(vary) != 2 {
		t.Errorf("Vary is %v", vary)
	}
	if len(notModified.Header) != 5 || notModified.StatusCode != 304 {
		t.Error("the 304 was changed")
	}
	if _, err := h.Unchanged(t.Context(), q, `"2"`, notModified); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("for another etag: %v", err)
	}
}

func TestIfNoneMatch(t *testing.T) {
	for _, tt := range []struct {
		header, etag string
		want         bool
	}{
		{`"1"`, `"1"`, true}, {`"2"`, `"1"`, false}, {``, `"1"`, false}, {`*`, `"1"`, true},
		{`"2", "1"`, `"1"`, true}, {`W/"1"`, `"1"`, true}, {`"1"`, `W/"1"`, true}, {`"11"`, `"1"`, false},
	} {
		if got := etagMatches(tt.header, tt.etag); got != tt.want {
			t.Errorf("%s matches %s: %v", tt.etag, tt.header, got)
		}
	}
}
