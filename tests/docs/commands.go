package docs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Commands compares the section of docs/commands.md about a program with the program's own commands
// and flags, or writes it. path is that of the document. A flag that hidden reports is left out,
// because another page has it.
func Commands(t *testing.T, path string, program *cobra.Command, update bool, hidden func(*pflag.Flag) bool) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin := "<!-- " + program.Name() + " begins -->\n"
	end := "<!-- " + program.Name() + " ends -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	has, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no section between %q and %q", path, begin, end)
	}
	want := reference(program, hidden)
	if has == want {
		return
	}
	if !update {
		t.Fatalf("%s differs from the commands of %s. Write it by: go test . -update. It needs\n%s", path, program.Name(), want)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reference is a section for each command that does something.
func reference(program *cobra.Command, hidden func(*pflag.Flag) bool) string {
	var b strings.Builder
	for _, cmd := range program.Commands() {
		if name := cmd.Name(); cmd.Hidden || name == "help" || name == "completion" {
			continue
		}
		if cmd.Runnable() {
			section(&b, cmd, hidden)
		}
		if cmd.HasSubCommands() {
			b.WriteString(reference(cmd, hidden))
		}
	}
	return b.String()
}

func section(b *strings.Builder, cmd *cobra.Command, hidden func(*pflag.Flag) bool) {
	fmt.Fprintf(b, "\n### %s\n\n%s.\n", cmd.CommandPath(), cmd.Short)
	var rows []string
	add := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || hidden(f) {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		name = "`" + strings.TrimSpace(name+" "+kind) + "`"
		value := f.DefValue
		if value == "[]" || value == "false" || value == "0s" {
			value = ""
		}
		if value != "" {
			value = "`" + value + "`"
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", name, value, cell(usage)))
	}
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	if len(rows) > 0 {
		b.WriteString("\n| flag | default | meaning |\n|---|---|---|\n" + strings.Join(rows, ""))
	}
}

// cell is a text in a cell of a table.
func cell(text string) string {
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", `\|`)
	return strings.ReplaceAll(text, "*", `\*`)
}
