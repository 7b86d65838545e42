package model

import (
	"math/rand/v2"
	"slices"
)

// generator makes histories of random numbers.
type generator struct{ *rand.Rand }

// generate makes the history of a seed.
func generate(seed uint64) *history {
	return generator{rand.New(rand.NewPCG(seed, 0))}.history()
}

func (g generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

// history makes a history. Plain ones, and half of the others, begin with an informer.
func (g generator) history() *history {
	h := &history{Programs: 1, Plain: g.oneIn(5)}
	h.Kinds = []*kind{pick(g, kinds)}
	if other := pick(g, kinds); g.oneIn(3) && other != h.Kinds[0] {
		h.Kinds = append(h.Kinds, other)
	}
	h.Focus = scope{kind: h.Kinds[0]}
	if h.Focus.kind.namespaced && g.oneIn(2) {
		h.Focus.namespace = "app"
	}
	h.Form = form(g.IntN(int(asTable)))
	if !h.Plain {
		if g.oneIn(3) {
			h.Programs = 2
		}
		h.Opaque = g.oneIn(6)
		switch g.IntN(10) {
		case 0:
			h.DiskSize, h.Padding = 160<<10, pick(g, []int{4 << 10, 40 << 10})
		case 1:
			h.QueueSize, h.Padding = pick(g, []int{2 << 10, 8 << 10}), 1<<10
		}
		h.Crowded = g.oneIn(4)
		if g.oneIn(4) {
			h.Focus.selector = selector(g.IntN(int(selectorCount)))
			h.Focus.name = "a"
		}
		if h.Focus.selector != byName {
			h.Focus.name = ""
		}
	}
	h.Hot = g.key(h)
	for range g.IntN(5) {
		h.Ops = append(h.Ops, op{action: changes, key: g.key(h), n: g.IntN(64)})
	}
	if h.Plain || g.oneIn(2) {
		h.Ops = append(h.Ops, g.informer(h)...)
	}
	for range 3 + g.IntN(25) {
		h.Ops = append(h.Ops, g.ops(h)...)
	}
	h.Ops = append(h.Ops, op{action: cuts, n: g.IntN(64)})
	return h
}

// informer lists and watches, as client-go does.
func (g generator) informer(h *history) []op {
	a := ask{verb: list, scope: h.Focus, form: h.Form}
	w := ask{verb: watch, scope: h.Focus, form: h.Form, start: start(g.IntN(int(startCount)))}
	if w.start != fromList {
		return []op{{action: watches, ask: w}}
	}
	a.any = g.oneIn(2)
	if g.oneIn(3) {
		a.limit = 1
	}
	return []op{{action: asks, ask: a, n: 100}, {action: watches, ask: w}}
}

// key is an object, often the same.
func (g generator) key(h *history) key {
	if h.Hot != (key{}) && g.oneIn(2) {
		return h.Hot
	}
	for {
		k := pick(g, universe)
		if slices.Contains(h.Kinds, k.kind) && (k.name == "a" || g.oneIn(3)) && (h.Focus.namespace == "" || k.namespace == h.Focus.namespace || g.oneIn(3)) {
			return k
		}
	}
}

// weights say how often the actions are.
var weights = [actionCount]int{
	changes: 24, asks: 26, sends: 4, isAnswered: 1, reads: 2, breaksOff: 1, watches: 7, rewatches: 2, unwatches: 1, expires: 3, delivers: 16,
	bookmarks: 3, flushes: 4, heals: 3, cuts: 2, holds: 1, crashes: 2, jumps: 3, allows: 3, serves: 2, restores: 2,
}

// plainActions are those without faults.
var plainActions = []action{changes, asks, delivers, bookmarks, flushes, cuts, jumps}

// ops are one operation, or a request under way with others meanwhile. In a crowded history most
// requests are, for one object.
func (g generator) ops(h *history) []op {
	out := []op{g.op(h)}
	if first := &out[0]; first.action == asks && h.Crowded && !g.oneIn(3) {
		first.action, first.key, first.ask = sends, h.Hot, first.ask.about(h.Hot)
		return append(out, g.crowd(h, out[0])...)
	}
	if first := out[0]; first.action == asks && first.ask.verb >= post && first.ask.verb < removeMany && !h.Plain && g.oneIn(5) {
		return g.race(h, first)
	}
	if first := out[0]; first.action == sends {
		for _, next := range []action{isAnswered, reads} {
			for range g.IntN(3) {
				out = append(out, g.op(h))
			}
			out = append(out, op{action: next, who: first.who, slot: first.slot, n: g.IntN(2 * slow)})
		}
	}
	return out
}

// race has somebody else change an object just before a program writes it. Then either the event
// comes late, or the program asks again, after an answer that may be in any form.
func (g generator) race(h *history, write op) []op {
	before, after := op{action: changes, key: write.ask.key, n: g.IntN(64)}, op{action: delivers, who: write.who, n: 1}
	if g.oneIn(2) {
		write.ask.form = form(g.IntN(int(formCount)))
		after = op{action: asks, who: write.who, ask: g.ask(h).about(write.ask.key)}
	}
	return []op{before, write, after, {action: cuts, n: g.IntN(64)}}
}

// crowd has more requests under way with the first, which are answered and read in any order.
func (g generator) crowd(h *history, first op) (out []op) {
	var ends []op
	for slot := range slots {
		o := first
		if slot > 0 {
			o.key, o.ask = h.Hot, g.ask(h).about(h.Hot)
			o.slot = (first.slot + slot) % slots
			out = append(out, o)
		}
		read := op{action: reads, who: o.who, slot: o.slot}
		ends = append(ends, op{action: isAnswered, who: o.who, slot: o.slot, n: g.IntN(2 * slow)}, read, read)
	}
	g.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	for i, o := range ends { // an answer comes before it is read
		at := slices.IndexFunc(ends, func(a op) bool { return a.action == isAnswered && a.slot == o.slot })
		if at > i {
			ends[i], ends[at] = ends[at], ends[i]
		}
	}
	for _, o := range ends {
		if g.oneIn(3) {
			out = append(out, op{action: changes, key: h.Hot, n: g.IntN(64)})
		}
		out = append(out, o)
	}
	return out
}

func (g generator) op(h *history) op {
	o := op{action: g.action(h), who: g.IntN(h.Programs), slot: g.IntN(slots), n: g.IntN(64), key: g.key(h)}
	switch o.action {
	case asks, sends:
		o.ask = g.ask(h)
		o.n = g.IntN(4)
	case watches:
		o.ask, o.n = g.watch(h), g.IntN(4)
		fallthrough
	case rewatches, unwatches, expires, bookmarks:
		o.slot = g.slot()
	case isAnswered:
		o.n = g.IntN(2 * slow)
	case delivers:
		o.n, o.slot = 1+g.IntN(1+g.IntN(5)), g.slot()
	case jumps:
		o.n = g.IntN(240) - 120
	case restores:
		o.n = 1 + g.IntN(6)
	}
	return o
}

// slot is that of a watch, mostly the first.
func (g generator) slot() int { return max(0, g.IntN(2*slots)-slots) }

// action chooses by weight.
func (g generator) action(h *history) action {
	for {
		n := g.IntN(115)
		for a, weight := range weights {
			if n -= weight; n < 0 && (!h.Plain || slices.Contains(plainActions, action(a))) {
				return action(a)
			}
			if n < 0 {
				break
			}
		}
	}
}

// scope is a part of a resource, mostly the focus of the history.
func (g generator) scope(h *history) scope {
	if h.Plain || !g.oneIn(4) {
		return h.Focus
	}
	s := scope{kind: pick(g, h.Kinds), selector: selector(g.IntN(int(selectorCount)))}
	if s.kind.namespaced && g.oneIn(2) {
		s.namespace = pick(g, []string{"app", "ops"})
	}
	if s.selector == byName {
		s.name = pick(g, []string{"a", "b"})
	}
	return s
}

func (g generator) form(h *history, all form) form {
	if h.Plain || !g.oneIn(4) {
		return h.Form
	}
	return form(g.IntN(int(all)))
}

func (g generator) ask(h *history) ask {
	a := ask{key: g.key(h), scope: g.scope(h), form: g.form(h, formCount)}
	switch n := g.IntN(20); {
	case n < 6:
		a.verb = get
	case n < 11:
		a.verb = list
		if g.oneIn(4) {
			a.limit = 1
		}
	case n < 14:
		a.verb = post
	case n < 16:
		a.verb = put
		if len(a.key.kind.subresources) > 0 && !h.Plain && g.oneIn(2) {
			a.sub = pick(g, a.key.kind.subresources)
		}
	case n < 17:
		a.verb = patch
	case n < 19 || h.Plain:
		a.verb = remove
	default:
		a.verb = removeMany
	}
	a.any = a.verb <= list && !h.Plain && g.oneIn(3)
	a.beta = a.kind() == deployments && a.form == inJSON && !h.Plain && g.oneIn(8)
	return a
}

// about is the request for another object. Another kind may not have the subresource.
func (a ask) about(k key) ask {
	if k.kind != a.key.kind {
		a.sub, a.beta = "", false
	}
	a.key = k
	return a
}

func (g generator) watch(h *history) ask {
	a := ask{verb: watch, scope: g.scope(h), form: g.form(h, asTable), start: start(g.IntN(int(startCount)))}
	a.any = a.start == fromState && g.oneIn(2)
	a.legacy = a.start != watchList && g.oneIn(6)
	return a
}
