package gobuild

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// progressInterval is the time between two progress lines of a build.
const progressInterval = 15 * time.Second

// Progress is the output of `go build -v`, which has a line for each package that it begins to
// compile. From their count and the time so far it estimates the time that is left.
type Progress struct {
	w        io.Writer
	name     string // of the program
	total    int    // packages to compile; 0: unknown
	started  time.Time
	interval time.Duration

	mu     sync.Mutex
	output bytes.Buffer
	done   int // lines of output
}

// NewProgress returns the progress of a build that starts now. Lines about it go to w.
func NewProgress(w io.Writer, name string) *Progress {
	return &Progress{w: w, name: name, started: time.Now(), interval: progressInterval}
}

// Expect counts the packages that a build would compile. Compiled packages stay in Go's cache, so
// that an interrupted build goes on where it was.
func (p *Progress) Expect(list *exec.Cmd) error {
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(list.Args, " "), err)
	}
	p.total = len(bytes.Fields(out))
	return nil
}

// Write takes output of the build.
func (p *Progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += bytes.Count(b, []byte("\n"))
	return p.output.Write(b)
}

// Messages is all output so far.
func (p *Progress) Messages() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.output.Bytes())
}

// line is the progress after some time.
func (p *Progress) line(took time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.total == 0 {
		return fmt.Sprintf("tools: still building %s, %s so far", p.name, took.Round(time.Second))
	}
	done := min(p.done, p.total)
	text := fmt.Sprintf("tools: %s: %d of %d packages after %s", p.name, done, p.total, took.Round(time.Second))
	switch {
	case done >= p.total:
		return text + ", now linking"
	case done == 0:
		return text
	}
	left := time.Duration(float64(took) / float64(done) * float64(p.total-done))
	return text + ", about " + max(time.Second, left.Round(time.Second)).String() + " left"
}

// Report writes a line every 15 s until the function it returns is called.
func (p *Progress) Report() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(p.interval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				fmt.Fprintln(p.w, p.line(time.Since(p.started)))
			}
		}
	}()
	return func() { close(quit); <-ended }
}
