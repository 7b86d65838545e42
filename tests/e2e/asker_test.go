package e2e

import (
	"bytes"
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed"
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

// inquiry is a GET that tests/programs/asker sends, many at once.
type inquiry struct {
	Method string `json:"method"`
	Target string `json:"target"`
	Accept string `json:"accept"`
}

// finding is what came back, to the byte.
type finding struct {
	Status  int
	Headers map[string]string
	Body    []byte
	Error   string
}

// form is the Content-Type without what only tells of the connection.
func (f finding) form() string { return f.Headers["Content-Type"] }

// isProtobuf tells in which of the two encodings the body is.
func (f finding) isProtobuf() bool { return strings.HasPrefix(f.form(), acceptProtobuf) }

// text is the body for a message.
func (f finding) text() string {
	if len(f.Body) > 1000 {
		return string(f.Body[:1000]) + "…"
	}
	return string(f.Body)
}

// inquire asks the sidecar from inside the pod, several questions at once.
func (p *pod) inquire(inquiries []inquiry) []finding { return p.inquireOf(inquiries) }

// inquireDirectly asks the API server itself, from inside the pod and with the
// pod's token, past the sidecar.
func (p *pod) inquireDirectly(inquiries []inquiry) []finding {
	return p.inquireOf(inquiries, "-server=https://"+bed.DefaultPublicAddress)
}

func (p *pod) inquireOf(inquiries []inquiry, args ...string) (findings []finding) {
	p.site.t.Helper()
	for i := range inquiries {
		inquiries[i].Method = "GET"
	}
	raw, err := json.Marshal(inquiries)
	if err != nil {
		p.site.t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code, err := p.ExecStream(p.site.ctx, "shell", bed.ExecOptions{
		Argv: append([]string{"/asker"}, args...), Stdin: bytes.NewReader(raw), Stdout: &stdout, Stderr: &stderr,
	})
	if err != nil || code != 0 {
		p.site.t.Fatalf("asker: %d %v\n%s", code, err, stderr.String())
	}
	if err := json.Unmarshal(stdout.Bytes(), &findings); err != nil || len(findings) != len(inquiries) {
		p.site.t.Fatalf("asker: %d answers to %d questions, %v", len(findings), len(inquiries), err)
	}
	return findings
}

// withoutApp has the pod run nothing but the shell: what is recorded is only what the test asks for.
func withoutApp(p *corev1.Pod) {
	p.Spec.Containers[0].Image, p.Spec.Containers[0].Command = "shell:dev", nil
}
