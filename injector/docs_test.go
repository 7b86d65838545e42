package main

import (
	"testing"

	"github.com/spf13/pflag"

	"rockpool.dev/tests/docs"
)

func TestTheDocumentationHasEveryCommand(t *testing.T) {
	docs.Commands(t, "../docs/commands.md", newCommand(), *update, func(*pflag.Flag) bool { return false })
}
