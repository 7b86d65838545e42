package upstream

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// link forwards TCP. It can refuse connections, it can accept them and forward nothing, and it can
// delay bytes.
type link struct {
	t       *testing.T
	address string
	target  string

	mu        sync.Mutex
	listener  net.Listener
	reserved  int // a socket that keeps the port while nobody listens; 0: none
	conns     map[net.Conn]struct{}
	passing   chan struct{} // closed while bytes pass
	released  chan struct{} // closed when forgotten connections end
	forgotten int           // this many connections, the oldest, forward nothing
	accepted  int
	bytes     int           // forwarded, both ways
	delay     time.Duration // of each byte, each way
	rate      int           // in bytes per second, each way, with an endless queue; 0: no limit
	group     sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	l := &link{t: t, target: target, conns: map[net.Conn]struct{}{}, passing: make(chan struct{}), released: make(chan struct{})}
	close(l.passing)
	l.listen("127.0.0.1:0")
	t.Cleanup(func() {
		l.refuse()
		l.mu.Lock()
		l.release()
		l.mu.Unlock()
		l.group.Wait()
	})
	return l
}

func (l *link) listen(address string) {
	l.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.address = listener, listener.Addr().String()
	l.group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.accepted++
			number := l.accepted
			l.mu.Unlock()
			l.group.Go(func() { l.forward(conn, number) })
		}
	})
}

func (l *link) forward(near net.Conn, number int) {
	defer near.Close()
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	l.conns[near], l.conns[far] = struct{}{}, struct{}{}
	l.mu.Unlock()
	done := make(chan struct{}, 2)
	type parcel struct {
		data []byte
		due  time.Time
		last bool
	}
	copyAll := func(to, from net.Conn) {
		parcels := make(chan parcel, 10_000)
		l.group.Go(func() {
			var free time.Time // when the queue is empty
			for {
				buffer := make([]byte, 32<<10)
				n, err := from.Read(buffer)
				l.mu.Lock()
				l.bytes += n
				delay, rate := l.delay, l.rate
				l.mu.Unlock()
				for rest := buffer[:n]; ; {
					part := rest[:min(len(rest), 1<<10)]
					rest = rest[len(part):]
					if free = latest(free, time.Now()); rate > 0 {
						free = free.Add(time.Duration(len(part)) * time.Second / time.Duration(rate))
					}
					parcels <- parcel{part, free.Add(delay), err != nil && len(rest) == 0}
					if len(rest) == 0 {
						break
					}
				}
				if err != nil {
					return
				}
			}
		})
		broken := false
		for p := range parcels {
			time.Sleep(time.Until(p.due))
			l.mu.Lock()
			passing := l.passing
			if number <= l.forgotten {
				passing = l.released
			}
			l.mu.Unlock()
			<-passing
			if !broken {
				_, err := to.Write(p.data)
				broken = err != nil
			}
			if broken || p.last {
				_ = to.Close()
				_ = from.Close()
			}
			if p.last {
				break
			}
		}
		done <- struct{}{}
	}
	l.group.Go(func() { copyAll(near, far) })
	l.group.Go(func() { copyAll(far, near) })
	<-done
	_ = near.Close()
	_ = far.Close()
	<-done
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, near)
	delete(l.conns, far)
}

// dials returns how many connections were made so far.
func (l *link) dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted
}

// open returns how many connections are open.
func (l *link) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// setRate limits the bytes per second, each way.
func (l *link) setRate(rate int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// setRoundTrip delays all bytes from now on.
func (l *link) setRoundTrip(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d / 2
}

// forwarded returns how many bytes were forwarded so far, both ways.
func (l *link) forwarded() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// refuse closes the port and resets all connections.
func (l *link) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closePort()
	for c := range l.conns { // before their forwarders close them
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	select {
	case <-l.passing:
	default:
		close(l.passing)
	}
	select {
	case <-l.released:
	default:
		close(l.released)
	}
	for c := range l.conns {
		_ = c.Close()
	}
}

// refuseNew closes the port. Open connections go on.
func (l *link) refuseNew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closePort()
}

// closePort ends the listener and keeps its port from other tests, whose servers have the same
// certificate. The lock is held.
func (l *link) closePort() {
	_ = l.listener.Close()
	if l.reserved != 0 {
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	at := netip.MustParseAddrPort(l.address)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) != nil ||
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}) != nil {
		_ = unix.Close(fd)
		return
	}
	l.reserved = fd
}

// release gives up the port. The lock is held.
func (l *link) release() {
	if l.reserved != 0 {
		_ = unix.Close(l.reserved)
		l.reserved = 0
	}
}

// blackhole still accepts connections, but forwards nothing.
func (l *link) blackhole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passing = make(chan struct{})
}

// ignoreAll makes a black hole that does not even acknowledge.
func (l *link) ignoreAll() {
	l.blackhole()
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		ignoreAll(l.t, c)
	}
}

// forgetConns forgets the open connections, like a restarted NAT gateway: they forward nothing and
// are not reset.
func (l *link) forgetConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten = l.accepted
}

// restore accepts and forwards again.
func (l *link) restore() {
	l.mu.Lock()
	select {
	case <-l.passing:
	default:
		close(l.passing)
	}
	address := l.address
	l.release()
	l.mu.Unlock()
	_ = l.listener.Close()
	l.listen(address)
}
