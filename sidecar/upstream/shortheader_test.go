package upstream

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestTheHeaderOfAShortRequestIsThatOfNetHTTP(t *testing.T) {
	for name, h := range map[string]http.Header{
		"nothing":                   {},
		"several values":            {"X-Stream-Protocol-Version": {"v4", "v3"}, "Accept": {"application/json"}},
		"no User-Agent":             {"User-Agent": nil},
		"fields of the connection":  {"Host": {"x"}, "Content-Length": {"3"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"}, "Connection": {"close"}},
		"white space around":        {"Accept": {" \tapplication/json \t"}},
		"an end of a line":          {"Accept": {"a\r\nAuthorization: Bearer x"}, "X": {"a\nb"}, "Y": {"a\rb"}},
		"a name that is no token":   {"A B": {"x"}, "A:\r\nB": {"x"}, "": {"x"}},
		"more than the buffer has":  {"Authorization": {"Bearer " + strings.Repeat("t", 3*shortBuffer)}},
		"an empty value":            {"Accept": {""}},
		"ends of lines at its ends": {"Accept": {"\r\na\r\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got, want bytes.Buffer
			c := &shortConn{out: bufio.NewWriterSize(&got, shortBuffer)}
			c.sendHeader(h)
			if err := c.out.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := h.WriteSubset(&want, notForwarded); err != nil {
				t.Fatal(err)
			}
			if got, want := fields(got.String()), fields(want.String()); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// fields are the lines of a header, with those of one name in their order.
func fields(header string) string {
	lines := strings.SplitAfter(header, "\r\n")
	slices.SortStableFunc(lines, func(a, b string) int {
		nameA, _, _ := strings.Cut(a, ":")
		nameB, _, _ := strings.Cut(b, ":")
		return strings.Compare(nameA, nameB)
	})
	return strings.Join(lines, "")
}
