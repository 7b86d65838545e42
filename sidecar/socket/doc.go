// Package socket answers watches over a WebSocket, which is how fabric8's Java clients open each of
// theirs.
//
//	client ──WebSocket──▶ Handler ──GET …?watch=true──▶ next     an ordinary watch
//	                         ◀── a message for each event ──
//
// The WebSocket ends here. Behind it the watch is recorded, outlives the link, and is answered with
// the link down like any other. The library is the one that kube-apiserver uses, so that handshake,
// framing, pongs and close codes are the API server's: it wants an Origin, and takes any; it echoes
// the one subprotocol that is offered, and refuses two; it answers pings and sends none; it closes
// with 1000. An event in JSON is a text message with a line feed at its end, one in protobuf is a
// binary message without a length.
//
// An answer that is no watch, such as a 403, is the HTTP answer to the handshake. Other upgrades
// pass: exec, attach, port-forward, logs, proxy.
package socket
