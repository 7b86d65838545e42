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
		Help: "Failed updates of the certificate: its files are unusable, or Secret or caBundle cannot be read or written. " +
			"The previous certificate stays in use.",
	})

	changes = promauto.NewCounterVec(prometheus.CounterOpts{
		Name: "rockpool_injector_certificate_changes_total",
		Help: "Changes of the Secret by this replica, by step (start, renew, introduce, switch, retire).",
	}, []string{"step"})
)

// logInUse logs a new certificate, and sets the metric of its expiry.
func logInUse(log *zap.Logger, cert *x509.Certificate) {
	expiry.Set(float64(cert.NotAfter.Unix()))
	log.Info("certificate in use", zap.Strings("names", cert.DNSNames),
		zap.String("issuer", cert.Issuer.CommonName), zap.Time("notAfter", cert.NotAfter))
}
