package relist

import "rockpool.dev/sidecar/api/request"

// Position is where a watch is: what it reads, for whom, in which form, and up to which
// resourceVersion. All watches at a position have been sent the same state.
type Position struct {
	Principal, Path, LabelSelector, FieldSelector string
	Form                                          request.Form
	Version                                       string
}
