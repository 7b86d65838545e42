package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// pair makes a self-signed certificate for name and its key, in PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := encodeKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheCertificateFollowsItsFiles(t *testing.T) {
	// The layout of a Secret volume: files are links into ..data, which is swapped.
	dir := t.TempDir()
	certA, keyA := pair(t, "a")
	certB, keyB := pair(t, "b")
	for name, data := range map[string][2][]byte{"a": {certA, keyA}, "b": {certB, keyB}, "torn": {certB, keyA}} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "tls.crt"), data[0])
		write(t, filepath.Join(dir, name, "tls.key"), data[1])
	}
	swap := func(to string) {
		next, data := filepath.Join(dir, "..next"), filepath.Join(dir, "..data")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, data); err != nil {
			t.Fatal(err)
		}
	}
	swap("a")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.WarnLevel)
	files, err := LoadFiles(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when, want string) {
		t.Helper()
		got, err := files.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if name := got.Leaf.Subject.CommonName; name != want {
			t.Errorf("%s: certificate of %q, want %q", when, name, want)
		}
	}
	expect("at first", "a")
	before := testutil.ToFloat64(failures)
	swap("torn")
	expect("while certificate and key do not match", "a")
	expect("still", "a")
	if logs.Len() != 1 || testutil.ToFloat64(failures) != before+2 {
		t.Errorf("%d warnings, %v failures counted; want one and two", logs.Len(), testutil.ToFloat64(failures)-before)
	}
	swap("b")
	expect("after the swap", "b")
	if err := os.Remove(filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	expect("when a file is missing", "b")
}

func TestLoadFilesNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, "a")
	_, other := pair(t, "b")
	for name, data := range map[string][]byte{"crt": cert, "key": key, "other": other, "junk": []byte("x")} {
		write(t, filepath.Join(dir, name), data)
	}
	tests := []struct{ name, cert, key, want string }{
		{"a missing certificate", "none", "key", "/none: no such file"},
		{"a missing key", "crt", "none", "/none: no such file"},
		{"a key of another certificate", "crt", "other", "/other: tls: private key does not match"},
		{"no PEM", "junk", "key", "/junk with "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := LoadFiles(filepath.Join(dir, test.cert), filepath.Join(dir, test.key), zap.NewNop())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}
