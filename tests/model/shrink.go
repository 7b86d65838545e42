package model

import "slices"

// shrink leaves out of a history whatever its failure does not need.
func shrink(h *history, fails func(*history) bool) *history {
	for smaller := true; smaller; {
		smaller = false
		try := func(change func(*history)) {
			c := *h
			c.Ops = slices.Clone(h.Ops)
			if change(&c); fails(&c) {
				h, smaller = &c, true
			}
		}
		for size := (len(h.Ops) + 1) / 2; size > 0; size /= 2 {
			for i := len(h.Ops) - size; i >= 0; i -= size {
				if end := i + size; end <= len(h.Ops) {
					try(func(c *history) { c.Ops = slices.Delete(c.Ops, i, end) })
				}
			}
		}
		for _, mode := range modes {
			if c := *h; mode(&c) {
				try(func(c *history) { mode(c) })
			}
		}
	}
	return h
}

// modes turn what is special about a history off. They report whether there was anything.
var modes = []func(*history) bool{
	func(h *history) bool { was := h.Opaque; h.Opaque = false; return was },
	func(h *history) bool { was := h.DiskSize > 0; h.DiskSize = 0; return was },
	func(h *history) bool { was := h.QueueSize > 0; h.QueueSize = 0; return was },
	func(h *history) bool { was := h.Padding > 0; h.Padding = 0; return was },
}
