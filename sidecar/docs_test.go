package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"rockpool.dev/sidecar/config"
)

func TestTheDocumentationHasEverySetting(t *testing.T) {
	page, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, k := range config.Keys() {
		value := k.Default
		if value != "" {
			value = "`" + value + "`"
		}
		usage := k.Usage
		if k.Runtime {
			usage += " ↻"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", k.Name, strings.ReplaceAll(k.Type, "|", ", "), value, usage)
	}
	if !strings.Contains(string(page), table.String()) {
		t.Fatalf("docs/configuration.md needs this table of settings:\n%s", &table)
	}
}
