package filter

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/filter/rule"
)

const (
	// patience is how long a request waits until its follower knows what it can know. Beyond that
	// its objects pass, and a watch is corrected later.
	patience = 10 * time.Second
	// linger is how long a follower goes on without a client.
	linger = time.Minute
)

// followerKey names for whom a follower reads. The user agent decides whether that is recorded.
type followerKey struct{ subject, agent, namespace string }

// follower reads what the filters of a client need to know beside the object. Its lock is taken
// after that of its Filter.
type follower struct {
	filter *Filter
	key    followerKey
	like   *http.Request // a request of the client
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex
	users    int
	idle     clock.Timer // runs out when nobody has used the follower for linger; nil: it is used
	needs    rule.Needs
	watches  map[*watch]struct{}
	current  *rule.Context
	services *collection[rule.Service]
	node     *collection[map[string]string]
	pools    *collection[names]
	// poolNodes and zoneNodes are replaced when this node changes its pool or zone.
	poolNodes, zoneNodes labelled
}

// labelled is the nodes that have a label.
type labelled struct {
	value  string
	nodes  *collection[struct{}]
	cancel context.CancelFunc
}

var (
	resourceNodes     = schema.GroupResource{Resource: "nodes"}
	resourceNodePools = schema.GroupResource{Group: "apps.openyurt.io", Resource: "nodepools"}
)

// follow returns the follower for a client's request. The caller has to release it.
func (f *Filter) follow(q *query) *follower {
	agent, _, _ := strings.Cut(q.request.UserAgent(), "/")
	key := followerKey{f.Subject(q.request.Header), agent, q.info.Namespace}
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.followers[key]
	if fl == nil {
		fl = &follower{filter: f, key: key, like: q.request, watches: map[*watch]struct{}{}}
		fl.ctx, fl.cancel = context.WithCancel(f.ctx)
		f.followers[key] = fl
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.users++
	if fl.idle != nil {
		fl.idle.Stop()
		fl.idle = nil
	}
	fl.want(q.view.chain.Needs)
	return fl
}

// release notes that a request is done with the follower.
func (fl *follower) release() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.users--; fl.users > 0 || fl.ctx.Err() != nil {
		return
	}
	idle := fl.filter.Clock.NewTimer(linger)
	fl.idle = idle
	fl.filter.start(func() {
		select {
		case <-idle.C():
			fl.end(idle)
		case <-fl.ctx.Done():
			idle.Stop()
		}
	})
}

// end ends a follower that is still idle.
func (fl *follower) end(idle clock.Timer) {
	fl.filter.mu.Lock()
	defer fl.filter.mu.Unlock()
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.idle == idle {
		delete(fl.filter.followers, fl.key)
		fl.cancel()
	}
}

// subscribe has a watch woken whenever the context changes.
func (fl *follower) subscribe(w *watch) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.watches[w] = struct{}{}
}

func (fl *follower) unsubscribe(w *watch) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	delete(fl.watches, w)
}

// context returns what is known now.
func (fl *follower) context() *rule.Context {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.current
}

// refresh works out again what is known, after a change of settings or of what was read.
func (fl *follower) refresh() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.update()
}

// want adds to what the follower has to know.
func (fl *follower) want(n rule.Needs) {
	fl.needs.Services = fl.needs.Services || n.Services
	fl.needs.Pool = fl.needs.Pool || n.Pool
	fl.needs.Node = fl.needs.Node || n.Node
	fl.update()
}

// has reports whether the follower has to know all that is needed.
func (fl *follower) has(n rule.Needs) bool {
	return (fl.needs.Services || !n.Services) && (fl.needs.Pool || !n.Pool) && (fl.needs.Node || !n.Node)
}

// update has read what is needed by what is known so far, and makes the context. The lock is held.
func (fl *follower) update() {
	if fl.needs.Services && fl.services == nil {
		path := "/api/v1/services"
		if fl.key.namespace != "" {
			path = "/api/v1/namespaces/" + fl.key.namespace + "/services"
		}
		fl.services = start(fl.ctx, fl, target{resource: rule.Services, path: path}, readService)
	}
	k := fl.knowledge()
	pool, zone := fl.needs.Pool, false
	for _, s := range k.services {
		pool = pool || s.Topology == rule.TopologyPool || s.Topology == rule.TopologyZone
		zone = zone || s.Topology == rule.TopologyZone
	}
	name := fl.filter.NodeName
	if (pool || fl.needs.Node) && name != "" && fl.node == nil {
		fl.node = start(fl.ctx, fl, target{
			resource: resourceNodes, path: "/api/v1/nodes", metadata: true,
			query: "fieldSelector=" + url.QueryEscape("metadata.name="+name),
		}, readLabels)
	}
	if pool && k.node[rule.LabelPool] == "" && isSettled(fl.node) && fl.pools == nil {
		fl.pools = start(fl.ctx, fl, target{resource: resourceNodePools, path: "/apis/apps.openyurt.io/v1beta1/nodepools"}, readPool)
	}
	value := ""
	if pool {
		value = k.node[rule.LabelPool]
	}
	fl.label(&fl.poolNodes, rule.LabelPool, value)
	if value = ""; zone {
		value = k.node[rule.LabelZone]
	}
	fl.label(&fl.zoneNodes, rule.LabelZone, value)

	k = fl.knowledge()
	fl.current = fl.filter.context(fl.filter.current.Load(), k)
	observe(&fl.current.Node)
	for w := range fl.watches {
		w.wake()
	}
}

