// Package proxy is the HTTP engine of the sidecar. It terminates the application's TLS, hands each
// request to one http.RoundTripper, and streams the response back without delay.
//
//	app ──TLS h2/h1──▶ Front ──▶ Server ──▶ goproxy ──▶ Options.Transport   every ordinary request
//	                                └─────▶ httputil.ReverseProxy ──▶ Options.Upgrade   exec, …
//	app ──CONNECT────▶ ServeConnect ──▶ the TLS server above          names of the API
//	                      └─────▶ a plain TCP tunnel                  all other names
//
// The package knows HTTP and the Kubernetes Status object, which its own errors are made of. It
// does not know upstream addresses, the link, recording or replaying: the Transport does all of
// that.
//
// Requests and responses are changed as little as HTTP allows. Hop-by-hop header fields are dropped
// in both directions (RFC 9110 §7.6.1). Accept-Encoding is left to the Transport, so that traffic
// is compressed upstream and plain on loopback, but for what Options.Compressed lets through. Nothing
// is added: no Via, no X-Forwarded-For, no User-Agent where there was none.
package proxy
