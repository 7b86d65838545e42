package link

// HalfOpen makes all existing connections silent for good, without a reset, as when a NAT gateway
// or the server has restarted and forgotten them. New connections are not affected. Cut, Reset and
// Close end half-open connections.
func (l *Link) HalfOpen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.conns {
		f.halfOpen = true
	}
	l.notify()
}
