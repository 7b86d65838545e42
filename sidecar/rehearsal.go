package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/dispatch"
	"rockpool.dev/sidecar/doctor"
)

// doctorSocket is the name of the socket, in private.directory, at which the doctor asks. Only the
// sidecar's user can reach it.
const doctorSocket = "doctor.sock"

// rehearsalPath is where the socket answers.
const rehearsalPath = "/rehearsal"

// serveDoctor answers the doctor until ctx ends. Without the socket only the rehearsal is missing.
func (s *sidecar) serveDoctor(ctx context.Context) error {
	path := filepath.Join(s.cfg.Private.Directory, doctorSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a sidecar that was killed
		s.log.Warn("cannot replace the socket of the doctor", zap.Error(err))
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		s.log.Warn("cannot open the socket of the doctor", zap.Error(err))
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+rehearsalPath, func(w http.ResponseWriter, r *http.Request) {
		all, err := s.dispatcher.Rehearse(r.Context())
		if err != nil {
			return // the doctor has left
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all) // a doctor that has left does not matter
	})
	return serveUntil(ctx, l, mux)
}

// askRehearsal asks the running sidecar for a rehearsal.
func askRehearsal(ctx context.Context, directory string) (out []doctor.Rehearsed, err error) {
	path := filepath.Join(directory, doctorSocket)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar"+rehearsalPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []dispatch.Rehearsal
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, x := range all {
		out = append(out, doctor.Rehearsed{Agent: x.Agent, Method: x.Method, Path: x.Path, Age: x.Age, Reason: x.Reason})
	}
	return out, nil
}
