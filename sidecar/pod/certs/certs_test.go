package certs

import (
	"bytes"
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var today = time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)

func open(t *testing.T, o Options) *Authority {
	t.Helper()
	if o.Names == nil {
		o.Names = apiNames("cluster.local")
	}
	if o.Clock == nil {
		o.Clock = clocktesting.NewFakePassiveClock(today)
	}
	a, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sameCA(a, b *Authority) bool   { return a.ca.cert.Equal(b.ca.cert) }
func sameLeaf(a, b *Authority) bool { return a.leaf.cert.Equal(b.leaf.cert) }

// verify runs Go's verifier at a time, like an application that has read roots once.
func verify(t *testing.T, roots []byte, a *Authority, host string, at time.Time) error {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		t.Fatal("no certificate in the CA's PEM")
	}
	_, err := a.leaf.cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: host, CurrentTime: at})
	return err
}

func apiNames(domain string) []string {
	return []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + domain}
}

var ownHosts = []string{
	"127.0.0.1", "::1", "localhost", "kubernetes", "kubernetes.default",
	"kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
}

func TestTheCertificateIsForThePodOnly(t *testing.T) {
	a := open(t, Options{Directory: t.TempDir()})
	for _, host := range ownHosts {
		if err := verify(t, a.CAPEM(), a, host, today); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"127.0.0.2", "10.96.0.1", "example.com", "metrics.kube-system.svc", "kubernetes.default.svc.other.domain"} {
		if err := verify(t, a.CAPEM(), a, host, today); err == nil {
			t.Errorf("%s is accepted", host)
		}
	}
}

func TestTheAuthorityIsWorthlessForOtherNames(t *testing.T) {
	a := open(t, Options{Directory: t.TempDir()})
	for _, host := range []string{"example.com", "metrics.kube-system.svc", "kubernetes.default.svc.other.domain"} {
		rogue := &Authority{ca: a.ca, leaf: issueWithStolenKey(t, a, host)}
		if err := verify(t, a.CAPEM(), rogue, host, today); err == nil {
			t.Errorf("a certificate for %s is accepted", host)
		}
	}
	// It can issue no further CA.
	if !a.ca.cert.MaxPathLenZero || a.ca.cert.MaxPathLen != 0 || !a.ca.cert.IsCA || a.leaf.cert.IsCA {
		t.Error("the path length must be 0, and the leaf must not be a CA")
	}
	// BoringSSL and mbedTLS would refuse it otherwise.
	if a.ca.cert.PermittedDNSDomainsCritical || len(a.ca.cert.PermittedIPRanges) > 0 {
		t.Error("the name constraints must not be critical, and have no addresses")
	}
	if got := a.leaf.cert.PublicKey.(*ecdsa.PublicKey).Curve; got != elliptic.P256() {
		t.Errorf("curve %v", got)
	}
}

func TestAnotherClusterDomain(t *testing.T) {
	a := open(t, Options{Directory: t.TempDir(), Names: apiNames("edge.example")})
	if err := verify(t, a.CAPEM(), a, "kubernetes.default.svc.edge.example", today); err != nil {
		t.Error(err)
	}
	if err := verify(t, a.CAPEM(), a, "kubernetes.default.svc.cluster.local", today); err == nil {
		t.Error("the default domain is accepted too")
	}
}

func TestWrongClocks(t *testing.T) {
	times := map[string]time.Time{
		"a board without battery": time.Unix(1, 0),
		"a stale firmware date":   time.Date(2018, 3, 1, 0, 0, 0, 0, time.UTC),
		"the true time":           today,
		"a clock years ahead":     today.AddDate(8, 0, 0),
	}
	for made, at := range times {
		for used, then := range times {
			t.Run("made at "+made+", used at "+used, func(t *testing.T) {
				directory := t.TempDir()
				first := open(t, Options{Directory: directory, Clock: clocktesting.NewFakePassiveClock(at)})
				if err := verify(t, first.CAPEM(), first, "127.0.0.1", then); err != nil {
					t.Error(err)
				}
				second := open(t, Options{Directory: directory, Clock: clocktesting.NewFakePassiveClock(then)})
				if !sameCA(first, second) || !sameLeaf(first, second) {
					t.Error("the clock's jump made new certificates")
				}
			})
		}
	}
}

