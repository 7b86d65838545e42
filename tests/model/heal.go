package model

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/record"
)

// heal has the sidecar list again what it reports as stale, as often as it asks for it at once.
func (w *world) heal() error {
	if err := w.flush(); err != nil {
		return err
	}
	for range 3 {
		stale := w.stale()
		for _, s := range stale {
			if err := w.relist(s); err != nil {
				return err
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
		if len(stale) == 0 {
			break
		}
	}
	for _, p := range w.programs {
		for k, told := range p.told {
			listed := slices.ContainsFunc(p.listings, func(l listing) bool { return l.scope.has(k) && !l.killed })
			for i := range told {
				told[i].settled, told[i].listed = true, told[i].listed || listed
			}
		}
	}
	return nil
}

// stale takes the collections that the recorder reports, each once.
func (w *world) stale() (out []record.Stale) {
	for {
		select {
		case s := <-w.cache.Stale():
			same := func(o record.Stale) bool {
				return o.Source.Principal == s.Source.Principal && o.Form == s.Form && o.Source.Info.Path == s.Source.Info.Path &&
					o.Source.Info.LabelSelector == s.Source.Info.LabelSelector && o.Source.Info.FieldSelector == s.Source.Info.FieldSelector
			}
			if !slices.ContainsFunc(out, same) {
				out = append(out, s)
			}
		default:
			return out
		}
	}
}

// relist lists a stale collection in the background: no program is told.
func (w *world) relist(s record.Stale) error {
	listed, err := http.NewRequest(http.MethodGet, s.Source.Info.Path, http.NoBody)
	if err != nil {
		return err
	}
	info := request.Parse(listed)
	at := slices.IndexFunc(kinds, func(k *kind) bool { return k.group == info.Group && k.resource == info.Resource })
	p := w.programs[slices.IndexFunc(w.programs, func(p *program) bool { return p.principal == s.Source.Principal })]
	a := ask{verb: list, limit: 500, scope: scope{kind: kinds[at], namespace: info.Namespace}}
	if s.Source.Info.LabelSelector != "" {
		a.scope.selector = byLabel
	}
	if name, ok := strings.CutPrefix(s.Source.Info.FieldSelector, "metadata.name="); ok {
		a.scope.selector, a.scope.name = byName, name
	}
	a.form = form(0)
	if s.Form.Format == wire.Protobuf {
		a.form = inProtobuf
	}
	if s.Form.Representation == request.Metadata {
		a.form += metadataInJSON
	}
	f := w.send(p, a)
	f.source.Background = true
	r := w.server.answer(p.principal, a, w.server.now())
	resp := r.http(a)
	w.cache.Record(&f.source, resp)
	for k, o := range r.told {
		o.sent, o.came, o.silent = w.tick, w.tick, true
		w.tell(p, k, o)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}
