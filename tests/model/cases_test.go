package model

import (
	"strings"
	"testing"
)

// The objects and scopes of the cases.
var (
	a, b       = key{configMaps, "app", "a"}, key{configMaps, "app", "b"}
	all        = scope{kind: configMaps}
	app        = scope{kind: configMaps, namespace: "app"}
	front      = scope{kind: configMaps, namespace: "app", selector: byLabel}
	shard      = scope{kind: configMaps, namespace: "app", selector: byShard}
	onlyA      = scope{kind: configMaps, namespace: "app", selector: byName, name: "a"}
	deployment = key{deployments, "app", "a"}
	namespace  = key{namespaces, "", "a"}

	onlyNamespace = scope{kind: namespaces, selector: byName, name: "a"}
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
	told1  = op{action: delivers, n: 1}
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
		"a kill after the first page of a list": {
			asked(lists(all)), made(a), made(b), asked(ask{verb: list, scope: all, limit: 1}), {action: flushes}, {action: crashes}},
		"a list by label does not show an object any more, and is refused then": {
			asked(one(post, a)), deleted(a), asked(lists(front)), denied(configMaps), asked(lists(front))},
		"a watch without a version after a restore, and a list of a cache": {
			made(a), updated(a), asked(one(get, a)), {action: restores, n: 1}, opened(watchOf(all).from(fromState)), asked(lists(all).anyVersion()), told},
		"a list by label includes what its watch tells later": {
			opened(watchOf(front).from(fromState)), {action: changes, key: a, n: 1}, asked(one(put, a)), {action: changes, key: a, n: 3}, deleted(a), asked(lists(front)), told},
		"a list of a cache after a Table, from before the deletion of an object": {
			made(a), deleted(a), asked(lists(all).in(asTable)), lagging(asked(lists(app).anyVersion()), 1)},
		"an event of a watch that begins with any state, after a Table": {
			made(a), opened(watchOf(front).from(fromState).anyVersion()), deleted(a), asked(lists(app).in(asTable)), told1},
		"a late event of a watch, after a Table": {
			asked(lists(app)), opened(watchOf(app)), made(a), deleted(a), asked(lists(app).in(asTable)), told1},
		"a Table of a cache after a POST": {
			asked(one(post, a)), lagging(asked(lists(all).in(asTable).anyVersion()), 1)},
		"the state that a watch begins with comes after a newer list": {
			made(a), made(key{configMaps, "ops", "a"}), opened(watchOf(all).from(watchList)), made(b), lagging(asked(ask{verb: list, scope: all, limit: 1}), 1),
			deleted(b), asked(lists(all)), told, {action: cuts}},
		"a 409 after two answers that were under way": {
			made(a), {action: sends, ask: one(get, a)}, second(op{action: sends, ask: lists(shard)}), second(lagging(answer, slow)), updated(a), lagging(answer, slow),
			read, read, second(read), second(read), asked(one(post, a))},
		"the position of a watch has expired": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), told, made(b), deleted(a), {action: expires}, updated(b), told},
		"the position of a watch has expired, while its initial state may not be over": {
			made(a), lagging(opened(watchOf(app).from(fromState).anyVersion()), 1), asked(lists(app)), updated(a), {action: delivers, n: 1}, {action: expires}},
		"a part of a list that nobody knows, in protobuf, and late events of a watch of it": {
			made(a), asked(lists(shard).in(inProtobuf)), opened(watchOf(shard).in(inProtobuf)), updated(a), updated(a), asked(lists(shard).in(inProtobuf)), {action: delivers, n: 1}},
		"a 404 for a part of a list that nobody knows: the resource is not served": {
			made(a), asked(lists(app)), gone(configMaps), asked(lists(scope{kind: configMaps, namespace: "app", selector: byShard}))},
		"a 404 for a status: the resource is not served": {
			asked(one(post, deployment)), gone(deployments), asked(one(put, deployment).of("status"))},
		"a PATCH of a terminating object, as a Table": {
			made(a), {action: changes, key: a, n: 4}, deleted(a), asked(one(get, a)), asked(one(patch, a).in(asTable))},
		"a 404 of the latest state after one that may lag": {
			asked(one(get, a).anyVersion()), made(a), deleted(a), asked(one(put, a)), lagging(asked(one(get, a).anyVersion()), 1)},
		"a GET that repeats a POST, with a 404 in between": {
			{action: sends, ask: one(post, a)}, asked(one(get, a)), answer, read, asked(one(get, a))},
		"an object leaves a list with a label": {
			asked(lists(app)), made(a), asked(lists(front)), {action: changes, key: a, n: 11}, asked(lists(front))},
		"a 404, a lagging list with a label, and a later one without the object": {
			asked(one(remove, a)), made(a), updated(a), lagging(asked(lists(front).anyVersion()), 1), {action: changes, key: a, n: 27}, heal},
		"opaque versions: a deleted object is written by an answer that was under way": {
			made(namespace), asked(lists(scope{kind: namespaces})), asked(one(remove, namespace)), opened(watchOf(scope{kind: namespaces})), told,
			second(op{action: sends, ask: one(put, namespace)}), second(answer), updated(namespace), told, second(read)},
		"a restored cluster: an event at the version of the list": {
			made(b), asked(lists(app)), {action: restores, n: 2}, made(a), opened(watchOf(app).from(fromState).anyVersion()), told},
		"a restored cluster: an event of another object at the same version": {
			made(a), asked(lists(app)), {action: restores, n: 4}, made(a), opened(watchOf(app).from(fromState)), told},
		"a restored cluster: the latest state has an older version": {
			made(b), asked(one(post, a)), {action: restores, n: 5}, made(a), opened(watchOf(app).from(fromState)), told},
		"a restored cluster: the latest state of a watch is older than the list": {
			made(a), updated(a), made(b), asked(lists(app)), {action: restores, n: 2}, opened(watchOf(app).from(fromState)), told},
		"a restored cluster: a Table of another object at the same version": {
			made(a), asked(lists(app)), {action: restores, n: 4}, made(a), asked(one(get, a).anyVersion().in(asTable))},
		"a restored cluster: a Table of an object, and a list of another one at the same version": {
			made(a), asked(one(get, a).in(asTable)), {action: restores, n: 5}, made(a), asked(lists(all)), {action: cuts, n: 9}},
		"a restored cluster: an object is older than its scale was, and a Table from before": {
			made(deployment), deleted(deployment), asked(lists(scope{kind: deployments, namespace: "app"}).in(asTable)), made(deployment),
			asked(one(put, deployment).of("scale")), {action: restores, n: 3}, asked(one(get, deployment)), {action: cuts, n: 9}},
		"a restored cluster: a scale of another object at the same version": {
			made(key{deployments, "ops", "b"}), updated(key{deployments, "ops", "b"}), asked(one(post, deployment)), {action: restores, n: 3},
			made(deployment), made(key{deployments, "ops", "b"}), asked(one(put, deployment).of("scale"))},
		"a restored cluster: a part of a list shows what a list with a label may have left out": {
			made(b), updated(b), asked(lists(front)), {action: restores, n: 3}, made(b), made(a), updated(b), asked(lists(shard)), {action: cuts, n: 9}},
		"a restored cluster: a 404 from before a write, and a list of others": {
			made(a), deleted(a), asked(one(put, a)), made(b), asked(one(post, a).in(asTable)), {action: restores, n: 3}, asked(lists(scope{kind: configMaps, namespace: "ops"}))},
		"a restored cluster: a version again, after a write of an older one": {
			made(namespace), {action: changes, key: namespace, n: 11}, deleted(namespace), asked(lists(onlyNamespace)), updated(namespace),
			{action: restores, n: 3}, asked(one(put, namespace).in(metadataInJSON)), deleted(namespace), asked(one(get, namespace).anyVersion())},
		"a restored cluster: a part of a list is older than a write": {
			made(namespace), made(key{namespaces, "", "b"}), asked(one(put, namespace)), {action: restores, n: 1},
			asked(lists(scope{kind: namespaces, selector: byShard}).anyVersion()), heal},
		"opaque versions: an object that was missing is back, in a state that may lag": {
			made(a), asked(lists(app)), deleted(a), asked(one(get, a)), {action: restores, n: 1}, opened(watchOf(app).from(fromState).anyVersion()), told},
		"a Table of one name lacks the object, before an event of it": {
			made(a), opened(watchOf(scope{kind: configMaps}).from(watchList)), updated(a), deleted(a), {action: sends, ask: lists(scope{kind: configMaps, selector: byName, name: "a"}).in(asTable)}, answer, told, read},
		"a Table with a label lacks the object": {
			made(a), asked(one(get, a)), {action: changes, key: a, n: 11}, asked(lists(front).in(asTable))},
		"the first page of a list, and a lagging list of a restored cluster": {
			made(a), made(b), {action: sends, ask: ask{verb: list, scope: app, limit: 1, form: inProtobuf}}, answer, read, {action: restores, n: 6},
			asked(lists(app).anyVersion()), heal},
		"a 404 under way with a GET that shows the object": {
			{action: sends, ask: one(get, a)}, second(op{action: sends, ask: one(get, a)}), answer, made(a), second(answer), second(read), read},
		"opaque versions: a lagging GET under way with a PUT": {
			made(a), {action: sends, ask: one(get, a).anyVersion()}, second(op{action: sends, ask: one(put, a)}), answer, second(answer), second(read), read},
		"a Table of a PUT is read after a 409": {
			asked(one(post, deployment)), {action: sends, ask: one(put, deployment).of("status").in(asTable)}, answer, asked(one(post, deployment)), read},
		"a Table of a PUT, and a late deletion of the object before": {
			made(deployment), opened(watchOf(scope{kind: deployments, selector: byName, name: "a"}).from(watchList)), deleted(deployment), made(deployment),
			asked(one(put, deployment).of("status").in(asTable)), {action: delivers, n: 3}},
		"opaque versions: late events, up to the deletion that a list lacks already": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), deleted(a), asked(lists(app)), {action: delivers, n: 1}, {action: flushes}, told},
		"opaque versions: late events, up to the change that a list has already": {
			made(a), asked(lists(app)), opened(watchOf(app)), updated(a), updated(a), asked(lists(app)), {action: delivers, n: 1}, {action: flushes}, told},
		"a list is lost in a kill, and a watch goes on from it": {
			made(a), asked(lists(app)), {action: crashes}, opened(watchOf(app))},
		"opaque versions: a GET under way with a list with a label": {
			made(a), {action: sends, ask: one(get, a)}, second(op{action: sends, ask: lists(front)}), second(answer), updated(a), second(read), answer, read},
		"opaque versions: a GET under way with a list with a label, and the object loses that": {
			made(a), {action: sends, ask: one(get, a)}, second(op{action: sends, ask: lists(front)}), answer, {action: changes, key: a, n: 11}, second(answer), second(read), read},
		"a 404 that repeats one, under way with a GET that shows the object, before a kill": {
			asked(one(get, a)), {action: flushes}, made(a), {action: sends, ask: one(get, a)}, second(op{action: sends, ask: one(get, a)}), answer, deleted(a), second(answer),
			second(read), read, {action: flushes}, {action: crashes}},
		"a 404 that repeats one, under way with a list that shows the object, before a kill": {
			asked(one(get, a)), {action: flushes}, made(a), {action: sends, ask: lists(front)}, second(op{action: sends, ask: one(get, a)}), answer, deleted(a), second(answer),
			second(read), read, {action: flushes}, {action: crashes}},
		"a 409 after a lagging Table": {
			made(a), deleted(a), asked(lists(onlyA)), lagging(asked(lists(app).anyVersion().in(asTable)), 1), made(a), asked(one(post, a))},
		"a 409 under way with a list that lacks the object, after a Table": {
			made(a), asked(one(get, a).in(asTable)), deleted(a), {action: sends, ask: lists(onlyA)}, second(op{action: sends, ask: one(post, a)}), answer, made(a), second(answer), second(read), read},
		"opaque versions: a late event of an object that was deleted and made again": {
			asked(lists(app)), opened(watchOf(app)), made(a), asked(one(remove, a)), asked(one(post, a)), {action: delivers, n: 1}},
		"opaque versions: a late event of an object that was deleted and made again, as a list has shown": {
			asked(lists(app)), opened(watchOf(app)), made(a), asked(one(remove, a)), made(a), asked(lists(app)), {action: delivers, n: 1}},
		"a small queue: a write that is lost, and a late deletion of the object before": {
			made(b), opened(watchOf(app).from(fromState)), {action: delivers, n: 1}, {action: flushes}, made(a), {action: delivers, n: 1}, {action: flushes}, deleted(a), made(a),
			{action: holds}, asked(one(get, b)), asked(one(put, a)), {action: delivers, n: 1}},
		"a small queue: a POST under way with events, of which one is lost": {
			made(b), made(a), opened(watchOf(app)), asked(lists(app)), opened(watchOf(app)), {action: changes, key: a, n: 4}, deleted(a), second(op{action: sends, ask: one(post, a)}), updated(a),
			second(answer), {action: holds}, second(read), {action: delivers, n: 3}},
		"opaque versions: a list of one name lacks an object that the first events of a watch have shown": {
			opened(watchOf(onlyA).from(fromState)), asked(lists(onlyA)), made(a), told},
		"opaque versions: a watch goes on from an older version, once more": {
			asked(lists(all)), opened(watchOf(all)), made(a), deleted(a), told, opened(watchOf(all)), told1},
		"opaque versions: a late event of a deleted object, after a list that lacks it": {
			made(a), asked(one(get, a)), opened(watchOf(onlyA)), updated(a), asked(one(remove, a)), asked(lists(app)), told1},
		"opaque versions: a POST under way with an event of a list with a label": {
			asked(lists(front)), opened(watchOf(front)), made(b), asked(one(post, a)), {action: delivers, n: 1}},
		"a restored cluster: the first page of a list has an object as it was before a 404": {
			made(a), made(b), asked(lists(app)), deleted(a), asked(one(put, a)), {action: restores, n: 1}, asked(ask{verb: list, scope: app, limit: 1})},
		"a lagging 404 while a higher version is known, and a GET at that": {
			asked(lists(scope{kind: configMaps, namespace: "ops"})), made(a), asked(lists(scope{kind: configMaps, namespace: "ops"})), lagging(asked(one(get, a).anyVersion()), 1),
			{action: cuts, n: 12 * 20}, {action: cuts, n: 1}},
		"opaque versions: the first events of a watch of a part that nobody knows come after a write": {
			made(namespace), opened(watchOf(scope{kind: namespaces, selector: byShard}).from(watchList)), asked(one(remove, namespace)), {action: delivers, n: 1}},
		"a late event of a deleted object, after a 409 for one that was made in its place": {
			asked(lists(app)), opened(watchOf(app)), made(a), {action: changes, key: a, n: 4}, deleted(a), asked(one(patch, a)), made(a),
			{action: delivers, n: 1}, asked(one(post, a)), {action: delivers, n: 1}},
		"a watch with a label is behind one without": {
			asked(lists(app)), opened(watchOf(app)), made(a), second(opened(watchOf(front).from(fromState))), deleted(a), told, second(told), heal},
		"a Table of one name lacks the object, before a lagging GET": {
			made(a), deleted(a), asked(lists(onlyA).in(asTable)), lagging(asked(one(get, a).anyVersion()), 1)},
		"a lagging Table lacks the object, after a PUT that cannot be read": {
			made(namespace), asked(one(put, namespace).in(inCBOR)), lagging(asked(lists(scope{kind: namespaces}).anyVersion().in(asTable)), 3), {action: cuts, n: 4}},
		"a Table lacks the object, before a lagging GET": {
			made(a), deleted(a), asked(lists(app).in(asTable)), lagging(asked(one(get, a).anyVersion()), 1)},
		"a tiny disk: a list of a restored cluster, at the version of one before, is evicted": {
			made(key{configMaps, "ops", "a"}), asked(lists(all).in(metadataInProtobuf)), {action: restores, n: 5}, made(b),
			asked(ask{verb: list, scope: all, limit: 1, form: metadataInJSON}), opened(watchOf(all).in(metadataInProtobuf))},
		"an object is made and deleted between two lists of the same": {
			asked(lists(app).anyVersion().in(metadataInJSON)), made(a), asked(lists(app)), deleted(a), asked(lists(app).anyVersion().in(metadataInJSON))},
		"a lagging 404, and then a state that lags more": {
			made(a), deleted(a), asked(one(get, a).anyVersion()), lagging(asked(one(get, a).anyVersion()), 1), heal},
		"a restored cluster: a lagging list is older than one of the sidecar's own": {
			made(a), deleted(a), opened(watchOf(all).from(fromState)), updated(a), deleted(a), told, heal, {action: restores, n: 6}, made(b), asked(lists(front).anyVersion())},
		"two watches at different positions": {
			made(a), asked(lists(app)), opened(watchOf(app)), second(opened(watchOf(app))), updated(a), deleted(a), told, second(op{action: delivers, n: 1})},
	} {
		t.Run(name, func(t *testing.T) {
			h := &history{Programs: 1, Kinds: []*kind{ops[0].kind()}, Ops: ops, Opaque: strings.HasPrefix(name, "opaque versions: ")}
			if strings.HasPrefix(name, "a small queue: ") {
				h.QueueSize, h.Padding = 2600, 1<<10
			}
			if strings.HasPrefix(name, "a tiny disk: ") {
				h.DiskSize, h.Padding = 160<<10, 40<<10
			}
			for _, n := range []int{10, 1, 2, 8, 4, 0} { // every form, and then after a relist
				h.Ops = append(h.Ops, op{action: cuts, n: n})
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
