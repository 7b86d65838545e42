package dispatch

import (
	"net/http"
	"strings"
	"testing"

	"rockpool.dev/sidecar/upstream/upstreamtest"
)

const watchPath = "/api/v1/watch/namespaces/shop/configmaps"

// fluentd's Ruby client watches by the deprecated paths only.
func TestAWatchOfADeprecatedPathIsRecordedAndOutlivesTheLink(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	first, second := newStream(), newStream()
	g.answerInTurn(first, upstreamtest.ErrDown, second)
	c := g.open(g.request("GET", watchPath+"?resourceVersion=10"))
	go first.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))
	_ = first.w.CloseWithError(upstreamtest.ErrDown)
	go second.send(t, event("DELETED", "a", 12))
	c.want(event("DELETED", "a", 12))
	// What the API server authorizes stays what the client has asked for.
	resumed := g.lastRequest().URL
	if resumed.Path != watchPath || resumed.Query().Get("resourceVersion") != "11" {
		t.Fatalf("resumed by %s", resumed)
	}

	g.flush()
	g.link.Cut()
	if code, body := g.do(g.request("GET", path)); code != 200 || strings.Contains(body, `"name":"a"`) || !strings.Contains(body, `"name":"b"`) {
		t.Errorf("the list is %d %s", code, body)
	}
	if code, _ := g.do(g.request("GET", path+"/a")); code != 404 {
		t.Errorf("a deleted object is %d", code)
	}
	again := g.open(g.request("GET", watchPath))
	if frame := again.readFrame(); !strings.Contains(frame, `"ADDED"`) || !strings.Contains(frame, `"name":"b"`) {
		t.Errorf("an offline watch begins with %s", frame)
	}
}

func TestAWatchOfADeprecatedPathOfOneObjectIsOneOfThatObject(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	g.flush()
	g.link.Cut()
	c := g.open(g.request("GET", watchPath+"/a"))
	if frame := c.readFrame(); !strings.Contains(frame, `"name":"a"`) {
		t.Errorf("the watch begins with %s", frame)
	}
}

// The list that tells what a client has missed has the ordinary path.
func TestAnExpiredWatchOfADeprecatedPathIsComparedWithAList(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path+"?fieldSelector=metadata.name%3Da"))
	g.flush()
	first := newStream()
	g.answerInTurn(first, textResponse(200, expiredEvent), textResponse(200, listOf(12, "", object("a", "u", 12))))
	c := g.open(g.request("GET", watchPath+"/a?resourceVersion=10"))
	_ = first.w.CloseWithError(upstreamtest.ErrDown)
	if frame := c.readFrame(); !strings.Contains(frame, `"MODIFIED"`) {
		t.Fatalf("the client gets %s", frame)
	}
	all := g.link.Requests()
	if listed := all[3].URL; listed.Path != path || listed.Query().Get("fieldSelector") != "metadata.name=a" {
		t.Errorf("listed by %s", listed)
	}
}

// A part of a collection must not answer for the whole.
func TestAParameterThatMayNarrowIsOfTheIdenticalRequestOnly(t *testing.T) {
	const part = "?shardSelector=x"
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path+part))
	want := func(codes map[string]int) {
		t.Helper()
		g.flush()
		g.link.Cut()
		for url, want := range codes {
			if code, body := g.do(g.request("GET", url)); code != want {
				t.Errorf("%s: %d %s, want %d", url, code, body, want)
			}
		}
		g.link.Restore()
	}
	want(map[string]int{
		path + part: 200, path: 503, path + "/c": 503, path + "?shardSelector=y": 503, path + part + "&watch=true": 503,
		path + "?watch=true": 503,
	})
	stream := newStream()
	g.answerInTurn(stream)
	c := g.open(g.request("GET", path+part+"&watch=true&resourceVersion=10"))
	go stream.send(t, event("ADDED", "b", 11))
	c.want(event("ADDED", "b", 11))
	want(map[string]int{path + part: 503, path + "/b": 200, path + "/c": 503}) // the list is older than the event
}

func TestAWatchWithAParameterThatMayNarrowOutlivesTheLinkAndFollowsNoList(t *testing.T) {
	g := newHarness(t)
	g.answerAll(200, list)
	g.do(g.request("GET", path))
	first, second := newStream(), newStream()
	g.answerInTurn(first, upstreamtest.ErrDown, second)
	c := g.open(g.request("GET", watchFrom10+"&shardSelector=x"))
	go first.send(t, event("DELETED", "a", 11)) // moved to another shard
	c.want(event("DELETED", "a", 11))
	_ = first.w.CloseWithError(upstreamtest.ErrDown)
	go second.send(t, event("ADDED", "b", 12))
	c.want(event("ADDED", "b", 12))
	if q := g.lastRequest().URL.Query(); q.Get("shardSelector") != "x" || q.Get("resourceVersion") != "11" {
		t.Errorf("resumed with %v", q)
	}
	g.flush()
	g.link.Cut()
	for _, url := range []string{path, path + "/a", path + "?shardSelector=x", path + "?watch=true&shardSelector=x"} {
		if code, body := g.do(g.request("GET", url)); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", url, code, body)
		}
	}
	// It may open without the link as well, from a version.
	g.open(g.request("GET", watchFrom10+"&shardSelector=x"))
}
