package agent

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	const kubectl = "kubectl/v1.36.3 (linux/amd64) kubernetes/1234567"
	tests := []struct {
		name, list, userAgent string
		want                  bool
	}{
		{"the wildcard selects every client", "*", kubectl, true},
		{"the wildcard selects a client without a User-Agent", "*", "", true},
		{"an empty list selects none", "", kubectl, false},
		{"the name is the part before the slash", "kubectl", kubectl, true},
		{"a prefix of a name does not match", "kube", kubectl, false},
		{"case does not matter", "KubeCtl", kubectl, true},
		{"one of several", "curl, kubectl", kubectl, true},
		{"a pattern", "kube*", kubectl, true},
		{"an exception", "*,!kubectl", kubectl, false},
		{"an exception by pattern", "*,!kube*", kubectl, false},
		{"the order does not matter", "!kubectl,*", kubectl, false},
		{"exceptions alone select all others", "!curl", kubectl, true},
		{"a name without a version", "OpenAPI-Generator", "OpenAPI-Generator", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Parse(tt.list)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Match(tt.userAgent); got != tt.want {
				t.Fatalf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseErrorsQuoteTheName(t *testing.T) {
	for _, bad := range []string{"kubectl/v1", "!", "[", "a,kube[z-,b"} {
		if _, err := Parse(bad); err == nil || !strings.Contains(err.Error(), "is not a User-Agent's name") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("kubectl,!curl,my-*", "kubectl/v1")
	f.Add("[a-", "")
	f.Fuzz(func(t *testing.T, list, userAgent string) {
		s, err := Parse(list)
		if err != nil {
			return
		}
		s.Match(userAgent)
	})
}
