package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"rockpool.dev/sidecar/doctor"
)

// runDoctor runs the command where nothing is as it should be.
func runDoctor(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	for name, value := range map[string]string{
		"ROCKPOOL_CACHE_DIRECTORY": t.TempDir(), "ROCKPOOL_ACCOUNT_SOURCE": t.TempDir(), "ROCKPOOL_ACCOUNT_MIRROR": t.TempDir(),
		"ROCKPOOL_METRICS_ADDRESS": "", "ROCKPOOL_LISTEN_ADDRESS": "127.0.0.1:2", "ROCKPOOL_UPSTREAM_SERVERS": "https://127.0.0.1:1",
	} {
		t.Setenv(name, value)
	}
	var b bytes.Buffer
	cmd := command(new(func(context.Context) error))
	cmd.SetArgs(append([]string{"doctor"}, args...))
	cmd.SetOut(&b)
	err := cmd.ExecuteContext(t.Context())
	if exit := (*exitError)(nil); errors.As(err, &exit) && exit.err == nil {
		return b.String(), exit.status
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), 0
}

func TestTheDoctorPrintsALineForEachFindingAndTheNextStep(t *testing.T) {
	out, status := runDoctor(t)
	for _, want := range []string{
		"WARN  sidecar-silent        the sidecar's metrics are off\n", "FAIL  token-missing         the pod has no token: ", "→ let the pod have a token",
		"FAIL  handshake-fails ", "FAIL  address-refused       https://127.0.0.1:1: ", "FAIL  cache-missing         the pod has no cache: --directory: no cache in ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if status != 1 {
		t.Errorf("exit status %d", status)
	}
}

func TestTheDoctorsJSONHasTheSame(t *testing.T) {
	out, status := runDoctor(t, "--json")
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(out), &all); err != nil || status != 1 {
		t.Fatalf("%v, exit status %d: %s", err, status, out)
	}
	if len(all) < 5 || all[0].Code != doctor.SidecarSilent || all[0].Level != doctor.Warn || all[0].Next == "" {
		t.Errorf("%+v", all)
	}
}
