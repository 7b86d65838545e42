package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/tests/bed/freeport"
)

// nginxConfig is a TLS reverse proxy with HTTP/2 to its clients and kept-alive connections to the
// API server, whose certificate it verifies. It adds nothing and logs nothing.
const nginxConfig = `worker_processes 2;
daemon off;
pid DIR/pid;
error_log DIR/errors;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000;
  client_body_temp_path DIR/body;
  proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi;
  uwsgi_temp_path DIR/uwsgi;
  scgi_temp_path DIR/scgi;
  proxy_buffers 16 32k;
  proxy_max_temp_file_size 0;
  upstream api { server API; keepalive 32; keepalive_requests 1000000; }
  server {
    listen LISTEN ssl http2;
    ssl_certificate DIR/tls.crt;
    ssl_certificate_key DIR/tls.key;
    location / {
      proxy_pass https://api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_ssl_trusted_certificate DIR/ca.crt;
      proxy_ssl_verify on;
      proxy_ssl_name kubernetes.default.svc;
      proxy_ssl_protocols TLSv1.3;
    }
  }
}
`

// nginx is a running nginx, the third target where it is installed.
type nginx struct {
	cmd     *exec.Cmd
	address string
	ca      []byte // PEM of its own certificate
	exited  chan struct{}
}

// startNginx starts nginx and waits until it accepts connections. It returns nil if nginx is not
// installed.
func (s *stage) startNginx(ctx context.Context, name string) (*nginx, error) {
	program, err := exec.LookPath("nginx")
	if err != nil {
		progress("nginx is not installed, so it is no target (on Debian: apt install nginx-light)")
		return nil, nil
	}
	directory := filepath.Join(s.directory, name)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	n := &nginx{exited: make(chan struct{})}
	if n.address, err = freeport.Address(); err != nil {
		return nil, err
	}
	cert, key, err := selfSigned()
	if err != nil {
		return nil, err
	}
	n.ca = cert
	config := strings.NewReplacer("DIR", directory, "API", s.plane.Address(), "LISTEN", n.address).Replace(nginxConfig)
	for name, content := range map[string][]byte{
		"nginx.conf": []byte(config), "ca.crt": s.plane.CA(), "tls.crt": cert, "tls.key": key,
	} {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	n.cmd = exec.Command(program, "-e", filepath.Join(directory, "errors"), "-c", filepath.Join(directory, "nginx.conf"))
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = n.cmd.Wait() // the reason is in its log
		close(n.exited)
	}()
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		select {
		case <-n.exited:
			return false, errors.New("it has ended")
		default:
		}
		conn, err := net.Dial("tcp", n.address)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
	if err != nil {
		n.stop()
		log, _ := os.ReadFile(filepath.Join(directory, "errors")) // for the message
		return nil, fmt.Errorf("nginx: %w\n%s", err, log)
	}
	return n, nil
}

// stop stops nginx. It may be called more than once, and on nil.
func (n *nginx) stop() {
	if n == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	<-n.exited
}

// selfSigned makes a certificate for 127.0.0.1 and its key, as PEM.
func selfSigned() (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}
