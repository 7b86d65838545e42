package zoo

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// page is the page that `make zoo UPDATE=true` writes.
const page = "../../docs/clients.md"

func TestThePageOfClientsHasARowForEachProgramOfTheTable(t *testing.T) {
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, p := range Table {
		want = append(want, p.Name)
	}
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(line, "|")
		if len(cells) != 7+len(Stages) {
			continue
		}
		name := strings.TrimSpace(cells[1])
		if name != "program" && strings.Trim(name, "-") != "" {
			got = append(got, name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s has rows for %v, want %v; `make zoo UPDATE=true` writes it", page, got, want)
	}
}

func TestAStageThatFailsAndAProgramThatIsMissingShowInTheTable(t *testing.T) {
	good := Program{Name: "good", Language: "Go", Client: "client-go", Transport: "informer", Function: "works"}
	absent := good
	absent.Name = "absent"
	got := Markdown([]*Result{
		{Program: good, Installed: Installed{Version: "v1"}, Failures: map[string]error{"cut": os.ErrDeadlineExceeded}},
		{Program: absent, Installed: Installed{Skipped: "no such library"}},
	})
	for _, want := range []string{
		"| good | v1 | Go, client-go | informer | works | yes | **no** | yes | yes | yes | yes |\n",
		"| absent | – | Go, client-go | informer | works | skipped | skipped | skipped | skipped | skipped | skipped |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no row %q in\n%s", want, got)
		}
	}
}
