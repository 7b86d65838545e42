// Command chart makes the templates of the Helm chart in manifests/helm from the manifests for
// kustomize, so that both have one source. tests/helm compares the output of both.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// byHand are the templates that this command does not write.
var byHand = []string{"NOTES.txt", "_helpers.tpl", "configmap.yaml"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart DIRECTORY    (the manifests; the chart is in helm/ below it)")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// files returns the content of the chart's files that are made from manifests, by their path in the
// chart.
func files(manifests fs.FS) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range templates {
		source, err := fs.ReadFile(manifests, t.from)
		if err != nil {
			return nil, err
		}
		if out["templates/"+t.name], err = t.render(string(source)); err != nil {
			return nil, err
		}
	}
	dashboard, err := fs.ReadFile(manifests, "monitoring/dashboard.json")
	out["dashboard.json"] = string(dashboard)
	return out, err
}

// write writes the chart below the manifests, and removes templates whose manifests are gone.
func write(manifests string) error {
	content, err := files(os.DirFS(manifests))
	if err != nil {
		return err
	}
	chart := filepath.Join(manifests, "helm")
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(chart, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join(chart, "templates"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, made := content["templates/"+e.Name()]; !made && !slices.Contains(byHand, e.Name()) {
			if err := os.Remove(filepath.Join(chart, "templates", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
