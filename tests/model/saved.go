package model

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/live"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/store"
)

const notPresent rule = "a saved answer is not the server's present state"

// save has each program ask while the link is up what it asks offline.
func (w *world) save(n int) error {
	for _, p := range w.programs {
		for _, a := range w.questions(n) {
			if a.verb != list || a.scope.selector == byShard || a.form > metadataInProtobuf {
				continue
			}
			if err := w.checkSaved(p, a); err != nil {
				return err
			}
		}
	}
	return w.flush()
}

// checkSaved has a program list while the link is up, with online.reads=save. The answer of the
// cache, if it gives one, must be what the server would answer.
func (w *world) checkSaved(p *program, a ask) error {
	got, ok, err := w.saved(p, a)
	if err != nil || !ok {
		return err
	}
	w.counts.saved++
	v := violation{program: p.principal, ask: a, answer: got.String(), rule: notPresent}
	if w.server.latest().refuses(p.principal, a) || w.server.latest().unserved[a.kind()] {
		v.rule, v.why = refused, "the server refuses it"
		return &v
	}
	var want []object
	for _, o := range w.server.list(w.server.now(), a.scope) {
		want = append(want, shown(o, got.form))
	}
	switch {
	case slices.Equal(want, got.objects):
	case slices.EqualFunc(want, got.objects, sameVersion), w.unnoticed(a, want, got.objects):
		w.misled = true
	default:
		v.why = fmt.Sprintf("it is %v", want)
		return &v
	}
	return nil
}

// unnoticed reports whether nothing that a proof asks for shows that the present state is another
// one than the cache's: the number of objects, the first one, and the one that has changed last. It
// can only be so in a restored cluster, and docs/concepts.md says so.
func (w *world) unnoticed(a ask, present, got []object) bool {
	if w.server.restored == 0 || len(present) == 0 || len(got) == 0 || a.scope.selector == everything && len(present) != len(got) {
		return false
	}
	newest := slices.MaxFunc(got, func(a, b object) int {
		order, _ := store.CompareVersions(a.version, b.version)
		return order
	})
	has := func(all []object, one object) bool {
		return slices.ContainsFunc(all, func(o object) bool { return sameVersion(o, one) })
	}
	return has(got, present[0]) && has(present, newest)
}

// sameVersion reports whether two states of an object have one uid and version. A restored cluster
// may give both to two states: a client that asks for the metadata alone cannot tell them apart
// (floor).
func sameVersion(a, b object) bool { return a.key == b.key && a.uid == b.uid && a.version == b.version }

// saved asks the cache for a list while the link is up. It reports false if the server is to answer.
func (w *world) saved(p *program, a ask) (got outcome, ok bool, err error) {
	token := "Bearer e30." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q}`, p.principal)) + ".c2ln"
	collections := live.New(live.Options{
		Save: true, Rate: 1, Upstream: upstream{w, p, a}, Logger: zap.NewNop(), Clock: wallClock{world: w},
		Credentials: principal.NewCredentials(func() (string, error) { return "", errors.New("none") }, nil),
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- collections.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	r := a.http()
	r.Header.Set("Authorization", token)
	resp := collections.List(ctx, live.Read{HTTP: r, Info: request.Parse(r), Cache: w.cache, Principal: p.principal})
	if resp == nil {
		return got, false, nil
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return got, false, err
	}
	got = outcome{code: resp.StatusCode, form: a.form}
	got.objects, got.version, err = decode(a.kind(), raw)
	return got, true, err
}

// upstream is the link to the server, for what the sidecar asks on behalf of a list.
type upstream struct {
	world   *world
	program *program
	ask     ask
}

func (u upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	s, query := u.world.server, r.URL.Query()
	if !query.Has("watch") {
		one := ask{verb: list, scope: u.ask.scope, form: metadataInJSON, limit: 1}
		reply := s.answer(u.program.principal, one, s.now())
		named, ok := strings.CutPrefix(query.Get("fieldSelector"), "metadata.name=")
		if name, namespace, _ := strings.Cut(named, ","); ok && reply.status == http.StatusOK {
			var shows []object
			for _, o := range s.list(s.now(), u.ask.scope) {
				if o.name == name && (namespace == "" || strings.HasPrefix(namespace, "metadata.name=") || namespace == "metadata.namespace="+o.namespace) {
					shows = append(shows, o)
				}
			}
			reply.body = encodeList(u.ask.kind(), metadataInJSON, metav1.ListMeta{ResourceVersion: s.latest().version}, shows)
		}
		return fromServer(reply.http(one)), nil
	}
	w := &stream{ask: ask{verb: watch, scope: u.ask.scope, form: u.ask.form}}
	reply := s.answer(u.program.principal, w.ask, s.now())
	from, ok := number(query.Get("resourceVersion"))
	switch {
	case reply.status != http.StatusOK:
		return fromServer(reply.http(w.ask)), nil
	case !ok || int(from) < s.numbers[s.fresh]: // before its watch cache begins
		reply = s.refuse(reply, w.ask, http.StatusGone, metav1.StatusReasonExpired)
		return fromServer(reply.http(w.ask)), nil
	}
	var body []byte
	format := wire.FormatOf(u.ask.form.mediaType())
	for w.at = s.restored + 1; w.at <= s.now(); w.at++ {
		if s.numbers[w.at] <= int(from) {
			continue
		}
		if f, ok := s.event(w); ok {
			body = format.AppendEvent(body, f.event, f.body)
		}
	}
	w.at = s.now()
	body = format.AppendEvent(body, wire.Bookmark, s.bookmark(w).body)
	return fromServer(&http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {format.WatchMediaType()}}, Body: io.NopCloser(bytes.NewReader(body)),
	}), nil
}

// fromServer marks an answer as the API server's.
func fromServer(resp *http.Response) *http.Response {
	resp.Header.Set("Audit-Id", "1")
	return resp
}
