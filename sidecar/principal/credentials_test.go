package principal

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"testing"
)

func TestTheSubjectsOfAFewTokensAreRemembered(t *testing.T) {
	c := NewCredentials(nil, nil)
	header := func(authorization string) http.Header { return http.Header{"Authorization": {authorization}} }
	token := func(subject string) string {
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q}`, subject))
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + claims + ".c2ln"
	}
	for i := range 3 * maxCredentials {
		want := fmt.Sprintf("subject-%d", i)
		for range 2 {
			if got := c.Subject(header("Bearer " + token(want))); got != want {
				t.Fatalf("the token of %s is taken for a token of %q", want, got)
			}
		}
	}
	if n := len(c.whose); n > maxCredentials {
		t.Errorf("%d tokens are remembered", n)
	}
	for _, none := range []string{"", "Basic x", "Bearer x"} {
		if got := c.Subject(header(none)); got != "" {
			t.Errorf("%q has the subject %q", none, got)
		}
	}
}
