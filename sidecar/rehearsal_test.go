package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/doctor"
	"rockpool.dev/sidecar/status"
	"rockpool.dev/tests/eventually"
)

func TestTheDoctorReachesASidecarThatReplacesAKilledOne(t *testing.T) {
	directory, err := os.MkdirTemp("", "see") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	if _, err := askRehearsal(t.Context(), directory); err == nil {
		t.Error("nobody has answered")
	}
	if err := os.WriteFile(filepath.Join(directory, doctorSocket), nil, 0o600); err != nil { // of the killed one
		t.Fatal(err)
	}
	s := &sidecar{cfg: config.Config{Private: config.Private{Directory: directory}}, log: zap.NewNop(), dispatcher: dispatch.New(dispatch.Options{Logger: zap.NewNop()}), page: &status.Handler{}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serveDoctor(ctx) }()
	var all []doctor.Rehearsed
	eventually.NoError(t, "the sidecar rehearses", func() error {
		all, err = askRehearsal(t.Context(), directory)
		return err
	})
	if len(all) > 0 {
		t.Errorf("nobody has asked, and %v are rehearsed", all)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
