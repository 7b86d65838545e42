package replay

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/labels"

	"rockpool.dev/store"
)

// maxSelectors bounds the parsed selectors. Each takes some hundred bytes.
const maxSelectors = 4096

// selectors keeps the recorded label selectors that were parsed: a GET may need a thousand. The zero
// value is ready to use.
type selectors struct {
	mu     sync.Mutex
	parsed map[string]labels.Selector
}

func (s *selectors) parse(selector string) (labels.Selector, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if parsed, ok := s.parsed[selector]; ok {
		return parsed, nil
	}
	parsed, err := labels.Parse(selector)
	if err != nil {
		return nil, fmt.Errorf("label selector %q: %w: %w", selector, store.ErrCorrupt, err)
	}
	if s.parsed == nil || len(s.parsed) >= maxSelectors {
		s.parsed = map[string]labels.Selector{}
	}
	s.parsed[selector] = parsed
	return parsed, nil
}

// match reports whether the labels of an object, as JSON, match a selector.
func (s *selectors) match(selector, object string) (bool, error) {
	parsed, err := s.parse(selector)
	if err != nil {
		return false, err
	}
	return matches(parsed, object)
}
