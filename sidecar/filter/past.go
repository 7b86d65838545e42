package filter

import (
	"hash/maphash"
	"slices"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// maxPasts and maxHidden bound what is remembered of clients that have no open watch.
const (
	maxPasts  = 128
	maxHidden = 1 << 17
)

// past is what a client holds: the objects that existed at a version, as a view shows them, without
// the hidden ones.
type past struct {
	scope string

	mu   sync.Mutex
	view view
	// position is the version that the client has got to. floor is the oldest version from which
	// events may be sent again: hidden is true for a client at any version between them, because
	// what was not told since then does not change it. Both are 0 while the initial events of a
	// watch are not complete.
	floor, position uint64
	// version is the position as text, of which some API servers have no number.
	version string
	// next is the continue token of the next page of the list; empty: there is none.
	next string
	// hidden has the keys of objects that exist and are not shown.
	hidden map[uint64]struct{}
	live   bool // a watch is open
}

// number returns a version as a number, 0 if it is none.
func number(version string) uint64 {
	n, _ := strconv.ParseUint(version, 10, 64)
	return n
}

// at reports whether a client at a version may hold what p says.
func (p *past) at(version string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.version == "" {
		return false
	}
	if n := number(version); n != 0 {
		return p.floor <= n && n <= p.position
	}
	return p.version == version
}

// precedes reports whether the page of a continue token is the next one.
func (p *past) precedes(token string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next == token
}

// set is at the end of a list or of the initial events.
func (p *past) set(version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version, p.position = version, number(version)
	p.floor = p.position
}

// copy returns a past of its own for another watch of the client.
func (p *past) copy() *past {
	p.mu.Lock()
	defer p.mu.Unlock()
	hidden := make(map[uint64]struct{}, len(p.hidden))
	for key := range p.hidden {
		hidden[key] = struct{}{}
	}
	return &past{scope: p.scope, view: p.view, floor: p.floor, position: p.position, version: p.version, hidden: hidden}
}

// pasts remembers the pasts of clients, the latest last.
type pasts struct {
	seed maphash.Seed

	mu  sync.Mutex
	all []*past
}

func newPasts() pasts { return pasts{seed: maphash.MakeSeed()} }

// hash returns the hash of a key. A set of hashes takes a quarter of the memory of a set of keys. That
// two of a million keys have the same hash has a probability of 1 to 37 million.
func (s *pasts) hash(key types.NamespacedName) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(key.Namespace)
	_ = h.WriteByte('/')
	_, _ = h.WriteString(key.Name)
	return h.Sum64()
}

// add remembers a past.
func (s *pasts) add(p *past) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, p)
	hidden := 0
	for i := len(s.all) - 1; i >= 0; i-- { // the latest first
		one := s.all[i]
		one.mu.Lock()
		hidden += len(one.hidden)
		forget := !one.live && (len(s.all)-i > maxPasts || hidden > maxHidden) && one != p
		one.mu.Unlock()
		if forget {
			s.all = slices.Delete(s.all, i, i+1)
		}
	}
}

// find returns the latest past of a client at a version, nil if there is none.
func (s *pasts) find(scope string, fits func(*past) bool) *past {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(s.all) {
		if p.scope == scope && fits(p) {
			return p
		}
	}
	return nil
}

// correct notes that the client of a past is sent a correction, whose objects have versions up to the
// position. A client that comes back at one of them may not have got it. Neither this past nor an older
// one of the client says what it holds then, so it lists again.
func (s *pasts) correct(p *past) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.mu.Lock()
	position := p.position
	p.mu.Unlock()
	for _, one := range s.all {
		one.mu.Lock()
		if one == p || one.scope == p.scope && !one.live {
			one.floor = max(one.floor, position+1)
			if position == 0 { // versions that are no numbers
				one.version = ""
			}
		}
		one.mu.Unlock()
	}
}

// end notes that the watch of a past has ended. The client goes on from it, or lists again.
func (s *pasts) end(p *past) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live = false
}
