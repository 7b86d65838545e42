// Package proxy is the HTTP engine of the sidecar: it terminates the application's TLS, hands each request to
// one http.RoundTripper, and carries the answer back without holding anything up.
//
//	app ──TLS h2/h1──▶ Server ──▶ goproxy ──▶ Options.Transport      every ordinary request
//	                      └─────▶ httputil.ReverseProxy ──▶ Options.Upgrade   SPDY, WebSocket
//	app ──CONNECT────▶ ServeConnect ──▶ the TLS server above          names of the API
//	                      └─────▶ a plain TCP tunnel                  all other names
//
// It knows HTTP and the Kubernetes Status object, in which it words its own errors. It knows nothing of upstream
// addresses, of the link, of recording and of replaying: those live behind the Transport.
//
// What goes through is changed as little as HTTP allows. Hop-by-hop header fields are dropped in both directions
// (RFC 9110 §7.6.1) and Accept-Encoding is left to the Transport, so that compression is used on the way upstream and
// plain bytes on loopback. Nothing is added: no Via, no X-Forwarded-For, no User-Agent where there was none.
package proxy
