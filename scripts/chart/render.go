package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// namespace is the namespace in the manifests. Templates have that of the release.
const namespace = "rockpool-system"

const releaseNamespace = "{{ .Release.Namespace }}"

// template says how a template of the chart is made from a manifest.
type template struct {
	from  string // path of the manifest
	name  string // name of the template
	when  string // condition under which the chart has these objects; "" = always
	edits []edit
}

// edit replaces a text that is in the manifest exactly once.
type edit struct{ old, new string }

// namespaced are the kinds in the manifests to which kustomize adds the namespace.
var namespaced = []string{"ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "PodMonitor", "PrometheusRule"}

var (
	kindLine  = regexp.MustCompile(`(?m)^kind: (\w+)$`)
	nameLine  = regexp.MustCompile(`(?m)^  name: .+\n`)
	labelLine = regexp.MustCompile(`(?m)^((?:    metadata:\n    )?  )labels:\n`)
)

// render converts the text of a manifest: what Helm would take for a template is quoted, and the
// edits, the namespace and the labels that kustomize adds are in it.
func (t template) render(source string) (string, error) {
	text := strings.ReplaceAll(source, "{{", `{{ "{{" }}`)
	text = strings.ReplaceAll(text, namespace, releaseNamespace)
	for _, e := range t.edits {
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s has this text %d times, and it must be there once, because scripts/chart/edits.go replaces it:\n%s", t.from, n, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	documents := strings.Split(text, "\n---\n")
	for i, d := range documents {
		d = labelLine.ReplaceAllStringFunc(d, labelled)
		if slices.Contains(namespaced, kindOf(d)) && !strings.Contains(d, "\n  namespace: ") {
			at := nameLine.FindStringIndex(d)
			if at == nil {
				return "", fmt.Errorf("%s: a %s has no name", t.from, kindOf(d))
			}
			d = d[:at[1]] + "  namespace: " + releaseNamespace + "\n" + d[at[1]:]
		}
		documents[i] = d
	}
	text = strings.Join(documents, "\n---\n")
	if t.when != "" {
		text = "{{- if " + t.when + " }}\n" + text + "{{- end }}\n"
	}
	return "{{- /* Made from manifests/" + t.from + " by `make chart`: change that. */ -}}\n" + text, nil
}

func kindOf(document string) string {
	if m := kindLine.FindStringSubmatch(document); m != nil {
		return m[1]
	}
	return ""
}

// labelled adds the labels that kustomize gives to all objects and pod templates, at the indentation
// of the others.
func labelled(line string) string {
	indent := strings.Repeat(" ", len(line)-len(strings.TrimLeft(line, " "))+2)
	if strings.HasPrefix(line, "    metadata:") {
		indent = strings.Repeat(" ", 8)
	}
	return line + indent + "app.kubernetes.io/part-of: rockpool\n" +
		indent + "app.kubernetes.io/managed-by: {{ .Release.Service }}\n"
}
