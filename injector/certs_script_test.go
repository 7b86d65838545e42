package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fakeKubectl keeps Secret and caBundle as files in $STATE and counts writes. It knows the
// calls of scripts/webhook-certs.sh and fails on any other.
const fakeKubectl = `#!/usr/bin/env bash
set -eu
args="$*"
encoded() { [ ! -f "$STATE/$1" ] || base64 <"$STATE/$1" | tr -d '\n'; }
case $args in
  "get namespace "*) [ -f "$STATE/installed" ] ;;
  "get mutatingwebhookconfiguration rockpool-injector -o jsonpath={.webhooks[*].name}") printf 'inject.rockpool.dev inject-namespace.rockpool.dev' ;;
  "get mutatingwebhookconfiguration rockpool-injector -o jsonpath={range .webhooks[*]}{.clientConfig.caBundle}"*)
    encoded bundle; echo; [ -f "$STATE/new-webhook" ] || encoded bundle; echo ;;
  *"get secret "*"jsonpath={.data.tls\.crt}") encoded tls.crt ;;
  *"get secret "*"jsonpath={.data.ca\.crt}") encoded ca.crt ;;
  "patch mutatingwebhookconfiguration rockpool-injector --type=strategic -p "*)
    bundle=${args##*inject-namespace.rockpool.dev\",\"clientConfig\":{\"caBundle\":\"}
    case $args in *"{\"name\":\"inject.rockpool.dev\",\"clientConfig\":{\"caBundle\":\"${bundle%%\"*}\"}}"*) ;; *) echo "two bundles: $args" >&2; exit 1 ;; esac
    printf '%s' "${bundle%%\"*}" | base64 -d >"$STATE/bundle"
    echo patch >>"$STATE/writes" ;;
  *"create secret generic"*)
    for a in "$@"; do case $a in --from-file=*) a=${a#--from-file=}; cp "${a#*=}" "$STATE/next.${a%%=*}" ;; esac; done
    echo manifest ;;
  "apply --server-side "*)
    [ "$(cat)" = manifest ]
    for f in tls.crt tls.key ca.crt; do mv "$STATE/next.$f" "$STATE/$f"; done
    echo apply >>"$STATE/writes" ;;
  *) echo "unexpected: kubectl $args" >&2; exit 1 ;;
esac
`

func TestWebhookCertsScript(t *testing.T) {
	for _, tool := range []string{"bash", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the script needs %s: %v", tool, err)
		}
	}
	state := t.TempDir()
	kubectl := filepath.Join(state, "kubectl")
	if err := os.WriteFile(kubectl, []byte(fakeKubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	// Read here, not by bash, so that go test knows that its result depends on the file.
	text, err := os.ReadFile("../scripts/webhook-certs.sh")
	if err != nil {
		t.Fatal(err)
	}
	script := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-s", "--"}, args...)...)
		cmd.Stdin = bytes.NewReader(text)
		cmd.Env = append(os.Environ(), "KUBECTL="+kubectl, "STATE="+state)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(state, name))
		if err != nil {
			return nil
		}
		return data
	}
	trusted := func(cert []byte) error {
		t.Helper()
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(read("bundle"))
		pair, err := tls.X509KeyPair(cert, read("tls.key"))
		if err != nil {
			return err
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "rockpool-injector.rockpool-system.svc"})
		return err
	}

	if out, err := script(); err == nil || !strings.Contains(out, "run kubectl apply -k manifests first") {
		t.Fatalf("without an installation: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(state, "installed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := script(); err != nil {
		t.Fatalf("first run: %v\n%s", err, out)
	}
	first := read("tls.crt")
	if err := trusted(first); err != nil {
		t.Fatalf("first run: %v", err)
	}
	if writes := string(read("writes")); writes != "patch\napply\n" {
		t.Errorf("trust must come before use, got %q", writes)
	}

	if out, err := script(); err != nil || !strings.Contains(out, "nothing to do") {
		t.Errorf("second run: %v\n%s", err, out)
	}
	if string(read("tls.crt")) != string(first) || string(read("writes")) != "patch\napply\n" {
		t.Error("the second run has written")
	}

	newWebhook := filepath.Join(state, "new-webhook")
	if err := os.WriteFile(newWebhook, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := script(); err != nil || strings.Contains(out, "nothing to do") {
		t.Errorf("a webhook that trusts nobody yet: %v\n%s", err, out)
	}
	if err := os.Remove(newWebhook); err != nil {
		t.Fatal(err)
	}
	first, firstKey := read("tls.crt"), read("tls.key")

	if out, err := script("--force"); err != nil {
		t.Fatalf("renewal: %v\n%s", err, out)
	}
	second := read("tls.crt")
	if string(second) == string(first) {
		t.Fatal("the renewal has made nothing new")
	}
	if err := trusted(second); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	if err := os.WriteFile(filepath.Join(state, "tls.key"), firstKey, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := trusted(first); err != nil {
		t.Errorf("the replicas that still serve the old certificate are cut off: %v", err)
	}

	if out, err := script("--renew-days=1"); err == nil || !strings.Contains(out, "unknown option --renew-days=1") {
		t.Errorf("an option that it does not know: %v\n%s", err, out)
	}
	if out, err := script("--renew-days", "366", "--days", "400"); err != nil || strings.Contains(out, "nothing to do") {
		t.Errorf("365 days are left, 366 asked for: %v\n%s", err, out)
	}
}