func TestRestart(t *testing.T) {
	tests := map[string]struct {
		damage           func(t *testing.T, directory string)
		later            time.Duration
		domain           string
		keptCA, keptLeaf bool
		keptKey          bool   // the CA's, so that programs which have read the old CA go on
		why              string // the log has it
	}{
		"both are kept":                               {damage: func(*testing.T, string) {}, keptCA: true, keptLeaf: true},
		"the leaf is gone":                            {damage: remove(leafFile), keptCA: true},
		"the leaf is empty":                           {damage: write(leafFile, nil), keptCA: true, why: "does not begin with a PEM certificate"},
		"the leaf is half written":                    {damage: truncate(leafFile), keptCA: true, why: "no PEM private key"},
		"the leaf is garbage":                         {damage: write(leafFile, pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: []byte("x")})), keptCA: true, why: "private key"},
		"the leaf has the key of another certificate": {damage: joinKeyOf(leafFile, caFile), keptCA: true, why: "key of another certificate"},
		"the leaf is of another CA": {
			damage: func(t *testing.T, dir string) {
				other := t.TempDir()
				open(t, Options{Directory: other})
				copyFile(t, filepath.Join(other, leafFile), filepath.Join(dir, leafFile))
			},
			keptCA: true, why: "not signed by the pod's CA",
		},
		"the CA is gone":         {damage: remove(caFile), why: "not signed by the pod's CA"},
		"the CA is half written": {damage: truncate(caFile), why: "no PEM private key"},
		"the CA is not a CA": {
			damage: func(t *testing.T, dir string) { copyFile(t, filepath.Join(dir, leafFile), filepath.Join(dir, caFile)) },
			why:    "not a CA certificate",
		},
		"a crash left a half-written temporary file": {
			damage: write("."+caFile+".next", []byte("half")), keptCA: true, keptLeaf: true,
		},
		"they are near their end": {damage: func(*testing.T, string) {}, later: 10*365*24*time.Hour - margin/2, keptKey: true, why: "expires at 2036"},
		"another cluster domain":  {damage: func(*testing.T, string) {}, domain: "edge.example", keptKey: true, why: "other name constraints"},
		"the CA is an older version's, with constraints that BoringSSL and mbedTLS refuse": {
			damage: constrainAddresses, keptKey: true, keptLeaf: true, why: "other name constraints",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			directory := filepath.Join(t.TempDir(), "private")
			first := open(t, Options{Directory: directory})
			test.damage(t, directory)
			core, logs := observer.New(zap.WarnLevel)
			second := open(t, Options{
				Directory: directory, Names: apiNames(cmp.Or(test.domain, "cluster.local")), Logger: zap.New(core),
				Clock: clocktesting.NewFakePassiveClock(today.Add(test.later)),
			})
			if sameCA(first, second) != test.keptCA || sameLeaf(first, second) != test.keptLeaf {
				t.Errorf("kept CA %v, leaf %v", sameCA(first, second), sameLeaf(first, second))
			}
			if err := verify(t, second.CAPEM(), second, "127.0.0.1", today.Add(test.later)); err != nil {
				t.Error(err)
			}
			// With another domain, the CA that a program has read does not permit the new name.
			if (test.keptCA || test.keptKey) && test.domain == "" {
				if err := verify(t, first.CAPEM(), second, "::1", today); err != nil {
					t.Errorf("an application that read ca.crt before the restart: %v", err)
				}
			}
			if test.keptKey != (!test.keptCA && first.ca.key.Equal(second.ca.key)) {
				t.Errorf("renewed for the same key: %v", !test.keptKey)
			}
			var said strings.Builder
			for _, e := range logs.All() {
				said.WriteString(e.Message + ": " + e.ContextMap()["error"].(string) + "\n")
			}
			if !strings.Contains(said.String(), test.why) || (test.why == "" && said.Len() > 0) {
				t.Errorf("logged %q, want %q", said.String(), test.why)
			}
			if strings.Contains(said.String(), "BEGIN") {
				t.Error("the log quotes the file")
			}
			third := open(t, Options{Directory: directory, Names: apiNames(cmp.Or(test.domain, "cluster.local")), Clock: clocktesting.NewFakePassiveClock(today.Add(test.later))})
			if !sameCA(second, third) || !sameLeaf(second, third) {
				t.Error("the replaced certificates are not stored")
			}
		})
	}
}

