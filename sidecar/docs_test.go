package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/tests/docs"
)

var update = flag.Bool("update", false, "write docs/commands.md instead of comparing with it")

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

func TestTheDocumentationHasEveryCommand(t *testing.T) {
	docs.Commands(t, "../docs/commands.md", command(new(func(context.Context) error)), *update, func(f *pflag.Flag) bool {
		return slices.ContainsFunc(config.Keys(), func(k config.Key) bool { return k.Name == f.Name })
	})
}
