package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"go.uber.org/zap"
)

// maxReadyBody is how many bytes of an answer of /readyz are read so that the connection can be
// used again.
const maxReadyBody = 16 << 10

// isReady tells whether an address may be preferred to others. It never says that the link is down.
func (a *address) isReady() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}

// askReady asks /readyz of each address, if there are several to choose from and programs have made
// requests since it was last asked. Addresses that are down, or of last resort, are not asked.
func (p *plan) askReady(ctx context.Context, u *Upstream) {
	var asked []*address
	used := false
	for _, a := range p.addresses {
		if a.server.LastResort {
			continue
		}
		was := a.used.Swap(false)
		used = used || was
		if (was || !a.isReady()) && a.verdict() != Down {
			asked = append(asked, a)
		}
	}
	if !used || len(p.addresses) < 2 {
		return
	}
	var parts sync.WaitGroup
	for _, a := range asked {
		parts.Go(func() { a.readiness(u.askReadyz(ctx, a, p), p.Settings) })
	}
	parts.Wait()
}

// readiness takes an answer of /readyz.
func (a *address) readiness(err error, s Settings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if (err == nil) == a.ready {
		a.unready = 0
		return
	}
	a.unready++
	if a.ready && a.unready >= s.FailureThreshold {
		a.ready, a.unready = false, 0
		a.logger.Info("API server is not ready; preferring another", a.field(), zap.Error(err))
	} else if !a.ready && a.unready >= s.SuccessThreshold {
		a.ready, a.unready = true, 0
		a.logger.Info("API server is ready again", a.field())
	}
}

// askReadyz asks one address for /readyz. Any status below 500 counts: an API server also sends 401
// and 403.
func (u *Upstream) askReadyz(ctx context.Context, a *address, p *plan) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := u.clock.AfterFunc(p.ProbeTimeout, func() { cancel(noAnswer{p.ProbeTimeout}) })
	defer timer.Stop()
	ready := *a.server.URL
	ready.Path, ready.RawPath = "/readyz", ""
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://readyz/", http.NoBody)
	if err != nil {
		return err
	}
	r.URL = &ready
	r.Header.Set("User-Agent", "rockpool-sidecar")
	if token := u.token(); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, _, err := u.attempt(r, nil, a, false, nil)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxReadyBody)); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusInternalServerError {
		return unavailable{response.Status}
	}
	return nil
}

// token returns the token for /readyz, or "". The file is read each time, because kubelet replaces
// it.
func (u *Upstream) token() string {
	if u.options.TokenFile == "" {
		return ""
	}
	data, err := os.ReadFile(u.options.TokenFile)
	if err != nil {
		u.logger.Debug("cannot read the token file; asking for /readyz without a token",
			zap.Error(fmt.Errorf("read token file: %w", err)))
		return ""
	}
	return string(bytes.TrimSpace(data))
}
