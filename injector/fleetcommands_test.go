package main

import (
	"bytes"
	"strings"
	"testing"

	"rockpool.dev/injector/fleet"
)

func TestStatusShowsVersionsAndWhatNeedsAttention(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, []fleet.Sidecar{
		{Namespace: "shop", Pod: "db-0", Node: "edge-1", Image: "rockpool:v2", Injector: "v2"},
		{Namespace: "shop", Pod: "web-0", Node: "edge-1", Image: "rockpool:v1", Injector: "v1"},
		{Namespace: "shop", Pod: "web-1", Node: "edge-2", Image: "rockpool:v1", Injector: "v1", Problem: "ImagePullBackOff"},
	}, "rockpool:v2")
	want := `IMAGE         INJECTOR   PODS   OUTDATED   UNHEALTHY
rockpool:v1   v1         2      2          1
rockpool:v2   v2         1      0          0

NAMESPACE   POD     NODE     STATE                        IMAGE
shop        web-0   edge-1   outdated                     rockpool:v1
shop        web-1   edge-2   outdated, ImagePullBackOff   rockpool:v1
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
}

func TestShare(t *testing.T) {
	for _, test := range []struct {
		text string
		n    int
		want int // 0 = an error
	}{
		{"1", 100, 1}, {"10%", 100, 10}, {"10%", 101, 11}, {"10%", 3, 1}, {"10%", 0, 1}, {"100%", 7, 7}, {"500", 3, 500},
		{"0", 10, 0}, {"0%", 10, 0}, {"101%", 10, 0}, {"-1", 10, 0}, {"", 10, 0}, {"a few", 10, 0}, {"1.5%", 10, 0},
	} {
		if got, err := share(test.text, test.n); got != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("%q of %d is %d, %v", test.text, test.n, got, err)
		}
	}
}

func TestErrorsOfTheFleetCommandsNameTheFlag(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	for _, test := range []struct{ args, want string }{
		{"upgrade --image=a:v1 --timeout=0s", "--timeout: must be more than 0"},
		{"status --kubeconfig=/no/such/file", "--kubeconfig: "},
		{"upgrade --image=a:v1", "--kubeconfig: "},
		{"upgrade now", "unknown command"},
	} {
		if _, err := run(t.Context(), strings.Fields(test.args)...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.args, err, test.want)
		}
	}
}
