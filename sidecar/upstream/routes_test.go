package upstream

import (
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"rockpool.dev/tests/eventually"
)

func TestAChangeOfTheNetworkIsTold(t *testing.T) {
	type result struct {
		bytes int
		err   error
		skip  error
	}
	results := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with its network
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			results <- result{skip: err}
			return
		}
		messages, err := openRoutes()
		if err != nil {
			results <- result{err: err}
			return
		}
		defer messages.Close()
		if err := exec.Command("ip", "link", "set", "lo", "up").Run(); err != nil {
			results <- result{skip: err}
			return
		}
		n, err := messages.Read(make([]byte, 4096))
		results <- result{bytes: n, err: err}
	}()
	r := eventually.Receive(t, "a message", results)
	if r.skip != nil {
		t.Skipf("this user cannot change a network of its own: %v", r.skip)
	}
	if r.bytes == 0 || r.err != nil {
		t.Errorf("%d bytes, %v", r.bytes, r.err)
	}
}