// label follows the nodes that have a label, none if value is empty.
func (fl *follower) label(l *labelled, name, value string) {
	if l.value == value {
		return
	}
	if l.cancel != nil {
		l.cancel()
	}
	*l = labelled{value: value}
	if value == "" {
		return
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(fl.ctx)
	l.nodes = start(ctx, fl, target{
		resource: resourceNodes, path: "/api/v1/nodes", metadata: true,
		query: "labelSelector=" + url.QueryEscape(name+"="+value),
	}, readName)
}

// knowledge returns what was read so far.
func (fl *follower) knowledge() *knowledge {
	k := &knowledge{services: fl.services.get()}
	for key, labels := range fl.node.get() {
		if key.Name == fl.filter.NodeName {
			k.node = labels
		}
	}
	k.poolNodes, k.zoneNodes = namesOf(fl.poolNodes.nodes.get()), namesOf(fl.zoneNodes.nodes.get())
	if pools := fl.pools.get(); pools != nil {
		k.pools = make(map[string]names, len(pools))
		for key, nodes := range pools {
			k.pools[key.Name] = nodes
		}
	}
	return k
}

func namesOf(keys map[types.NamespacedName]struct{}) names {
	if keys == nil {
		return nil
	}
	all := make(names, len(keys))
	for key := range keys {
		all[key.Name] = struct{}{}
	}
	return all
}

// wait returns when all that the follower reads has been tried once.
func (fl *follower) wait(ctx context.Context) {
	timer := fl.filter.Clock.NewTimer(patience)
	defer timer.Stop()
	for {
		next := fl.unsettled()
		if next == nil {
			return
		}
		select {
		case <-next:
		case <-timer.C():
			return
		case <-ctx.Done():
			return
		case <-fl.ctx.Done():
			return
		}
	}
}

// unsettled returns a channel that is closed when the next try is done; nil: all are.
func (fl *follower) unsettled() <-chan struct{} {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	switch {
	case !isSettled(fl.services):
		return fl.services.settled
	case !isSettled(fl.node):
		return fl.node.settled
	case !isSettled(fl.pools):
		return fl.pools.settled
	case !isSettled(fl.poolNodes.nodes):
		return fl.poolNodes.nodes.settled
	case !isSettled(fl.zoneNodes.nodes):
		return fl.zoneNodes.nodes.settled
	}
	return nil
}

// isSettled reports whether a collection was tried once, or is not needed.
func isSettled[T any](c *collection[T]) bool {
	if c == nil {
		return true
	}
	select {
	case <-c.settled:
		return true
	default:
		return false
	}
}

// start follows a target until ctx ends.
func start[T any](ctx context.Context, fl *follower, t target, read func(*rule.Object) (types.NamespacedName, T, bool, error)) *collection[T] {
	c := &collection[T]{target: t, filter: fl.filter, like: fl.like, read: read, changed: fl.refresh, settled: make(chan struct{})}
	fl.filter.start(func() { c.run(ctx) })
	return c
}

func readService(o *rule.Object) (types.NamespacedName, rule.Service, bool, error) {
	key, s, err := rule.ReadService(o)
	return key, s, s != rule.Service{}, err
}

func readLabels(o *rule.Object) (key types.NamespacedName, labels map[string]string, ok bool, err error) {
	if key, err = o.Key(); err == nil {
		labels, err = rule.ReadLabels(o)
	}
	if labels == nil {
		labels = map[string]string{}
	}
	return key, labels, true, err
}

func readName(o *rule.Object) (key types.NamespacedName, none struct{}, ok bool, err error) {
	key, err = o.Key()
	return key, none, true, err
}

func readPool(o *rule.Object) (key types.NamespacedName, nodes names, ok bool, err error) {
	if key, err = o.Key(); err == nil {
		nodes, err = rule.ReadPool(o)
	}
	return key, nodes, true, err
}
