package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/meter"
	"rockpool.dev/sidecar/proxy"
)

func TestARequestIsCountedAsThatOfWhoHasAnswered(t *testing.T) {
	const online, offline = false, true
	for name, c := range map[string]struct {
		offline      bool
		method, path string
		status       int
		err          error
		want         meter.Source
	}{
		"an answer of the API server":          {online, http.MethodGet, "/api/v1/pods", 200, nil, meter.Upstream},
		"an error of the API server":           {online, http.MethodGet, "/api/v1/pods", 500, nil, meter.Upstream},
		"an answer that breaks off":            {online, http.MethodGet, "/api/v1/pods", 200, errors.New("link"), meter.Upstream},
		"an error of the sidecar":              {online, http.MethodGet, "/api/v1/pods", 502, errors.New("link"), meter.Refused},
		"a recorded list":                      {offline, http.MethodGet, "/api/v1/pods", 200, nil, meter.Cache},
		"a recorded absence":                   {offline, http.MethodGet, "/api/v1/namespaces/shop/pods/a", 404, nil, meter.Cache},
		"a recorded review":                    {offline, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, nil, meter.Cache},
		"an Event that is delivered later":     {offline, http.MethodPost, "/api/v1/namespaces/shop/events", 201, nil, meter.Accepted},
		"a list that is not recorded":          {offline, http.MethodGet, "/api/v1/pods", 503, nil, meter.Refused},
		"a token that cannot be verified":      {offline, http.MethodGet, "/api/v1/pods", 401, nil, meter.Refused},
		"a program that left before an answer": {offline, http.MethodGet, "/api/v1/pods", 0, nil, meter.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			info := request.Parse(httptest.NewRequest(c.method, c.path, nil))
			if got := sourceOf(c.offline, &proxy.Exchange{Status: c.status, Err: c.err}, &info); got != c.want {
				t.Errorf("source %s, want %s", got, c.want)
			}
		})
	}
}
