package gobuild

import (
	"strings"
	"testing"
	"time"
)

func TestTheProgressOfABuildHasAnEstimate(t *testing.T) {
	for name, c := range map[string]struct {
		output string
		want   string
	}{
		"nothing is compiled yet":          {"", "tools: etcd: 0 of 4 packages after 1m0s"},
		"a quarter is compiled":            {"a\n", "tools: etcd: 1 of 4 packages after 1m0s, about 3m0s left"},
		"all is compiled":                  {"a\nb\nc\nd\n", "tools: etcd: 4 of 4 packages after 1m0s, now linking"},
		"the build prints more than names": {strings.Repeat("warning\n", 9), "tools: etcd: 4 of 4 packages after 1m0s, now linking"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Progress{name: "etcd", total: 4}
			if _, err := p.Write([]byte(c.output)); err != nil {
				t.Fatal(err)
			}
			if got := p.line(time.Minute); got != c.want {
				t.Errorf("progress %q, want %q", got, c.want)
			}
			if got := string(p.Messages()); got != c.output {
				t.Errorf("messages %q, want %q", got, c.output)
			}
		})
	}
}
