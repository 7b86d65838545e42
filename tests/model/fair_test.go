package model

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
)

// TestTheModelIsFair lets plain recorders answer that order what was told by what a sidecar can
// know: versions, the order of requests, and whether an answer was allowed to lag. The model must
// not demand more than that.
func TestTheModelIsFair(t *testing.T) {
	for name, bold := range map[string]bool{"to a recorder that doubts": false, "to one that keeps what it had": true} {
		t.Run(name, func(t *testing.T) {
			var known, all atomic.Int64
			answer := func(w *world, p *program, a ask) (outcome, error) {
				all.Add(1)
				o, ok := newest(p.told[a.key], bold)
				if a.verb != get || a.version != "" || a.form == asTable || !ok {
					return outcome{code: http.StatusServiceUnavailable}, nil
				}
				known.Add(1)
				state, ok := w.server.revisions[o.at].objects[a.key]
				if !ok {
					return outcome{code: http.StatusNotFound}, nil
				}
				return outcome{code: http.StatusOK, form: a.form, objects: []object{shown(state, a.form)}}, nil
			}
			for seed := range uint64(min(*histories, 500)) {
				h := generate(*firstSeed + seed)
				h.Plain, h.Lenient = false, true
				h.Ops = slices.DeleteFunc(h.Ops, func(o op) bool {
					return o.action == expires || bold && o.action == heals // these ask the cache
				})
				if _, err := h.run(answer); err != nil {
					report(t, fmt.Sprintf("seed %d", *firstSeed+seed), h, answer, err)
					return
				}
			}
			t.Logf("%d of %d questions are answered", known.Load(), all.Load())
		})
	}
}

// newest gives the newest of what was told about an object, false if that is in doubt. It does not
// look at revisions, which nobody outside the server knows. If bold, what was allowed to lag and
// may be older raises no doubt.
func newest(told []observation, bold bool) (best observation, sure bool) {
	var exists observation
	doubted := 0     // when the last doubt came
	atLeast := false // the version of best is only one that it is not before
	for i, o := range told {
		n, isNumber := number(o.version)
		m, wasNumber := number(best.version)
		replaces, doubts := false, false
		switch {
		case o.exists:
			exists = o
		case i == 0:
			replaces = true
		case best.gone && o.uid == best.uid, isNumber && wasNumber && n < m: // perhaps a restored cluster
			replaces, doubts = !o.lag && o.sent >= best.told, o.lag && !bold
		case isNumber && wasNumber && !atLeast, o.event:
			replaces = true
		case o.lag:
			doubts = !bold
		default:
			replaces = o.sent >= best.told || o.gone && o.uid == best.uid
			doubts = !replaces // they were under way together
		}
		switch {
		case replaces:
			if o.uid == "" && best.gone {
				o.uid, o.gone = best.uid, true // a 404 after a deletion
			}
			atLeast = o.version == ""
			o.version = cmp.Or(o.version, best.version)
			best = o
			sure = sure || i == 0 || o.event || !o.lag && o.sent >= doubted
		case isNumber && n > m && !o.exists: // whatever is older is not newer than best
			best.version, atLeast = o.version, true
		}
		if doubts {
			sure, doubted = false, o.told
		}
	}
	if isAbsent := best.uid == "" || best.gone; isAbsent && exists.exists && (best.sent < exists.told || best.lag && !best.event) {
		sure = false
	}
	return best, sure
}
