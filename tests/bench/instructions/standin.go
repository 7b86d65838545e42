package instructions

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"k8s.io/client-go/util/cert"
)

const (
	namespace = "small"
	// object is the path of the ConfigMap that is read.
	object = "/api/v1/namespaces/" + namespace + "/configmaps/small"
)

// standIn answers at once, like an API server that has one ConfigMap of 1 KiB.
type standIn struct {
	server  *http.Server
	address string
	ca      []byte // PEM
	token   string // of the service account that may read the ConfigMap
	jwks    []byte
	// gets counts the GETs of the ConfigMap, by the major version of HTTP.
	gets [3]atomic.Int64
	// keys counts the requests for the JWKS that were answered.
	keys atomic.Int64
}

func newStandIn() (*standIn, error) {
	s := &standIn{}
	if err := s.identity(); err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("kubernetes.default.svc", []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"kubernetes.default.svc", "kubernetes"})
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	s.ca = certPEM
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = listener.Addr().String()
	s.server = &http.Server{
		Handler: s, ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = s.server.ServeTLS(listener, "", "") }() // it ends with close
	return s, nil
}

// close ends the stand-in and its connections: the link is down.
func (s *standIn) close() error { return s.server.Close() }

// identity makes a token of a service account, and the JWKS that its signature is verified by.
func (s *standIn) identity() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": "https://kubernetes.default.svc.cluster.local", "aud": []string{"https://kubernetes.default.svc.cluster.local"},
		"sub": "system:serviceaccount:" + namespace + ":default", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": namespace, "serviceaccount": map[string]string{"name": "default", "uid": "a3f4a2d6-9d0c-4b62-8f5b-2f2a4ad1a0f1"}},
	})
	token.Header["kid"] = "key"
	if s.token, err = token.SignedString(key); err != nil {
		return err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "key", Algorithm: "RS256", Use: "sig"}}}
	s.jwks, err = json.Marshal(set)
	return err
}

// account makes a service-account directory, as a kubelet does.
func (s *standIn) account(directory string) error {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	for name, content := range map[string]string{"token": s.token, "ca.crt": string(s.ca), "namespace": namespace} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Answers of the stand-in, with the fields that an API server sends.
var (
	configMap = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"small","namespace":"` + namespace +
		`","uid":"2f5f1a0e-8a0c-4e53-9d5e-0c3a4f6f9e11","resourceVersion":"216","creationTimestamp":"2026-01-01T00:00:00Z","managedFields":[{"manager":"bench","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:value":{}}}}]},"data":{"value":"` +
		strings.Repeat("v", 640) + `"}}` + "\n"
	kubeSystem = `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"5a0f7e9c-0f63-4f3b-a0b5-6f2a1f3f7f10","resourceVersion":"4","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}` + "\n"
)

// ServeHTTP implements http.Handler.
func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case object:
		if r.Header.Get("Authorization") != "Bearer "+s.token {
			answer(w, http.StatusUnauthorized, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`)
			return
		}
		s.gets[r.ProtoMajor].Add(1)
		answer(w, http.StatusOK, configMap)
	case "/api/v1/namespaces/kube-system":
		answer(w, http.StatusOK, kubeSystem)
	case "/openid/v1/jwks":
		answer(w, http.StatusOK, string(s.jwks))
		s.keys.Add(1)
	default:
		answer(w, http.StatusNotFound, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}`)
	}
}

func answer(w http.ResponseWriter, status int, body string) {
	h := w.Header()
	h.Set("Audit-Id", "7d0f3c1e-54a1-4a2e-9c43-6b3d0a9a5e02")
	h.Set("Cache-Control", "no-cache, private")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Kubernetes-Pf-Flowschema-Uid", "f2f8d7a2-5c0e-4a8b-9a43-4f7f1e0f6f01")
	h.Set("X-Kubernetes-Pf-Prioritylevel-Uid", "0a9c7be1-7d55-4a58-a3ee-4f5e9e9b6c02")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a sidecar that has gone is noticed elsewhere
}
