package certificate

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
)

var (
	expiry = promauto.NewGauge(prometheus.GaugeOpts{
		Name: "rockpool_injector_certificate_expiry_timestamp_seconds",
		Help: "End of validity of the serving certificate in use, in seconds since 1970.",
	})

	failures = promauto.NewCounter(prometheus.CounterOpts{
		Name: "rockpool_injector_certificate_failures_total",
		Help: "Looks at the certificate that failed: its files could not be used, or Secret and caBundle could not be read or written. The certificate before stays.",
	})

	changes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_certificate_changes_total",
		Help: "Changes of the Secret by this replica, by step (start, renew, introduce, switch, retire).",
	}, []string{"step"})
)

// inUse tells of a new certificate.
func inUse(log *zap.Logger, cert *x509.Certificate) {
	expiry.Set(float64(cert.NotAfter.Unix()))
	log.Info("certificate in use", zap.Strings("names", cert.DNSNames), zap.String("issuer", cert.Issuer.CommonName), zap.Time("notAfter", cert.NotAfter))
}
