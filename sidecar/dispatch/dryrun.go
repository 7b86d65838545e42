package dispatch

import (
	"bytes"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"rockpool.dev/sidecar/api/wire"
)

// answer to a question.
type answer int

const (
	no answer = iota
	yes
	perhaps
)

// onlyTries finds out whether a DELETE is only tried: dryRun has the one value that there is, All.
// The API server reads the options from the body, or from the query if there is no body
// (k8s.io/apiserver, handlers.DeleteResource).
func onlyTries(byQuery bool, b body) answer {
	switch {
	case b.tooLarge:
		return perhaps
	case len(b.bytes) == 0 && byQuery:
		return yes
	case len(b.bytes) == 0:
		return no
	}
	options, ok := readDeleteOptions(b.bytes)
	switch {
	case ok && slices.Contains(options.DryRun, metav1.DryRunAll):
		return yes
	case byQuery: // the API server does not read that, but one of an aggregated API may
		return perhaps
	case ok:
		return no
	// The other encodings have the word in plain letters, unless they have escapes.
	case bytes.Contains(b.bytes, []byte(metav1.DryRunAll)), bytes.ContainsRune(b.bytes, '\\'):
		return perhaps
	}
	return no
}

// readDeleteOptions reads the options of a DELETE in JSON or protobuf. It reports false if they are
// neither.
func readDeleteOptions(raw []byte) (o metav1.DeleteOptions, ok bool) {
	if bare, ok := wire.Protobuf.Bare(raw); ok {
		return o, o.Unmarshal(bare) == nil
	}
	// Unlike the standard library's, this decoder heeds the case of names, as the API server does.
	return o, json.Unmarshal(raw, &o) == nil
}
