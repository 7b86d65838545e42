package dispatch

import (
	"fmt"
	"net/http"
	"testing"
)

func TestWhoseATokenIsIsRememberedForAFewTokens(t *testing.T) {
	var s subjects
	header := func(authorization string) http.Header { return http.Header{"Authorization": {authorization}} }
	for i := range 3 * maxCredentials {
		want := fmt.Sprintf("subject-%d", i)
		for range 2 {
			if got := s.of(header("Bearer " + token(want))); got != want {
				t.Fatalf("the token of %s is taken for one of %q", want, got)
			}
		}
	}
	if n := len(s.known); n > maxCredentials {
		t.Errorf("%d tokens are remembered", n)
	}
	for _, none := range []string{"", "Basic x", "Bearer x"} {
		if got := s.of(header(none)); got != "" {
			t.Errorf("%q has the subject %q", none, got)
		}
	}
}
