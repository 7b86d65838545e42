package upstream

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LinkError says that no API server answered, with a reason for each address. It contains no part
// of the request.
type LinkError struct {
	Servers []ServerError
	// Sent means that part of the request may have arrived at an API server.
	Sent bool
}

// ServerError is the reason why one address did not answer.
type ServerError struct {
	URL string // of the address
	Err error
}

// Error names each address with its reason.
func (e *LinkError) Error() string {
	if len(e.Servers) == 0 {
		return "no API server answers"
	}
	var b strings.Builder
	b.WriteString("no API server answers: ")
	for i, s := range e.Servers {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", s.URL, s.Err)
	}
	return b.String()
}

// Unwrap returns the reasons.
func (e *LinkError) Unwrap() []error {
	causes := make([]error, 0, len(e.Servers))
	for _, s := range e.Servers {
		causes = append(causes, s.Err)
	}
	return causes
}

// Status returns the Status for the client. It has no Retry-After: a client that retries by itself
// would wait for a link that may be down for days.
func (e *LinkError) Status() metav1.Status {
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusServiceUnavailable,
		Reason:  metav1.StatusReasonServiceUnavailable,
		Message: "the link to the API server is down: " + e.Error(),
	}
}

// IsLinkError reports whether an error means that the link failed, not the request or its client.
func IsLinkError(err error) bool {
	var link *LinkError
	return errors.As(err, &link)
}

// MayHaveArrived reports whether err is a LinkError whose request the API server may have executed.
func MayHaveArrived(err error) bool {
	var link *LinkError
	return errors.As(err, &link) && link.Sent
}

// noAnswer is the error of an attempt to connect, or of /readyz, that timed out.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string { return fmt.Sprintf("no answer within %s", e.after) }

// unavailable is a 5xx that does not come from a working API server.
type unavailable struct{ status string }

func (e unavailable) Error() string {
	return "answered " + e.status + ", which does not come from a working API server"
}

// isConnectionError reports whether an exchange failed because the connection did. Otherwise the
// server aborted this one stream, or sent a body that cannot be decompressed, over a connection
// that works.
func isConnectionError(err error) bool {
	var stream http2.StreamError // net/http's own error converts itself to it
	var corrupt flate.CorruptInputError
	return !errors.As(err, &stream) && !errors.As(err, &corrupt) &&
		!errors.Is(err, gzip.ErrHeader) && !errors.Is(err, gzip.ErrChecksum)
}

// isLinkFailure reports whether a TLS handshake failed because the connection did, or because nobody
// waits for it any more. Otherwise one side has refused the other.
func isLinkFailure(err error) bool {
	var op *net.OpError // crypto/tls has one for alerts, too
	if errors.As(err, &op) {
		return op.Op == "read" || op.Op == "write"
	}
	for _, target := range []error{io.EOF, io.ErrUnexpectedEOF, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusesProtocols reports whether the peer has refused a handshake because it speaks none of the
// protocols that were offered (RFC 7301 §3.2). That says nothing about the session. The type of the
// alert is private to crypto/tls.
func refusesProtocols(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err != nil && op.Err.Error() == "tls: no application protocol"
}

// diagnose returns the kind of a failure, by which repeated failures are recognised, and advice on
// what to check.
func diagnose(err error, caFile string) (kind, advice string) {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		remote    *net.OpError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		trust     *trustError
		answered  unavailable
		silent    noAnswer
		network   net.Error
	)
	switch {
	case errors.As(err, &trust):
		return "ca", "check that the file exists, is readable, and holds the cluster's CA certificates"
	case errors.As(err, &authority):
		return "authority", "its certificate is not signed by a CA in " + orSystem(caFile) +
			": check that this is the right cluster, and that nothing in between replaces certificates"
	case errors.As(err, &name):
		return "name", "its certificate is for other names: " +
			"use one of them in upstream.servers, or set upstream.tls-server-name"
	case errors.As(err, &invalid):
		return "certificate", "check the certificate's dates, and this node's clock"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "not-tls", "it does not speak TLS: check the port in upstream.servers"
	case errors.As(err, &remote) && remote.Op == "remote error": // how crypto/tls reports an alert
		return "alert", "it refused the TLS handshake: check the port and upstream.tls-server-name"
	case errors.As(err, &dns):
		return "dns", "its name does not resolve: check upstream.servers and this node's DNS"
	case errors.As(err, &answered):
		return answered.status, "probably a load balancer sent this because no API server behind it works"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", "nothing listens there, or a firewall rejects the connection"
	case errors.As(err, &silent), errors.As(err, &network) && network.Timeout():
		return "timeout", "the link is down, or a firewall drops packets"
	}
	return "connection", "the connection broke"
}

func orSystem(caFile string) string {
	if caFile == "" {
		return "the system's certificate store"
	}
	return caFile
}
