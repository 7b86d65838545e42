package proxy

import (
	"runtime"
	"sync"
	"testing"
)

func TestTheStackOfAHandlerGrowsAtOnce(t *testing.T) {
	const handlers = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var grown, ended sync.WaitGroup
	end := make(chan struct{})
	for range handlers {
		grown.Add(1)
		ended.Go(func() {
			growStack(0)
			grown.Done()
			<-end
		})
	}
	grown.Wait()
	runtime.ReadMemStats(&after)
	close(end)
	ended.Wait()
	// A collection may have shrunk some of them.
	if each := (int64(after.StackSys) - int64(before.StackSys)) / handlers; each < handlerStack/2 {
		t.Errorf("a stack takes %d bytes, want %d", each, handlerStack)
	}
}
