package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// doctorSocket is the name of the socket, in private.directory, at which the commands doctor and status
// ask. Only the sidecar's user can reach it.
const doctorSocket = "doctor.sock"

// rehearsalPath is where the socket answers.
const rehearsalPath = "/rehearsal"

// serveDoctor answers the commands until ctx ends. Without the socket only these two answers are missing.
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
	s.page.Register(mux)
	return serveUntil(ctx, l, mux)
}

// askSidecar asks the running sidecar at its socket, and hands the answer to read.
func askSidecar(ctx context.Context, directory, path string, read func(io.Reader) error) error {
	socket := filepath.Join(directory, doctorSocket)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the sidecar answers %s", socket, resp.Status)
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	return nil
}

// askRehearsal asks the running sidecar for a rehearsal.
func askRehearsal(ctx context.Context, directory string) (out []doctor.Rehearsed, err error) {
	var all []dispatch.Rehearsal
	err = askSidecar(ctx, directory, rehearsalPath, func(from io.Reader) error { return json.NewDecoder(from).Decode(&all) })
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		out = append(out, doctor.Rehearsed{Agent: x.Agent, Method: x.Method, Path: x.Path, Age: x.Age, Reason: x.Reason})
	}
	return out, nil
}
