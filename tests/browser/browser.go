// Package browser looks at pages with a real Chromium without a window, as a person does: in a window
// of some size, light or dark, by eye (a screenshot) and by screen reader (the accessibility tree). It
// speaks the DevTools protocol over two pipes, so that no port is open.
// https://chromedevtools.github.io/devtools-protocol/
package browser

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// Program is Debian's Chromium.
const Program = "chromium"

// timeout bounds each step, on a machine that is busy with other tests.
const timeout = time.Minute

// Browser is a running Chromium.
type Browser struct {
	t     testing.TB
	write *os.File

	mu       sync.Mutex
	next     int
	waiting  map[int]chan message // for answers
	problems []string             // that pages had: errors, blocked resources, requests
	loaded   map[string]chan struct{}
}

// message is an answer or an event of the protocol.
type message struct {
	ID      int             `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Start starts Chromium for a test. Without it, the test fails: scripts/need.sh installs it.
func Start(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath(Program)
	if err != nil {
		t.Fatalf("%v: scripts/need.sh installs it", err)
	}
	commands, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--user-data-dir="+t.TempDir())
	cmd.ExtraFiles = []*os.File{commands, answers} // file descriptors 3 and 4
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = commands.Close() // the child has its own
	_ = answers.Close()
	b := &Browser{t: t, write: write, waiting: map[int]chan message{}, loaded: map[string]chan struct{}{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.receive(read) })
	t.Cleanup(func() {
		// It ends in order, so that its children have ended and its directory is quiet.
		_, _ = b.call("", "Browser.close", nil)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(timeout):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = write.Close()
		reading.Wait()
		_ = read.Close()
	})
	return b
}

// receive hands out messages until Chromium ends.
func (b *Browser) receive(from *os.File) {
	lines := bufio.NewReader(from)
	for {
		text, err := lines.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if to := b.waiting[m.ID]; to != nil && m.ID != 0 {
			delete(b.waiting, m.ID)
			to <- m
		} else {
			b.event(m)
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, to := range b.waiting {
		close(to)
	}
	b.waiting = nil
}

// event takes note of what a test wants to know. The lock is held.
func (b *Browser) event(m message) {
	switch m.Method {
	case "Page.loadEventFired":
		select {
		case b.loaded[m.Session] <- struct{}{}:
		default:
		}
	case "Log.entryAdded", "Runtime.exceptionThrown":
		b.problems = append(b.problems, m.Method+" "+string(m.Params))
	}
}

// call calls a method, and returns its result.
func (b *Browser) call(session, method string, params any) (json.RawMessage, error) {
	answer := make(chan message, 1)
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return nil, fmt.Errorf("%s: Chromium has ended", method)
	}
	b.next++
	id := b.next
	b.waiting[id] = answer
	b.mu.Unlock()
	command := map[string]any{"id": id, "method": method}
	if params != nil {
		command["params"] = params
	}
	if session != "" {
		command["sessionId"] = session
	}
	text, err := json.Marshal(command)
	if err == nil {
		_, err = b.write.Write(append(text, 0))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: Chromium has ended", method)
		case m.Error != nil:
			return nil, fmt.Errorf("%s: %s", method, m.Error.Message)
		}
		return m.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer within %s", method, timeout)
	}
}

// Problems returns what pages have complained about so far: errors of scripts, and what their
// policies have blocked.
func (b *Browser) Problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.problems...)
}

// Window is how a person looks at a page.
type Window struct {
	Width, Height int
	Dark          bool
	Phone         bool // it touches, and has small pages in mind
}

// Page is an open page.
type Page struct {
	b       *Browser
	session string
}

// Open opens a page.
func (b *Browser) Open(url string, w Window) *Page {
	b.t.Helper()
	var target struct{ TargetID string }
	b.must("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.must("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	p := &Page{b, attached.SessionID}
	b.mu.Lock()
	b.loaded[p.session] = make(chan struct{}, 1)
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Log", "Runtime", "Accessibility"} {
		p.must(domain+".enable", nil, nil)
	}
	scheme := "light"
	if w.Dark {
		scheme = "dark"
	}
	p.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": w.Width, "height": w.Height, "deviceScaleFactor": 1, "mobile": w.Phone}, nil)
	p.must("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	p.Go(url)
	return p
}

// Go opens another address in the page, and waits until it is loaded.
func (p *Page) Go(url string) {
	p.b.t.Helper()
	var navigated struct{ ErrorText string }
	p.must("Page.navigate", map[string]any{"url": url}, &navigated)
	if navigated.ErrorText != "" {
		p.b.t.Fatalf("%s: %s", url, navigated.ErrorText)
	}
	p.b.mu.Lock()
	loaded := p.b.loaded[p.session]
	p.b.mu.Unlock()
	select {
	case <-loaded:
	case <-time.After(timeout):
		p.b.t.Fatalf("%s is not loaded within %s", url, timeout)
	}
}

// Evaluate evaluates a JavaScript expression in the page.
func (p *Page) Evaluate(expression string, into any) {
	p.b.t.Helper()
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	p.must("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out)
	if out.ExceptionDetails != nil {
		p.b.t.Fatalf("%s: %s", expression, out.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(out.Result.Value, into); err != nil {
		p.b.t.Fatalf("%s: %v", expression, err)
	}
}

// Node is what a screen reader has of an element.
type Node struct{ Role, Name string }

// Read returns the page as a screen reader has it, from top to bottom.
func (p *Page) Read() (all []Node) {
	p.b.t.Helper()
	type value struct{ Value any }
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name *value
		}
	}
	p.must("Accessibility.getFullAXTree", nil, &tree)
	for _, n := range tree.Nodes {
		if n.Ignored || n.Role == nil || n.Name == nil {
			continue
		}
		all = append(all, Node{fmt.Sprint(n.Role.Value), fmt.Sprint(n.Name.Value)})
	}
	return all
}

// Screenshot returns the whole page as a PNG.
func (p *Page) Screenshot() []byte {
	p.b.t.Helper()
	var shot struct{ Data string }
	p.must("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.b.t.Fatal(err)
	}
	return png
}

func (p *Page) must(method string, params, into any) {
	p.b.t.Helper()
	p.b.must(p.session, method, params, into)
}

func (b *Browser) must(session, method string, params, into any) {
	b.t.Helper()
	raw, err := b.call(session, method, params)
	if err == nil && into != nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
