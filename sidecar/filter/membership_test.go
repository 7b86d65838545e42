package filter

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rockpool.dev/sidecar/api/wire"
)

// shows waits until a client sees the endpoints of the slice shop/web-a on some of three nodes.
func shows(c *client, what string, nodes ...string) {
	c.t.Helper()
	c.waitFor(what, func() bool {
		held, ok := c.held["shop/web-a"]
		for _, node := range []string{nodeName, "edge-2", "edge-3"} {
			ok = ok && strings.Contains(held, "10.0.0."+node) == slices.Contains(nodes, node)
		}
		return ok
	})
}

// TestMembershipHoldsThroughAnOutage is about what the Nodes and NodePools say, which is recorded, and
// changes in the cloud meanwhile.
func TestMembershipHoldsThroughAnOutage(t *testing.T) {
	for name, x := range map[string]struct {
		topology       string
		before, change func(*server)
	}{
		"zones of nodes": {
			"kubernetes.io/zone",
			func(s *server) {
				s.put(inZone(newNode(nodeName, ""), "east"))
				s.put(inZone(newNode("edge-2", ""), "east"))
				s.put(inZone(newNode("edge-3", ""), "west"))
			},
			func(s *server) { s.put(inZone(newNode(nodeName, ""), "west")) },
		},
		"NodePools": {
			"openyurt.io/nodepool",
			func(s *server) {
				s.put(newNode(nodeName, ""))
				s.put(newPool("p", nodeName, "edge-2"))
			},
			func(s *server) { s.put(newPool("p", nodeName, "edge-3")) },
		},
		"labels of nodes": {
			"openyurt.io/nodepool",
			func(s *server) {
				s.put(newNode(nodeName, "p"))
				s.put(newNode("edge-2", "p"))
				s.put(newNode("edge-3", "q"))
			},
			func(s *server) { s.put(newNode(nodeName, "q")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			x.before(e.s)
			e.s.put(newService("web", topology(x.topology)))
			e.s.put(newSlice("web-a", "web", nodeName, "edge-2", "edge-3"))
			online := newClient(t, newFilter(t, e.dispatcher()), pathSlices, wire.Protobuf)
			shows(online, "online", nodeName, "edge-2")
			if err := e.disk.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			e.cut()
			offline := newClient(t, newFilter(t, e.dispatcher()), pathSlices, wire.Protobuf)
			shows(offline, "offline, after a restart", nodeName, "edge-2")
			x.change(e.s)
			if code, body := get(t, newFilter(t, e.dispatcher()), pathSlices, wire.MediaTypeJSON); code != http.StatusOK || !strings.Contains(body, "edge-2") {
				t.Errorf("offline, after a change in the cloud: %d %s", code, body)
			}
			e.restore()
			shows(online, "the watch that outlived the outage", nodeName, "edge-3")
			shows(offline, "the watch that was opened offline", nodeName, "edge-3")
			if online.lists != 1 || offline.lists > 1 {
				t.Errorf("lists: %d and %d", online.lists, offline.lists)
			}
		})
	}
}

func TestASettingOfMembershipCorrectsAWatchOffline(t *testing.T) {
	e := newEdge(t)
	e.s.refused["nodes"] = true
	e.s.put(newService("web", topology("openyurt.io/nodepool")))
	e.s.put(newSlice("web-a", "web", nodeName, "edge-2", "edge-3"))
	f := newFilter(t, e.dispatcher())
	c := newClient(t, f, pathSlices, wire.Protobuf)
	shows(c, "online, with an unknown pool", nodeName, "edge-2", "edge-3")
	if err := e.disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.cut()
	gauge := refusedReads.WithLabelValues("nodes")
	if n := testutil.ToFloat64(gauge); n != 1 {
		t.Errorf("%v lists of nodes are refused, want 1", n)
	}
	if got := f.Refused(); !slices.Equal(got, []string{"nodes"}) {
		t.Errorf("refused are %q", got)
	}
	for setting, want := range map[string][]string{"p=" + nodeName + ",edge-2": {nodeName, "edge-2"}, "p=" + nodeName + "\nq=edge-2": {nodeName}} {
		next := choose(t, "servicetopology")
		next.Pools, _ = parsePools(t, setting)
		f.Set(next)
		shows(c, "offline, with "+setting, want...)
	}
	if c.lists != 1 {
		t.Errorf("the client had to list %d times", c.lists)
	}
	f.Close()
	if got := f.Refused(); len(got) > 0 {
		t.Errorf("after its end, refused are %q", got)
	}
	if n := testutil.ToFloat64(gauge); n != 0 {
		t.Errorf("%v lists of nodes are refused after the end, want 0", n)
	}
}
