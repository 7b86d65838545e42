package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/edge"
)

// Accept headers of clients.
const (
	acceptJSON          = "application/json"
	acceptProtobuf      = "application/vnd.kubernetes.protobuf"
	acceptBoth          = acceptProtobuf + "," + acceptJSON
	acceptMetadata      = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	acceptMetadataList  = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	protobufMetadata    = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	protobufMetadataAll = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// getRequest is a GET that tests/programs/asker sends, many of them concurrently.
type getRequest struct {
	Target string `json:"target"`
	Accept string `json:"accept"`
}

// getResponse is the answer to a request, byte for byte.
type getResponse struct {
	Status  int
	Headers map[string]string
	Body    []byte
	Error   string

	Question       int // index of the request
	Started, Ended time.Time
}

// cached reports whether the answer is from the cache.
func (f getResponse) cached() bool { return f.Headers["Cache-Status"] != "" }

// truncated reports whether the link failed after the answer had begun. The client gets an error
// and can send the request again.
func (f getResponse) truncated() bool { return f.Error != "" }

// duration is the time to the last byte of the answer.
func (f getResponse) duration() time.Duration { return f.Ended.Sub(f.Started) }

// contentType is the Content-Type header.
func (f getResponse) contentType() string { return f.Headers["Content-Type"] }

// isProtobuf reports whether the body is protobuf; otherwise it is JSON.
func (f getResponse) isProtobuf() bool { return strings.HasPrefix(f.contentType(), acceptProtobuf) }

// text is the body, shortened for a message.
func (f getResponse) text() string {
	if len(f.Body) > 1000 {
		return string(f.Body[:1000]) + "…"
	}
	return string(f.Body)
}

// send sends requests to the sidecar from inside the pod, several of them concurrently.
func (p *testPod) send(requests []getRequest) []getResponse { return p.runAsker(requests) }

// sendDirectly sends requests to the API server itself, without the sidecar, from inside the
// pod and with the pod's token.
func (p *testPod) sendDirectly(requests []getRequest) []getResponse {
	return p.runAsker(requests, "-server=https://"+edge.PublicAddress)
}

func (p *testPod) runAsker(requests []getRequest, args ...string) (responses []getResponse) {
	p.site.t.Helper()
	var stdout, stderr bytes.Buffer
	code, err := p.ExecStream(p.site.ctx, "shell", pod.ExecOptions{
		Argv: append([]string{"/asker"}, args...), Stdin: p.stdin(requests), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil || code != 0 {
		p.site.t.Fatalf("asker: %d %v\n%s", code, err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &responses); err != nil || len(responses) != len(requests) {
		p.site.t.Fatalf("asker: %d answers to %d requests, %v", len(responses), len(requests), err)
	}
	return responses
}

// stdin is the input of asker.
func (p *testPod) stdin(requests []getRequest) io.Reader {
	p.site.t.Helper()
	raw, err := json.Marshal(requests)
	if err != nil {
		p.site.t.Fatal(err)
	}
	return bytes.NewReader(raw)
}

// polling sends requests periodically, one by one, as a program that polls.
type polling struct {
	pod    *testPod
	output output
	cancel context.CancelFunc
	ended  chan struct{}
}

// poll starts a polling, and returns after the first answer.
func (p *testPod) poll(every time.Duration, requests ...getRequest) *polling {
	p.site.t.Helper()
	stdin := p.stdin(requests)
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.site.ctx))
	x := &polling{pod: p, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		_, _ = p.ExecStream(ctx, "shell", pod.ExecOptions{ // stop kills it
			Argv: []string{"/asker", "-every=" + every.String()}, Stdin: stdin, Stdout: &x.output, Stderr: &x.output,
		})
	}()
	p.site.t.Cleanup(x.stop)
	x.until("there is an answer", time.Time{}, func(getResponse) bool { return true })
	return x
}

// stop may be called more than once.
func (x *polling) stop() { x.cancel(); <-x.ended }

// responses are the answers so far, in order.
func (x *polling) responses() (responses []getResponse) {
	x.pod.site.t.Helper()
	for line := range strings.Lines(x.output.String()) {
		if !strings.HasSuffix(line, "\n") {
			break // the line is incomplete
		}
		var f getResponse
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			x.pod.site.t.Fatalf("asker: %q", line)
		}
		responses = append(responses, f)
	}
	return responses
}

// until waits for an answer with a property to a request sent at since or later, and returns the
// first.
func (x *polling) until(what string, since time.Time, is func(getResponse) bool) (first getResponse) {
	x.pod.site.t.Helper()
	x.pod.site.until(what, func() bool {
		for _, f := range x.responses() {
			if !f.Started.Before(since) && is(f) {
				first = f
				return true
			}
		}
		return false
	})
	return first
}

// withoutApp leaves only the shell in the pod, so that the cache has only the answers to the test's
// requests.
func withoutApp(p *corev1.Pod) {
	p.Spec.Containers[0].Image, p.Spec.Containers[0].Command = "shell:dev", nil
}
