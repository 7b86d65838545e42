package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"rockpool.dev/injector/settings"
	"rockpool.dev/sidecar/config"
)

// schema is the part of the chart's values.schema.json that depends on the code.
type schema struct {
	Properties struct {
		Settings struct{ Properties map[string]any }
		Flags    struct{ Properties map[string]any }
	}
}

func readSchema(t *testing.T) schema {
	t.Helper()
	text, err := os.ReadFile("../manifests/helm/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Definitions of the schema for settings that are not one of a few words.
var (
	anyText    = map[string]any{"type": "string"}
	wholeOrNot = map[string]any{"type": []any{"string", "integer"}}
	duration   = map[string]any{"$ref": "#/$defs/duration"}
	trueFalse  = map[string]any{"$ref": "#/$defs/boolean"}
)

// oneOf is the schema of one of the words, or none.
func oneOf(words ...string) map[string]any {
	list := []any{""}
	for _, w := range words {
		list = append(list, w)
	}
	return map[string]any{"enum": list}
}

// allowed is the schema of a setting.
func allowed(k settings.Key) map[string]any {
	switch k.Name {
	case "image_pull_policy":
		return oneOf("Always", "IfNotPresent", "Never")
	case "metrics_address":
		return oneOf("loopback", "pod")
	case "cache_volume":
		return oneOf("hostPath", "emptyDir")
	case "api_names":
		return map[string]any{"enum": []any{"", "auto", "true", "false", true, false}}
	case "canary_percent", "default_toleration_seconds", "cpu_request", "cpu_limit", "memory_request", "memory_limit":
		return wholeOrNot
	}
	for _, c := range config.Keys() {
		switch {
		case c.Name != k.Setting:
		case c.Type == "true|false":
			return trueFalse
		case strings.Contains(c.Type, "|"):
			return oneOf(strings.Split(c.Type, "|")...)
		case c.Type == "duration":
			return duration
		case c.Type == "number", c.Type == "size":
			return wholeOrNot
		}
	}
	return anyText
}

func TestTheChartTakesTheSettingsThatTheInjectorKnows(t *testing.T) {
	want := map[string]any{}
	for _, k := range settings.Keys() {
		if k.Name != "upstreams" { // a value of its own
			want[k.Name] = allowed(k)
		}
	}
	if diff := cmp.Diff(want, readSchema(t).Properties.Settings.Properties); diff != "" {
		text, _ := json.MarshalIndent(want, "        ", "  ")
		t.Errorf("settings in values.schema.json (-want +got):\n%s\nThey should be\n%s", diff, text)
	}
}

func TestTheChartTakesFlagsThatTheInjectorHas(t *testing.T) {
	flags := newServeCommand().Flags()
	known := readSchema(t).Properties.Flags.Properties
	if len(known) == 0 {
		t.Fatal("the chart takes no flag")
	}
	for name := range known {
		if flags.Lookup(name) == nil {
			t.Errorf("there is no flag --%s", name)
		}
	}
}
