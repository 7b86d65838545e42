package record

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"rockpool.dev/sidecar/api/wire"
)

func TestGroupsAreHeldBackOnlyWhileAListIsIncoming(t *testing.T) {
	full, first := listOf(20, configMap("a", 1), configMap("b", 2)), page(20, "one", configMap("a", 1), configMap("b", 2))
	for name, tt := range map[string]struct {
		url, body string
		read      int // in bytes
		want      bool
	}{
		"a part of a list was read":     {configmaps, full, len(full) - 5, true},
		"a list was read":               {configmaps, full, len(full), false},
		"a part of a page was read":     {configmaps + "?limit=2", first, len(first) - 5, true},
		"a page was read, not the last": {configmaps + "?limit=2", first, len(first), false},
	} {
		t.Run(name, func(t *testing.T) {
			h := idleHarness(t, t.TempDir(), 0)
			body := h.teeList(h.source(tt.url), wire.JSON, answer(strings.NewReader(tt.body)))
			if _, err := io.CopyN(io.Discard, body, int64(tt.read)); err != nil {
				t.Fatal(err)
			}
			if tt.read == len(tt.body) {
				h.read(body)
			}
			if got := h.listIncoming(); got != tt.want {
				t.Errorf("groups are held back: %v", got)
			}
			h.read(body)
			if h.listIncoming() {
				t.Error("groups are held back after the end")
			}
		})
	}
}

func TestFlushDoesNotWaitForAGroupThatIsHeldBack(t *testing.T) {
	h := newFaultHarness(t, t.TempDir()) // its clock does not move
	text := listOf(20, configMap("a", 1), configMap("b", 2))
	body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(text)))
	if _, err := io.CopyN(io.Discard, body, int64(len(text)-5)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- h.Run(ctx) }()
	h.flush()
	h.read(body)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := h.recorded("configmaps"); !slices.Equal(got, []string{"complete shop/@20: a@1 b@2"}) {
		t.Errorf("recorded %v", got)
	}
}

func TestGroupsAreHeldBackForASecondOrUntilAQuarterOfMaxPending(t *testing.T) {
	readPart := func(h *harness, size int) {
		text := listOf(20, strings.Replace(configMap("a", 1), "v1", strings.Repeat("x", size), 1), configMap("b", 2))
		body := h.teeList(h.source(configmaps), wire.JSON, answer(strings.NewReader(text)))
		if _, err := io.CopyN(io.Discard, body, int64(len(text)-5)); err != nil {
			t.Fatal(err)
		}
		if !h.listIncoming() {
			t.Fatal("no group is held back")
		}
	}
	t.Run("a quarter of MaxPending", func(t *testing.T) {
		for size, want := range map[int]bool{10 << 10: false, 17 << 10: true} {
			h := idleHarness(t, t.TempDir(), 64<<10)
			if readPart(h, size); h.groupReady() != want {
				t.Errorf("with %d bytes, the group is ready: %v", h.pending, !want)
			}
		}
	})
	t.Run("a second", func(t *testing.T) {
		h := newFaultHarness(t, t.TempDir())
		readPart(h.harness, 1)
		began, done := h.clock.Now(), make(chan struct{})
		go func() {
			defer close(done)
			h.gather(t.Context())
		}()
		err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
			select {
			case <-done:
				return true, nil
			default:
			}
			if h.clock.HasWaiters() {
				h.clock.Step(groupDelay)
			}
			return false, nil
		})
		if took := h.clock.Since(began); err != nil || took != holdDelay {
			t.Errorf("held back for %s: %v", took, err)
		}
	})
}
