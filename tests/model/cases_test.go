package model

import "testing"

// The objects and scopes of the cases.
var (
	a, b       = key{configMaps, "app", "a"}, key{configMaps, "app", "b"}
	app        = scope{kind: configMaps, namespace: "app"}
	onlyA      = scope{kind: configMaps, namespace: "app", selector: byName, name: "a"}
	deployment = key{deployments, "app", "a"}
	namespace  = key{namespaces, "", "a"}
)

// What somebody else does to an object; see server.change.
func made(k key) op    { return op{action: changes, key: k} }
func updated(k key) op { return op{action: changes, key: k} }
func deleted(k key) op { return op{action: changes, key: k, n: 5} }

// one is a request of a program for one object.
func one(v verb, k key) ask { return ask{verb: v, key: k} }

func (a ask) in(f form) ask     { a.form = f; return a }
func (a ask) anyVersion() ask   { a.any = true; return a }
func (a ask) of(sub string) ask { a.sub = sub; return a }
func (a ask) from(s start) ask  { a.start = s; return a }
func (a ask) byTheOldPath() ask { a.legacy = true; return a }
func lists(s scope) ask         { return ask{verb: list, scope: s} }
func watchOf(s scope) ask       { return ask{verb: watch, scope: s} }
func asked(a ask) op            { return op{action: asks, ask: a} }
func opened(a ask) op           { return op{action: watches, ask: a} }
func lagging(o op, n int) op    { o.n = n; return o }
func second(o op) op            { o.slot = 1; return o }
func denied(k *kind) op         { return op{action: allows, key: key{kind: k}} }
func deniedLists(k *kind) op    { return op{action: allows, key: key{kind: k}, n: 2} }
func gone(k *kind) op           { return op{action: serves, key: key{kind: k}} }
func back(minutes int) op       { return op{action: jumps, n: -minutes} }

var (
	told   = op{action: delivers, n: 100}
	answer = op{action: isAnswered}
	read   = op{action: reads}
	heal   = op{action: heals}
)

func TestCases(t *testing.T) {
	for name, ops := range map[string][]op{
		"R1: a watch without a version tells what is there": {
			opened(watchOf(app).from(fromState)), made(a), told, heal, made(b), told, deleted(a), told},
		"R2: a watch goes on from a GET": {
			made(a), asked(one(get, a)), opened(watchOf(onlyA)), updated(a), told},
		"R2: a watch that goes on from a GET tells the deletion": {
			made(a), asked(one(get, a)), opened(watchOf(onlyA)), updated(a), deleted(a), told},
		"R3: a program may watch and not list": {
			deniedLists(configMaps), made(a), asked(one(get, a)), opened(watchOf(onlyA).from(fromState)), updated(a), told, heal, updated(a), told},
		"R4: a watch by the deprecated path tells a deletion": {
			made(a), asked(lists(app)), opened(watchOf(app).byTheOldPath()), deleted(a), told},
		"R5: a lagging 404 after a POST": {
			asked(lists(app)), asked(one(post, a)), lagging(asked(one(get, a).anyVersion()), 1)},
		"R5: the deletion of others after a POST": {
			asked(lists(app)), asked(one(post, a)), asked(ask{verb: removeMany, scope: scope{kind: configMaps, namespace: "app", selector: byName, name: "b"}})},
		"R5: a PATCH in CBOR after a POST": {
			asked(lists(app)), asked(one(post, a)), asked(one(patch, a).in(inCBOR))},
		"R5: a 403 after a POST": {
			asked(lists(app)), asked(one(post, a)), denied(configMaps), asked(one(get, a))},
		"R6: the deletion of others after a PUT": {
			made(a), asked(lists(app)), asked(one(put, a)), asked(ask{verb: removeMany, scope: scope{kind: configMaps, namespace: "app", selector: byName, name: "b"}})},
		"R7: a 403 after a 404": {
			made(a), asked(lists(app)), deleted(a), asked(one(get, a)), denied(configMaps), asked(one(get, a))},
		"R8: a 409 after a list": {
			asked(lists(app)), made(a), asked(one(post, a))},
		"R9: a PATCH of a terminating namespace": {
			made(namespace), deleted(namespace), asked(one(patch, namespace))},
		"R10: a GET that was sent before a PUT": {
			made(a), {action: sends, ask: one(get, a)}, answer, asked(one(put, a)), read},
		"R10: a lagging GET after a PUT": {
			made(a), asked(one(put, a)), lagging(asked(one(get, a).anyVersion()), 1)},
		"R12: a 404 while a list takes its time": {
			made(a), {action: sends, ask: lists(app)}, answer, deleted(a), asked(one(get, a)), read},
		"R13: the clock is put back between a 404 and a POST": {
			asked(one(get, a)), back(60), asked(one(post, a))},
		"R14: the clock is put back after a Table": {
			made(a), asked(lists(app).in(asTable)), back(60), updated(a), asked(lists(app)), opened(watchOf(app)), updated(a), told},
		"R15: a parameter that nobody knows": {
			made(b), asked(lists(scope{kind: configMaps, namespace: "app", selector: byShard}))},
		"R23: a restored cluster, and a list of any version": {
			made(a), made(b), asked(lists(app).anyVersion()), {action: restores, n: 1}, asked(lists(app).anyVersion()), heal},
		"R24: a watch is refused": {
			made(a), asked(lists(app)), denied(configMaps), opened(watchOf(app))},
		"R24: a watch is refused when it goes on": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), told, denied(configMaps), {action: rewatches}},
		"R24: a resource is not served any more": {
			made(a), asked(lists(app)), gone(configMaps), asked(lists(app))},
		"R25: a PUT of a scale": {
			made(deployment), asked(one(get, deployment)), asked(one(put, deployment).of("scale"))},
		"R25: a PUT of a status": {
			made(deployment), asked(lists(scope{kind: deployments})), asked(one(put, deployment).of("status"))},
		"R26: a watch of the metadata is ahead of the objects": {
			made(a), asked(one(get, a)), asked(lists(app).in(metadataInJSON)), opened(watchOf(app).in(metadataInJSON)), updated(a), told},
		"what is written before a kill is kept": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), told, {action: flushes}, {action: crashes}},
		"the position of a watch has expired": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), told, made(b), deleted(a), {action: expires}, updated(b), told},
		"two watches at different positions": {
			made(a), asked(lists(app)), opened(watchOf(app)), second(opened(watchOf(app))), updated(a), deleted(a), told, second(op{action: delivers, n: 1})},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{Programs: 1, Kinds: []*kind{ops[0].kind()}, Ops: ops}
			for form := range int(inCBOR) {
				h.Ops = append(h.Ops, op{action: cuts, n: form})
			}
			if _, err := h.run(theCache); err != nil {
				t.Errorf("%v\n%s", err, h)
			}
		})
	}
}

// kind is the resource of an operation.
func (o op) kind() *kind {
	if o.key.kind != nil {
		return o.key.kind
	}
	return o.ask.kind()
}
