package certs

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Applications use many languages: the constrained chain must pass the most common verifiers.

func TestOpenSSLAgrees(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	a := open(t, Options{Directory: filepath.Join(dir, "private")})
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, a.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(p pair, host string) (string, error) {
		leaf := filepath.Join(dir, "leaf.crt")
		if err := os.WriteFile(leaf, p.certPEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		by := "-verify_hostname"
		if net.ParseIP(host) != nil {
			by = "-verify_ip"
		}
		out, err := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslserver", by, host, "-CAfile", ca, leaf).CombinedOutput()
		return string(out), err
	}
	for _, host := range ownHosts {
		if out, err := verify(a.leaf, host); err != nil {
			t.Errorf("%s: %s", host, out)
		}
	}
	if _, err := verify(a.leaf, "10.96.0.1"); err == nil {
		t.Error("10.96.0.1 is accepted")
	}
	for _, host := range []string{"example.com", "10.96.0.1", "fd00::1"} {
		out, err := verify(issueWithStolenKey(t, a, host), host)
		if err == nil || !strings.Contains(out, "permitted subtree violation") {
			t.Errorf("a stolen key's certificate for %s: %s, want a permitted subtree violation", host, out)
		}
	}
}

const pythonClient = `
import socket, ssl, sys
ca, port, strict = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "strict"
context = ssl.create_default_context(cafile=ca)
if strict:
    context.verify_flags |= ssl.VERIFY_X509_STRICT
for host in sys.argv[4:]:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=host) as s:
                print(host, "accepted")
    except ssl.SSLCertVerificationError as e:
        print(host, "refused", e.verify_message)
`

func TestPythonAgrees(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err == nil {
		err = exec.Command(python, "-c", "import ssl").Run()
	}
	if err != nil {
		t.Skip("python3 with ssl is not installed")
	}
	// Python's verifier uses the machine's clock only.
	a, err := Open(Options{Directory: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	// In the real file, the cluster's CA comes before the pod's.
	other, err := Open(Options{Directory: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca, append(other.CAPEM(), a.CAPEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(a.CAPEM()); block == nil {
		t.Fatal("no PEM")
	}
	run := func(p pair, hosts ...string) string {
		config := a.TLSConfig()
		config.Certificates[0] = tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
		listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.(*tls.Conn).Handshake()
				conn.Close()
			}
		}()
		defer func() { listener.Close(); <-done }()
		port := listener.Addr().String()[len("127.0.0.1:"):]
		args := append([]string{"-c", pythonClient, ca, port, "strict"}, hosts...)
		out, err := exec.Command(python, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	out := run(a.leaf, append(ownHosts, "10.96.0.1")...)
	for _, host := range ownHosts {
		if !strings.Contains(out, host+" accepted") {
			t.Errorf("%s is not accepted:\n%s", host, out)
		}
	}
	if !strings.Contains(out, "10.96.0.1 refused") {
		t.Errorf("10.96.0.1 is not refused:\n%s", out)
	}
	for _, host := range []string{"example.com", "10.96.0.1"} {
		if out := run(issueWithStolenKey(t, a, host), host); !strings.Contains(out, "refused permitted subtree violation") {
			t.Errorf("a stolen key's certificate for %s: %s", host, out)
		}
	}
}
