package zoo

import (
	"fmt"
	"strings"
	"time"
)

// Markdown is the table of the results, for docs/clients.md.
func Markdown(results []*Result) string {
	text := row(append([]string{"program", "version", "language, client", "follows changes by", "function"}, Stages...)...)
	text += "|" + strings.Repeat("---|", 5+len(Stages)) + "\n"
	for _, r := range results {
		cells := []string{r.Name, r.Version, r.Language + ", " + r.Client, r.Transport, r.Function}
		if r.Skipped != "" {
			cells[1] = "–"
		}
		for _, stage := range Stages {
			cells = append(cells, r.cell(stage))
		}
		text += row(cells...)
	}
	return text
}

// cell is the word for a stage.
func (r *Result) cell(stage string) string {
	switch {
	case r.Skipped != "":
		return "skipped"
	case r.Failures[stage] != nil:
		return "**no**"
	}
	return "yes"
}

func row(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

// Document is the content of docs/clients.md.
func Document(results []*Result, at time.Time, kubernetes, rockpool string) string {
	notes := ""
	for _, r := range results {
		if r.Note != "" {
			notes += fmt.Sprintf("\n%s: %s\n", r.Name, r.Note)
		}
		if r.Skipped != "" {
			reason, _, _ := strings.Cut(r.Skipped, "\n")
			notes += fmt.Sprintf("\n%s was skipped: %s.\n", r.Name, strings.TrimSuffix(reason, "."))
		}
	}
	return fmt.Sprintf(document, at.UTC().Format(time.DateOnly), rockpool, kubernetes, Markdown(results), notes)
}

const document = `<!-- Written by: make zoo UPDATE=true -->
# Clients

Programs and client libraries of other projects, in injected pods on a real node: %s,
Rockpool %s, Kubernetes %s.

Each program must show its own function in six stages. "yes" means that the program did so after the
stage began, with the right state of the objects, and did not end by itself.

- **online**: it shows the objects as they are.
- **cut**: the link to the API server is cut; it still shows them.
- **program restarted**: the program is killed while the link is down, and shows them again.
- **sidecar restarted**: the sidecar is killed, and then the program again.
- **changed in the cloud**: the objects change in the cloud; the program still shows the last state
  that the node has seen.
- **back**: the link is back; the program shows the changed objects, without a restart.

%s%s
` + "`make zoo` runs them again, and `make test-node` the quick ones." + `
`
