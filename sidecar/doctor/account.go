package doctor

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/wait"
)

// account checks the token and the CA that the kubelet gives to the pod.
func (x *examination) account(context.Context) {
	raw, err := os.ReadFile(filepath.Join(x.Account, account.TokenFile))
	if err != nil || len(bytes.TrimSpace(raw)) == 0 {
		x.found(Fail, TokenMissing, "the pod has no token: %s cannot be read or is empty", filepath.Join(x.Account, account.TokenFile))
	} else {
		x.token = strings.TrimSpace(string(raw))
	}
	if ca, err := os.ReadFile(filepath.Join(x.Account, account.CAFile)); err != nil || !bytes.Contains(ca, []byte("BEGIN CERTIFICATE")) {
		x.found(Fail, CAMissing, "the pod does not have the cluster's CA: %s", filepath.Join(x.Account, account.CAFile))
	}
	if x.token == "" {
		return
	}
	subject, expiry := claims(x.token)
	switch left := expiry.Sub(x.Now()); {
	case expiry.IsZero():
		x.ok(Account, "%s, by a token without an end", subject)
	case left <= 0:
		x.found(Fail, TokenExpired, "the token of %s has expired %s ago", subject, (-left).Round(time.Second))
	default:
		x.ok(Account, "%s, by a token for %s more", subject, left.Round(time.Second))
	}
}

// claims reads a token without verifying it. The expiry is zero if it has none.
func claims(token string) (subject string, expiry time.Time) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "an unknown account", expiry
	}
	var c struct {
		Subject string  `json:"sub"`
		Expiry  float64 `json:"exp"`
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(raw, &c) != nil || c.Subject == "" {
		return "an unknown account", expiry
	}
	if c.Expiry > 0 {
		expiry = time.Unix(int64(c.Expiry), 0)
	}
	return c.Subject, expiry
}

// handshake connects to the sidecar as a program does.
func (x *examination) handshake(ctx context.Context) {
	// wait tries again and again; the sidecar has been running for long.
	if err := wait.Ready(ctx, wait.Options{Mirror: x.Mirror, Address: x.Listen, Timeout: min(x.Timeout, 2*time.Second)}); err != nil {
		x.found(Fail, HandshakeFails, "a program cannot connect to the sidecar: %v", err)
		return
	}
	x.ok(Handshake, "programs can connect to the sidecar at %s", x.Listen)
}
