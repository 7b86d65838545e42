package request

import (
	"net/url"
	"slices"
)

// wholeParameters are the parameters of reads with which the answer is still the whole, or a part
// that Info describes. There is no end of other ones: shardSelector of Kubernetes 1.36, export of
// its early versions, and those that an aggregated API has of its own.
var wholeParameters = []string{
	"labelSelector", "fieldSelector", "limit", "continue", // described
	"resourceVersion", "resourceVersionMatch", // described
	"watch", "sendInitialEvents", "allowWatchBookmarks", // described
	"timeoutSeconds", "timeout", // how long the API server may take
	"pretty",        // white space
	"includeObject", // of Tables, which are kept for the identical request in any case
}

// mayNarrow reports whether a parameter may choose a part of the answer in a way that Info does not
// describe. Names are compared as the API server does, by case. Of a repeated parameter the API
// server takes the first value; an aggregated one may take another.
func mayNarrow(query url.Values) bool {
	for name, values := range query {
		another := func(value string) bool { return value != values[0] }
		if !slices.Contains(wholeParameters, name) || slices.ContainsFunc(values, another) {
			return true
		}
	}
	return false
}
