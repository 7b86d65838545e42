package upstream

import (
	"net/http"
	"testing"

	"rockpool.dev/tests/eventually"
)

func TestWhatIsKnownOfEachAddress(t *testing.T) {
	t.Parallel()
	good, bad := newServer(t, true, func(http.ResponseWriter, *http.Request) {}), newServer(t, true, nil)
	bad.link.refuse()
	r := newHarness(t, fastOptions(good.asServer(), bad.asServer()))
	for _, a := range r.Addresses() {
		if a.Verdict.String() != "unknown" || !a.Heard.IsZero() || a.Error != "" || a.LastResort {
			t.Errorf("before the first request: %+v", a)
		}
	}
	r.run()
	if err := r.send(http.MethodGet, "/api").Body.Close(); err != nil {
		t.Fatal(err)
	}
	eventually.True(t, "the addresses are told apart", func() bool {
		all := r.Addresses()
		return len(all) == 2 && all[0].Verdict == Up && !all[0].Heard.IsZero() && all[0].Error == "" && all[0].URL == good.asServer().URL.String()
	})
	good.link.refuse()
	<-r.try("/api")
	eventually.True(t, "both are down", func() bool {
		all := r.Addresses()
		return all[0].Verdict.String() == "down" && all[0].Error != "" && all[1].Verdict == Down
	})
}
