package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// violation is an answer that breaks the contract.
type violation struct {
	rule    rule
	program string
	ask     ask
	answer  string
	why     string
}

func (v *violation) Error() string {
	return fmt.Sprintf("%s\n  %s asks %s\n  answer: %s\n  %s", v.rule, v.program, &v.ask, v.answer, v.why)
}

// rule is a promise of the contract.
type rule string

const (
	stepBack   rule = "an answer is older than what the program was told"
	tooOld     rule = "an answer is older than the resourceVersion that was asked for"
	false404   rule = "404 without proof"
	invented   rule = "an answer is no state that the server had"
	refused    rule = "a scope that was refused is answered"
	notKnown   rule = "what was told without any fault is not answered"
	unreadable rule = "the cache cannot be read"
)

// outcome is an answer of the cache.
type outcome struct {
	code    int
	form    form
	objects []object
	version string
}

func (o outcome) String() string {
	out := fmt.Sprint(o.code)
	if o.version != "" {
		out += " @" + o.version
	}
	for _, o := range o.objects {
		out += " " + o.String()
	}
	return out
}

// cut cuts the link: the programs ask, and each answer is judged.
func (w *world) cut(n int) error {
	healed := w.history.Plain || n%3 == 0 && w.canHeal()
	if healed {
		for _, p := range w.programs {
			for slot := range p.streams {
				if err := w.deliver(p, slot, 1000, false); err != nil {
					return err
				}
			}
		}
		if err := w.heal(); err != nil {
			return err
		}
	}
	for _, p := range w.programs {
		for slot, s := range p.streams {
			if s != nil && (len(s.initial) > 0 || s.ending) {
				w.unwatch(p, slot) // the sidecar ends a watch that breaks in its initial state
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.history.Save {
		if err := w.save(n); err != nil || w.misled {
			return err
		}
	}
	for _, p := range w.programs {
		for _, a := range w.questions(n) {
			if err := w.check(p, a, healed); err != nil {
				return err
			}
		}
	}
	return nil
}

// canHeal reports whether an informer is up to date once its events have come, and the sidecar has
// listed what is stale: nothing is too large, and versions tell the order.
func (w *world) canHeal() bool {
	h := w.history
	return !h.Lenient && !h.Opaque && h.QueueSize == 0 && h.DiskSize == 0 && w.server.restored == 0
}

// mayList reports whether the sidecar may list what is asked.
func (w *world) mayList(p *program, a ask) bool {
	return a.verb == list && len(p.refusals) == 0 && !w.server.latest().refuses(p.principal, a) && !w.server.latest().unserved[a.kind()]
}

// questions are what a program asks offline; n chooses the forms.
func (w *world) questions(n int) (out []ask) {
	other := form(n % int(inCBOR))
	for _, k := range universe {
		if slices.Contains(w.history.Kinds, k.kind) {
			out = append(out, ask{verb: get, key: k}, ask{verb: get, key: k, form: other, any: n%2 == 0})
		}
	}
	if !w.server.opaque && w.server.restored == 0 {
		k := universe[n%len(universe)]
		out = append(out, ask{verb: get, key: k, version: w.server.latest().version})
	}
	for _, k := range w.history.Kinds {
		for selector := range selectorCount {
			s := scope{kind: k, selector: selector}
			if selector == byName {
				s.name = "a"
			}
			out = append(out, ask{verb: list, scope: s}, ask{verb: list, scope: s, form: other, any: n%2 == 0})
			if k.namespaced {
				s.namespace = "app"
				out = append(out, ask{verb: list, scope: s, form: other}, ask{verb: list, scope: s})
			}
			if k.namespaced && selector != byShard { // the cache is not asked for such a watch
				out = append(out, ask{verb: watch, scope: s, start: watchList})
			}
		}
	}
	return out
}

// check asks the cache, and judges the answer.
func (w *world) check(p *program, a ask, healed bool) error {
	got, err := w.answerer(w, p, a)
	for range 10 { // a client whose answer breaks off asks again
		if !errors.Is(err, store.ErrChanged) {
			break
		}
		got, err = w.answerer(w, p, a)
	}
	v := violation{program: p.principal, ask: a, answer: got.String()}
	switch {
	case err != nil:
		v.rule, v.why = unreadable, err.Error()
	case got.code == http.StatusOK && a.verb == get:
		v.rule, v.why = w.judgeObject(p, a, got)
	case got.code == http.StatusOK:
		v.rule, v.why = w.judgeList(p, a, got)
	case got.code == http.StatusNotFound && a.verb == get:
		v.rule, v.why = w.judgeAbsence(p, a)
	case got.code == http.StatusNotFound:
		v.rule, v.why = w.judgeNoResource(p, a)
	case w.history.Plain && p.informs(a), healed && p.informs(a) && w.mayList(p, a):
		v.rule, v.why = notKnown, "the program lists and watches this, and was told all"
	}
	switch got.code {
	case http.StatusOK:
		w.counts.known++
	case http.StatusNotFound:
		w.counts.absent++
	default:
		w.counts.unknown++
	}
	if v.why == "" {
		return nil
	}
	return &v
}

// answerer answers while the link is down.
type answerer func(w *world, p *program, a ask) (outcome, error)

// theCache asks the cache as the sidecar does while the link is down.
func theCache(w *world, p *program, a ask) (outcome, error) {
	q := w.question(p, a)
	if a.verb == watch {
		return w.askState(q, a)
	}
	resp, err := w.cache.Answer(context.Background(), q)
	if err != nil {
		return refusal(err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return outcome{}, err
	}
	got := outcome{code: resp.StatusCode}
	if got.form = a.form; a.form == asTable && !isTable(raw) {
		got.form = inJSON
	}
	if got.code == http.StatusOK {
		got.objects, got.version, err = decode(a.kind(), raw)
	}
	return got, err
}

// refusal is the status that an error becomes.
func refusal(err error) (outcome, error) {
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, replay.ErrNotRecorded):
		return outcome{code: http.StatusServiceUnavailable}, nil
	case errors.As(err, &status):
		return outcome{code: int(status.Status().Code)}, nil
	}
	return outcome{}, err
}

// askState asks for the state that a watch begins with.
func (w *world) askState(q replay.Request, a ask) (outcome, error) {
	state, err := w.cache.State(context.Background(), q)
	if err != nil {
		return refusal(err)
	}
	var body []byte
	for last := false; !last; {
		if body, last, err = state.AppendEvents(body); err != nil {
			return outcome{}, err
		}
	}
	got := outcome{code: http.StatusOK, form: a.form, version: state.ResourceVersion}
	format := state.Form.Format
	split := format.NewFrames(func(raw []byte) error {
		e, err := format.ParseEvent(raw)
		if err != nil || e.Type == wire.Bookmark {
			return err
		}
		objects, _, err := decode(a.kind(), e.Object)
		got.objects = append(got.objects, objects...)
		return err
	})
	_, err = split.Write(body)
	return got, err
}
