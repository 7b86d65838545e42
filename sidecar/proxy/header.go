package proxy

import (
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// hopByHop are the fields that concern one connection even when Connection does not name them (RFC
// 9110 §7.6.1; Proxy-Authenticate and Proxy-Authorization of §11.7 are between client and proxy).
// Trailer is listed because net/http keeps trailers outside the header and announces them itself.
var hopByHop = []string{
	"Connection",
	"Keep-Alive",
	"Proxy-Connection",
	"Proxy-Authenticate",
	"Proxy-Authorization",
	"Te",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
}

// dropHopByHop removes the fields that must not be forwarded from a header. "TE: trailers" stays:
// it tells upstream that trailers are forwarded, which is true (RFC 9110 §10.1.4).
func dropHopByHop(h http.Header) {
	trailers := httpguts.HeaderValuesContainsToken(h["Te"], "trailers")
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}

// upgradeProtocol returns the protocol that an HTTP/1.1 request wants to switch to, or "" (RFC 9110
// §7.8: an Upgrade that Connection does not name has no effect; HTTP/2 has neither field). It
// ignores protocols other than SPDY and WebSocket, as a server may: Java's HTTP client offers h2c.
func upgradeProtocol(r *http.Request) string {
	if r.ProtoMajor != 1 || !httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		return ""
	}
	protocol := r.Header.Get("Upgrade")
	if name, _, _ := strings.Cut(protocol, "/"); !strings.EqualFold(name, "spdy") && !strings.EqualFold(protocol, "websocket") {
		return ""
	}
	return protocol
}

// keepUserAgentAbsent keeps http.Transport from sending Go's User-Agent where the client sent none.
func keepUserAgentAbsent(h http.Header) {
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil
	}
}

// watchPath reports whether path is a deprecated watch path, /api/v1/watch/... or
// /apis/GROUP/VERSION/watch/...
func watchPath(path string) bool {
	if !strings.Contains(path, "/watch/") { // which spares nearly all paths the rest
		return false
	}
	segments := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 5)
	switch segments[0] {
	case "api":
		return len(segments) > 3 && segments[2] == "watch"
	case "apis":
		return len(segments) > 4 && segments[3] == "watch"
	}
	return false
}
