package socket

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"rockpool.dev/tests/eventually"
)

func tlsOf(h *harness) *tls.Config { return &tls.Config{RootCAs: h.roots} }

func encoded(token string) string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(token))
}

func TestHandshakes(t *testing.T) {
	const key, version, origin = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "Sec-WebSocket-Version: 13\r\n", "Origin: http://elsewhere.example\r\n"
	for _, c := range []struct{ name, header, want string }{
		{"any origin is taken", key + version + origin, "101 "},
		{"no origin is refused", key + version, "403 "},
		{"an origin that is no URL is refused", key + version + "Origin: null\r\n", "403 "},
		{"no key is refused", version + origin, "400 "},
		{"another version is refused", key + origin + "Sec-WebSocket-Version: 8\r\n", "400 Bad Request\r\nSec-WebSocket-Version: 13\r\n"},
		{"an extension is not taken", key + version + origin + "Sec-WebSocket-Extensions: permessage-deflate\r\n", "101 "},
		{"one subprotocol is taken", key + version + origin + "Sec-WebSocket-Protocol: base64.binary.k8s.io\r\n", "101 "},
		{"of two subprotocols none is chosen", key + version + origin + "Sec-WebSocket-Protocol: a, b\r\n", "400 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			conn, head := h.raw(c.header)
			if !strings.HasPrefix(head, "HTTP/1.1 "+c.want) {
				t.Errorf("got %q", head)
			}
			if strings.Contains(head, "Extensions") || strings.Contains(head, "Protocol: ") != strings.Contains(c.header, "binary.k8s.io") {
				t.Errorf("got %q", head)
			}
			_ = conn.Close()
			h.left()
		})
	}
}

func TestATokenAmongTheSubprotocols(t *testing.T) {
	for _, c := range []struct {
		name      string
		protocols []string
		chosen    string
		passes    bool // to the API server, which refuses it
		header    http.Header
	}{
		{name: "is the request's, and is not chosen", protocols: []string{encoded("a.b-c"), "base64.binary.k8s.io"}, chosen: "base64.binary.k8s.io"},
		{name: "may be the last", protocols: []string{"base64.binary.k8s.io", encoded("a.b-c")}, chosen: "base64.binary.k8s.io"},
		{name: "needs another one", protocols: []string{encoded("a.b-c")}, passes: true},
		{name: "comes once", protocols: []string{encoded("a.b-c"), encoded("d"), "x"}, passes: true},
		{name: "is base64", protocols: []string{tokenPrefix + "a*", "x"}, passes: true},
		{name: "is not empty", protocols: []string{tokenPrefix, "x"}, passes: true},
		{name: "is one word", protocols: []string{encoded("a b"), "x"}, passes: true},
		{name: "is one line", protocols: []string{encoded("a\r\nX: y"), "x"}, passes: true},
		{name: "is the only one", protocols: []string{encoded("a.b-c"), "x"}, passes: true, header: http.Header{"Authorization": {"Bearer d"}, "Origin": {"https://x"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			if c.header == nil {
				c.header = http.Header{"Origin": {"https://x"}}
			}
			conn, response, err := h.dial(path, c.header, c.protocols...)
			if c.passes {
				r := eventually.Receive(t, "the upgrade", h.passed)
				if got := strings.Join(r.Header.Values(protocolHeader), ", "); got != strings.Join(c.protocols, ", ") || len(h.asked) > 0 {
					t.Errorf("passed %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err, response)
			}
			if conn.Subprotocol() != c.chosen {
				t.Errorf("chosen %q", conn.Subprotocol())
			}
			r := eventually.Receive(t, "the watch", h.asked)
			if r.Header.Get("Authorization") != "Bearer a.b-c" || len(r.Header.Values(protocolHeader)) > 0 {
				t.Errorf("header %v", r.Header)
			}
		})
	}
}

func TestOtherUpgradesPass(t *testing.T) {
	for _, target := range []string{
		"/api/v1/namespaces/shop/pods/a/exec?command=sh&watch=true", "/api/v1/namespaces/shop/pods/a/attach", "/api/v1/namespaces/shop/pods/a/portforward",
		"/api/v1/namespaces/shop/pods/a/log?follow=true", "/api/v1/namespaces/shop/services/a/proxy/socket?watch=true", "/api/v1/proxy/namespaces/shop/services/a?watch=true",
		"/api/v1/namespaces/shop/configmaps", "/api/v1/namespaces/shop/configmaps?watch=false", "/version?watch=true",
	} {
		h := start(t)
		if _, response, err := h.dial(target, nil); err == nil || response.StatusCode != http.StatusTeapot {
			t.Errorf("%s: %v", target, err)
		}
		if r := eventually.Receive(t, "the upgrade", h.passed); r.Header.Get("Upgrade") != "websocket" || r.URL.RequestURI() != target {
			t.Errorf("passed %s %v", r.URL, r.Header)
		}
	}
	t.Run("a watch in CBOR", func(t *testing.T) {
		h := start(t)
		_, _, err := h.dial(path, http.Header{"Origin": {"https://x"}, "Accept": {"application/cbor, application/json"}}) //nolint:bodyclose // gorilla's has none to close
		if err == nil {
			t.Error("it opened")
		}
		eventually.Receive(t, "the upgrade", h.passed)
	})
	t.Run("a watch without an upgrade is an ordinary request", func(t *testing.T) {
		h := start(t)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsOf(h), ForceAttemptHTTP2: true}}
		defer client.CloseIdleConnections()
		response, err := client.Get("https://" + h.url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Error(response.Status)
		}
	})
}

// FuzzTakeToken checks that whatever a client offers becomes at most one token, which stands in a
// header field, and is not offered any more.
func FuzzTakeToken(f *testing.F) {
	for _, seed := range []string{"", "a", encoded("a.b") + ", x", encoded("a") + "," + encoded("b"), tokenPrefix, encoded("a\nb") + ",x", ",," + encoded("a")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, offered string) {
		h := http.Header{protocolHeader: {offered}}
		token, ok := takeToken(h)
		switch after := h.Get(protocolHeader); {
		case !ok && token != "", token == "" && after != offered:
			t.Errorf("%q: %q %t, then %q", offered, token, ok, after)
		case token != "" && (slices.ContainsFunc(strings.Split(after, ","), isOffer) || strings.ContainsAny(token, " \r\n\t\x00")):
			t.Errorf("%q: %q, then %q", offered, token, after)
		}
	})
}

func isOffer(protocol string) bool {
	return strings.HasPrefix(strings.TrimSpace(protocol), tokenPrefix)
}

// FuzzFrames checks that whatever a client sends on an open socket, the watch ends when it leaves.
func FuzzFrames(f *testing.F) {
	for _, seed := range []string{"", "\x81\x80\x00\x00\x00\x00", "\x89\x84\x01\x02\x03\x04abcd", "\x88\x80\x00\x00\x00\x00", "\x81\x01a", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04abc"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		h := start(t)
		conn, head := h.raw(handshaken)
		if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			t.Fatal(head)
		}
		_, _ = conn.Write(sent)
		_ = conn.Close()
		h.left()
		eventually.NoError(t, "the proxy's end", h.stop)
	})
}
