package status

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// The paths of the page and of the same as JSON.
const (
	PagePath = "/"
	JSONPath = "/status.json"
)

// Handler serves the status to programs of the pod and, by kubectl port-forward, to people.
type Handler struct {
	// Status finds out everything. It may read all that is recorded, so it is asked by one request at
	// a time.
	Status func(context.Context) *Status
	one    sync.Mutex
}

// Register adds the paths of the page to a mux.
func (h *Handler) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+PagePath+"{$}", h.serve(func(w http.ResponseWriter, s *Status) error {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(s.page()) // a reader who has left does not matter
		return nil
	}))
	mux.HandleFunc("GET "+JSONPath, h.serve(func(w http.ResponseWriter, s *Status) error {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(text, '\n'))
		return nil
	}))
}

func (h *Handler) serve(write func(http.ResponseWriter, *Status) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !local(r) {
			http.Error(w, "the status is only for this machine's loopback: ask at localhost or 127.0.0.1", http.StatusForbidden)
			return
		}
		h.one.Lock()
		defer h.one.Unlock()
		s := h.Status(r.Context())
		if r.Context().Err() != nil {
			return
		}
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		if err := write(w, s); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// local tells whether a request comes over the loopback, and asks for it by such a name: a page of
// another site that has its own name resolved to 127.0.0.1 (DNS rebinding) asks by that name. Who can
// open a socket of the sidecar's private directory may ask by any name.
func local(r *http.Request) bool {
	at, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if _, ok := at.(*net.UnixAddr); ok {
		return true
	}
	if at == nil || !isLoopback(at.String()) || !isLoopback(r.RemoteAddr) {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil && len(host) > 2 && host[0] == '[' {
		ip, err = netip.ParseAddr(host[1 : len(host)-1])
	}
	return err == nil && ip.IsLoopback()
}

func isLoopback(address string) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Unmap().IsLoopback()
}
