package socket

import (
	"encoding/base64"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"rockpool.dev/sidecar/api/request"
)

const (
	headerPrefix   = "Sec-Websocket-" // of all fields of the handshake
	protocolHeader = headerPrefix + "Protocol"
	// tokenPrefix begins a subprotocol that is a token in base64 (kube-apiserver's
	// authentication/request/websocket). Programs in a browser cannot send Authorization.
	tokenPrefix = "base64url.bearer.authorization.k8s.io." //nolint:gosec // no credential
)

// open reads a request to open a WebSocket for a watch. It returns the handshake, whose
// subprotocols are without the token, and the ordinary watch, which has the token. It reports false
// for any other request, and for those about which only the API server can decide.
func open(r *http.Request) (handshake, watch *http.Request, ok bool) {
	if !isWebSocket(r) {
		return nil, nil, false
	}
	info := request.Parse(r)
	switch {
	case r.Method != http.MethodGet || !info.IsResource || info.Verb != request.Watch || info.Subresource != "" || info.Legacy:
		return nil, nil, false
	case strings.Contains(info.RawAccept, "cbor"): // events that cannot be cut here
		return nil, nil, false
	}
	handshake = r.WithContext(r.Context())
	handshake.Header = r.Header.Clone()
	token, ok := takeToken(handshake.Header)
	if !ok {
		return nil, nil, false
	}
	watch = r.WithContext(r.Context())
	watch.Header = r.Header.Clone()
	delete(watch.Header, "Upgrade")
	for name := range watch.Header {
		if strings.HasPrefix(name, headerPrefix) {
			delete(watch.Header, name)
		}
	}
	if token != "" {
		watch.Header.Set("Authorization", "Bearer "+token)
	}
	return handshake, watch, true
}

func isWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade")
}

// takeToken takes the token out of the offered subprotocols. Without one it changes nothing. It
// reports false where the API server refuses the token whatever it says, and where the request has
// another one, of which the API server takes the first that is valid.
func takeToken(h http.Header) (token string, ok bool) {
	var others []string
	seen := false
	for _, line := range h[protocolHeader] {
		for protocol := range strings.SplitSeq(line, ",") {
			protocol = strings.TrimSpace(protocol)
			encoded, is := strings.CutPrefix(protocol, tokenPrefix)
			if !is {
				others = append(others, protocol)
				continue
			}
			decoded, err := base64.RawURLEncoding.DecodeString(encoded)
			if seen || err != nil || !isToken(decoded) {
				return "", false
			}
			token, seen = string(decoded), true
		}
	}
	if !seen {
		return "", true
	}
	if len(others) == 0 || len(h["Authorization"]) > 0 {
		return "", false
	}
	h.Set(protocolHeader, strings.Join(others, ","))
	return token, true
}

// isToken reports whether Authorization can carry the token as it is.
func isToken(token []byte) bool {
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(token) > 0
}
