package upstream

import (
	"compress/flate"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LinkError says that no API server answered, and why, address by address. It carries nothing of the request.
type LinkError struct {
	Servers []ServerError
	// Sent tells that part of the request may have arrived somewhere.
	Sent bool
}

// ServerError is why one address did not answer.
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

// Status is what a client is told. There is no Retry-After in it: a client that retries by itself would wait for a link that
// may be down for days.
func (e *LinkError) Status() metav1.Status {
	return metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusServiceUnavailable,
		Reason:  metav1.StatusReasonServiceUnavailable,
		Message: "the link to the API server is down: " + e.Error(),
	}
}

// IsLinkError reports whether an error means that the link failed, rather than the request or its client.
func IsLinkError(err error) bool {
	var link *LinkError
	return errors.As(err, &link)
}

// MayHaveArrived reports whether the request of a LinkError may have been carried out.
func MayHaveArrived(err error) bool {
	var link *LinkError
	return errors.As(err, &link) && link.Sent
}

// noAnswer is a probe that was given up.
type noAnswer struct{ after time.Duration }

func (e noAnswer) Error() string { return fmt.Sprintf("no answer to GET /readyz within %s", e.after) }

// unavailable is a 5xx that does not come from an API server that is up.
type unavailable struct{ status string }

func (e unavailable) Error() string {
	return "answered " + e.status + ", which does not come from a working API server"
}

// cut is the cause with which an address' requests are ended when it is found to be down.
type cut struct{ reason error }

func (c cut) Error() string { return c.reason.Error() }

// isConnectionError tells whether an exchange failed for want of a connection. The alternative is that the server aborted
// this one stream, or sent a body that cannot be decompressed: both come over a connection that works.
func isConnectionError(err error) bool {
	var stream http2.StreamError // net/http's own error converts itself to it
	var corrupt flate.CorruptInputError
	return !errors.As(err, &stream) && !errors.As(err, &corrupt) &&
		!errors.Is(err, gzip.ErrHeader) && !errors.Is(err, gzip.ErrChecksum)
}

// diagnose sorts a failure into a kind, by which repeated ones are recognised, and says what a person can check.
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
		return "name", "its certificate is for other names: use one of them in upstream.servers, or set upstream.tls-server-name"
	case errors.As(err, &invalid):
		return "certificate", "check the certificate's dates, and this node's clock"
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &record):
		return "not-tls", "it does not speak TLS: check the port in upstream.servers"
	case errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls' word for an alert
		return "alert", "it refused the TLS handshake: check the port and upstream.tls-server-name"
	case errors.As(err, &dns):
		return "dns", "its name does not resolve: check upstream.servers and this node's DNS"
	case errors.As(err, &answered):
		return answered.status, "a load balancer without a working API server behind it answers like this"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused", "nothing listens there, or a firewall rejects"
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
