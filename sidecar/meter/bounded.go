package meter

import (
	"strings"
	"sync"
)

// other is the label of all values that find no place.
const other = "other"

// bounded is a set of the first values of a label.
type bounded struct {
	most int
	mu   sync.Mutex
	seen map[string]bool
}

func newBounded(most int) *bounded { return &bounded{most: most, seen: map[string]bool{}} }

// has reports whether a value is in the set, and adds it if there is room.
func (b *bounded) has(value string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.seen[value] && len(b.seen) < b.most {
		b.seen[strings.Clone(value)] = true // the value may be a part of a long header
	}
	return b.seen[value]
}

// maxLabel bounds a value, in bytes.
const maxLabel = 100

// label gives the value, or other if it has no place. It is valid UTF-8, as Prometheus needs it.
func (b *bounded) label(value string) string {
	value = strings.ToValidUTF8(value, "?")
	if len(value) > maxLabel || !b.has(value) {
		return other
	}
	return value
}
