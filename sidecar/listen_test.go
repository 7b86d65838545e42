package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"rockpool.dev/sidecar/config"
)

// A server of the pod may have the port, on this address or on all.
func TestATakenServicePortIsLoggedAndLeftOut(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		t.Run(host, func(t *testing.T) {
			server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", host+":0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			_, port, _ := net.SplitHostPort(server.Addr().String())
			core, logs := observer.New(zap.InfoLevel)
			cfg := config.Config{Listen: config.Listen{Address: "127.0.0.1:0", ServiceAddress: "127.0.0.1:" + port}}
			l, err := listen(t.Context(), cfg, zap.New(core))
			if err != nil {
				t.Fatal(err)
			}
			defer l.close()
			if l.api == nil || l.service != nil {
				t.Errorf("%+v, want the API's listener and no other", l)
			}
			if logs.Len() != 1 || !strings.Contains(logs.All()[0].Message, "listen.service-address") {
				t.Errorf("logged %v", logs.All())
			}
		})
	}
}

// Each client writes a boolean in its own way, such as Python's True.
func TestWhichRequestsAreStreams(t *testing.T) {
	const log = "/api/v1/namespaces/shop/pods/web/log"
	for target, want := range map[string]bool{
		log: false, log + "?follow=true": true, log + "?follow=True": true, log + "?follow=1": true, log + "?tailLines=5&follow": true,
		log + "?follow=false": false, log + "?follow=False": false, log + "?follow=0": false, log + "?tailLines=5": false,
		"/api/v1/pods?watch=True": true, "/api/v1/pods?watch=0": false, "/api/v1/watch/pods": true, "/api/v1/pods?labelSelector=follow": false,
	} {
		if got := isStream(httptest.NewRequest(http.MethodGet, target, nil)); got != want {
			t.Errorf("%s: %t", target, got)
		}
	}
}
