package link

import (
	"net"

	"golang.org/x/sys/unix"
)

// Stats count the traffic of a Link since New.
type Stats struct {
	// Accepted counts connections, Open those of them that are still open.
	Accepted, Open int
	// BytesUp counts bytes delivered to the target, BytesDown bytes delivered to clients.
	BytesUp, BytesDown int64
	// PacketsUp counts TCP packets from clients, PacketsDown packets to clients, as the kernel sees
	// them: handshake, data, acknowledgements and keep-alive probes of clients. The last two
	// packets of a connection and keep-alive probes of the target are missing.
	PacketsUp, PacketsDown int64
}

// Since returns the traffic after mark, an earlier value of the same Link. Open is that of s.
func (s Stats) Since(mark Stats) Stats {
	s.Accepted -= mark.Accepted
	s.BytesUp -= mark.BytesUp
	s.BytesDown -= mark.BytesDown
	s.PacketsUp -= mark.PacketsUp
	s.PacketsDown -= mark.PacketsDown
	return s
}

// WireUp is how many bytes the packets towards the target have, IPv4 and TCP headers included.
func (s Stats) WireUp() int64 { return s.BytesUp + headerSize*s.PacketsUp }

// WireDown is how many bytes the packets towards clients have, IPv4 and TCP headers included.
func (s Stats) WireDown() int64 { return s.BytesDown + headerSize*s.PacketsDown }

// Wire is the sum of WireUp and WireDown.
func (s Stats) Wire() int64 { return s.WireUp() + s.WireDown() }

// Stats returns the counters up to now.
func (l *Link) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	stats := l.ended
	stats.BytesUp, stats.BytesDown = l.up.bytes, l.down.bytes
	stats.Open = len(l.conns)
	for f := range l.conns {
		f.mu.Lock()
		up, down := f.packets()
		f.mu.Unlock()
		stats.PacketsUp += up
		stats.PacketsDown += down
	}
	return stats
}

// packets returns the packets of the connection in each direction. The caller holds f.mu.
func (f *forward) packets() (up, down int64) {
	if !f.ended {
		f.packetsUp, f.packetsDown = countPackets(f.client)
	}
	return f.packetsUp, f.packetsDown
}

// countPackets returns the packets that a connection has received and sent.
func countPackets(conn *net.TCPConn) (received, sent int64) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0
	}
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			const synAck = 1 // which the kernel does not count
			received, sent = int64(info.Segs_in), int64(info.Segs_out)+synAck
		}
	})
	if err != nil {
		return 0, 0
	}
	return received, sent
}
