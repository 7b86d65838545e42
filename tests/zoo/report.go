package zoo

import (
	"fmt"
	"strings"
	"time"
)

// Markdown is the table of the results, for docs/clients.md.
func Markdown(results []*Result) string {
	text := row(append([]string{"program", "version", "language, client", "follows changes by"}, Stages...)...)
	text += "|" + strings.Repeat("---|", 4+len(Stages)) + "\n"
	for _, r := range results {
		cells := []string{r.Name, r.Version, r.Language + ", " + r.Client, r.Transport}
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
	skipped := ""
	for _, r := range results {
		if r.Skipped != "" {
			reason, _, _ := strings.Cut(r.Skipped, "\n")
			skipped += fmt.Sprintf("\n%s was skipped: %s.\n", r.Name, strings.TrimSuffix(reason, "."))
		}
	}
	return fmt.Sprintf(document, at.UTC().Format(time.DateOnly), rockpool, kubernetes, Markdown(results), skipped)
}

const document = `<!-- Written by: make zoo UPDATE=true -->
# Clients

Real programs, unmodified, in injected pods on a real node. %s, Rockpool %s, Kubernetes %s.

Each program is asked in its own function in six stages: CoreDNS must resolve a name, Prometheus
must scrape a target, Traefik must route a request, and so on. "yes" means that the program showed
the right state after the stage began, and did not end by itself.

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
