// Package origin tells the API server's answers from those of something on the way to it, such as
// a gateway or a captive portal. Their answers may have a trusted certificate and any status. They
// pass to the client, but they say nothing about the cluster.
package origin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// AuditID is a header that kube-apiserver sends with each answer, also when it writes no audit log
// (https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/).
const AuditID = "Audit-Id"

// MaxPeek is how much of a body is read, in bytes, to decide. Kind and apiVersion are the first
// fields of nearly every answer.
const MaxPeek = 4 << 10

// ErrForeign says that an answer is not the API server's.
var ErrForeign = errors.New("something on the way to the API server answered in its place")

// Answer is what is known of an answer so far.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte // its beginning
	Complete bool   // Body is the whole body
}

// Verdict says whose answer it is.
type Verdict int

// The verdicts.
const (
	// Undecided: more of the body may tell.
	Undecided Verdict = iota
	// APIServer: the answer has an Audit-Id, or its body is an object or an event of the API.
	APIServer
	// Foreign: something else has answered.
	Foreign
)

// Verdict decides. Once it is not Undecided, more of the body does not change it.
func (a Answer) Verdict() Verdict {
	switch a.Status {
	case http.StatusProxyAuthRequired, http.StatusNetworkAuthenticationRequired:
		return Foreign // no origin server sends these (RFC 9110 §15.5.8, RFC 6585 §6)
	}
	if a.Header.Get(AuditID) != "" {
		return APIServer
	}
	if a.Status < http.StatusOK || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		return Foreign // it has no body that could tell
	}
	verdict := ofBody(a.Body[:min(len(a.Body), MaxPeek)])
	if verdict == Undecided && (a.Complete || len(a.Body) >= MaxPeek) {
		return Foreign
	}
	return verdict
}

// protobufMagic begins each object in protobuf
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding-idl).
var protobufMagic = []byte("k8s\x00")

func ofBody(body []byte) Verdict {
	text := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(text) == 0:
		return Undecided
	case text[0] == '{':
		return ofJSON(text)
	case body[0] == 0:
		return ofFrame(body)
	}
	return hasMagic(body)
}

// hasMagic decides about an object in protobuf.
func hasMagic(object []byte) Verdict {
	switch {
	case bytes.HasPrefix(object, protobufMagic):
		return APIServer
	case bytes.HasPrefix(protobufMagic, object):
		return Undecided
	}
	return Foreign
}

// eventTypes are the types of watch events (metav1.WatchEvent).
var eventTypes = []string{"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"}

// maxEventType is the length of the longest type, in bytes.
const maxEventType = 8

// Field numbers of metav1.WatchEvent, and of the runtime.RawExtension in it.
const (
	eventType    = 1
	eventObject  = 2
	extensionRaw = 1
)

// ofFrame decides about a watch in protobuf: the length of a frame in four bytes, and an event.
// The first byte is 0, because no frame has 16 MiB.
func ofFrame(body []byte) Verdict {
	size, rest, verdict := field(body[min(len(body), 4):], eventType)
	switch {
	case verdict != APIServer:
		return verdict
	case size > maxEventType:
		return Foreign
	case uint64(len(rest)) < size:
		return Undecided
	case !slices.Contains(eventTypes, string(rest[:size])):
		return Foreign
	}
	rest = rest[size:]
	for _, number := range []protowire.Number{eventObject, extensionRaw} {
		if _, rest, verdict = field(rest, number); verdict != APIServer {
			return verdict
		}
	}
	return hasMagic(rest)
}

// field reads the tag and the size of a length-delimited field. The verdict is APIServer if it is
// the field with this number.
func field(message []byte, number protowire.Number) (size uint64, contents []byte, verdict Verdict) {
	got, kind, n := protowire.ConsumeTag(message)
	if n < 0 {
		return 0, nil, unlessCut(protowire.ParseError(n))
	}
	if got != number || kind != protowire.BytesType {
		return 0, nil, Foreign
	}
	size, m := protowire.ConsumeVarint(message[n:])
	if m < 0 {
		return 0, nil, unlessCut(protowire.ParseError(m))
	}
	return size, message[n+m:], APIServer
}

// ofJSON decides about a body that begins with a brace.
func ofJSON(body []byte) Verdict {
	d := json.NewDecoder(bytes.NewReader(body))
	if _, err := d.Token(); err != nil {
		return unlessCut(err)
	}
	return ofObject(d, true)
}

// An object of the API has a kind and an apiVersion such as v1 or apps/v1beta1. Other APIs have
// fields of these names, too.
var (
	kinds       = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
	apiVersions = regexp.MustCompile(`^([a-z0-9.-]+/)?v[0-9]+((alpha|beta)[0-9]+)?$`)
)

// ofObject decides about the rest of an object after its brace. It may be a frame of a watch.
func ofObject(d *json.Decoder, frame bool) Verdict {
	var hasKind, hasAPIVersion, isEvent bool
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return unlessCut(err)
		}
		if key == "object" && frame && isEvent {
			if brace, err := d.Token(); err != nil || brace != json.Delim('{') {
				return unlessCut(err)
			}
			return ofObject(d, false)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return unlessCut(err)
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			continue
		}
		switch key {
		case "kind":
			hasKind = kinds.MatchString(text)
		case "apiVersion":
			hasAPIVersion = apiVersions.MatchString(text)
		case "type":
			isEvent = slices.Contains(eventTypes, text)
		}
		if hasKind && hasAPIVersion {
			return APIServer
		}
	}
	_, err := d.Token() // of the closing brace
	return unlessCut(err)
}

// unlessCut is Foreign unless the body so far ends too early to tell.
func unlessCut(err error) Verdict {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Undecided
	}
	return Foreign
}
