package e2e

import (
	"fmt"
	"strconv"
	"testing"

	"rockpool.dev/tests/edge"
)

// A cluster that was restored from a backup has other objects at the versions that the sidecar has
// recorded. It runs in a cluster of its own.
func TestASavedListAfterARestoreFromABackup(t *testing.T) {
	t.Parallel()
	other, err := edge.Start(t.Context(), edge.Options{Like: cluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newSiteIn(t, other)
	s.thin(300)
	p := s.pod(withoutApp)
	p.linkIs("online")
	backup := t.TempDir()
	s.must(other.Backup(t.Context(), backup))
	for name, meanwhile := range map[string]func(recorded int){
		"before its revisions have passed": func(int) {},
		"once its revisions have passed": func(recorded int) {
			for i := 100; ; i++ {
				o := s.configMap(fmt.Sprintf("many-%04d", i%200+100), noise(1500))
				if n, err := strconv.Atoi(o.ResourceVersion); err != nil || n > recorded+5 {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := p.in(t)
			s := p.site
			p.linkIs("online")
			s.configMap("future", "that will not have been")
			s.many(0, 5)
			p.saved()
			recorded, err := strconv.Atoi(p.version())
			s.must(err)
			s.must(other.Recover(t.Context(), backup))
			meanwhile(recorded)
			p.linkIs("online")
			for _, query := range []string{"", "?limit=5000", "?resourceVersion=0", ""} {
				r := p.ask(get(s.configMaps() + query))[0]
				p.isPresent(r)
				if _, ok := versions(t, r)["future"]; ok {
					t.Errorf("%q shows an object of the old future, Cache-Status %q", query, r.Headers["Cache-Status"])
				}
			}
			s.many(5, 8)
			p.saved() // what was listed since
		})
	}
}