func TestKeysAreForTheSidecarAlone(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "private")
	open(t, Options{Directory: directory})
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v; want only the two files", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if info, err := os.Stat(directory); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v", info.Mode())
	}
}

func TestOpenSucceedsInADirectoryThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	a := open(t, Options{Directory: filepath.Join(file, "private"), Logger: zap.New(core)})
	if err := verify(t, a.CAPEM(), a, "localhost", today); err != nil {
		t.Error(err)
	}
	if logs.Len() != 2 || !strings.Contains(logs.All()[0].ContextMap()["path"].(string), file) {
		t.Errorf("want an error with the path for each file, got %v", logs.All())
	}
}

func TestTheListenersAddressIsInTheCertificate(t *testing.T) {
	directory := t.TempDir()
	a := open(t, Options{Directory: directory, Address: "127.9.8.7"})
	for _, host := range []string{"127.9.8.7", "127.0.0.1", "localhost"} {
		if err := verify(t, a.CAPEM(), a, host, today); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := verify(t, a.CAPEM(), a, "127.9.8.6", today); err == nil {
		t.Error("the certificate is for another address, too")
	}
	other := open(t, Options{Directory: directory, Address: "127.1.2.3"})
	if err := verify(t, a.CAPEM(), other, "127.1.2.3", today); err != nil {
		t.Errorf("after a change of the address: %v", err)
	}
}

func TestTLSConfig(t *testing.T) {
	a := open(t, Options{Directory: t.TempDir()})
	if one, other := a.TLSConfig(), a.TLSConfig(); one == other {
		t.Error("callers share one configuration")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.CAPEM())
	tests := map[string]struct {
		client *tls.Config
		proto  string
		fail   bool
	}{
		"HTTP/2":             {&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, "h2", false},
		"HTTP/1.1":           {&tls.Config{NextProtos: []string{"http/1.1"}}, "http/1.1", false},
		"TLS 1.2":            {&tls.Config{MaxVersion: tls.VersionTLS12}, "", false},
		"TLS 1.1 is refused": {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				server := tls.Server(far, a.TLSConfig())
				server.Handshake()
				far.Close()
			}()
			test.client.RootCAs = pool
			test.client.ServerName = "127.0.0.1"
			test.client.Time = func() time.Time { return today }
			client := tls.Client(near, test.client)
			err := client.Handshake()
			near.Close()
			<-done
			if (err != nil) != test.fail {
				t.Fatal(err)
			}
			if got := client.ConnectionState().NegotiatedProtocol; got != test.proto {
				t.Errorf("protocol %q, want %q", got, test.proto)
			}
		})
	}
}

// issueWithStolenKey makes a certificate that a thief of the CA's key could make.
func issueWithStolenKey(t *testing.T, a *Authority, host string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: notBefore, NotAfter: a.ca.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	p, err := sign(template, a.ca.cert, key, a.ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// constrainAddresses replaces the CA's certificate by one as older versions have made it.
func constrainAddresses(t *testing.T, dir string) {
	t.Helper()
	ca, err := load(filepath.Join(dir, caFile))
	if err != nil {
		t.Fatal(err)
	}
	template := *ca.cert
	template.PermittedDNSDomainsCritical = true
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback} {
		template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	old, err := sign(&template, &template, ca.key, ca.key)
	if err == nil {
		err = old.save(filepath.Join(dir, caFile))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(name string, content []byte) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func truncate(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		content := read(t, filepath.Join(dir, name))
		write(name, content[:len(content)-20])(t, dir)
	}
}

// joinKeyOf joins the certificate of one file with the key of another.
func joinKeyOf(cert, key string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		begin := []byte("-----BEGIN " + keyType)
		a, b := read(t, filepath.Join(dir, cert)), read(t, filepath.Join(dir, key))
		write(cert, append(a[:bytes.Index(a, begin):bytes.Index(a, begin)], b[bytes.Index(b, begin):]...))(t, dir)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, read(t, from), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
