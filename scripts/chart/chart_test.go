package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const manifests = "../../manifests"

func TestTheChartIsMadeFromTheManifests(t *testing.T) {
	want, err := files(os.DirFS(manifests))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		got, err := os.ReadFile(filepath.Join(manifests, "helm", name))
		if err != nil {
			t.Error(err)
		} else if diff := cmp.Diff(text, string(got)); diff != "" {
			t.Errorf("%s is not what `make chart` makes (-want +got):\n%s", name, diff)
		}
	}
	present, err := os.ReadDir(filepath.Join(manifests, "helm/templates"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range present {
		if _, made := want["templates/"+e.Name()]; !made && !slices.Contains(byHand, e.Name()) {
			t.Errorf("there is no manifest of the template %s", e.Name())
		}
	}
}

func TestATemplateHasWhatKustomizeAdds(t *testing.T) {
	for name, c := range map[string]struct {
		template   template
		text, want string
	}{
		"a namespaced object gets the namespace and the labels": {
			text: "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels:\n    b: c\nspec:\n  selector:\n    b: c\n",
			want: "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  namespace: {{ .Release.Namespace }}\n  labels:\n" +
				"    app.kubernetes.io/part-of: rockpool\n    app.kubernetes.io/managed-by: {{ .Release.Service }}\n    b: c\nspec:\n  selector:\n    b: c\n",
		},
		"a pod template gets the labels": {
			text: "kind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    metadata:\n      labels:\n        b: c\n",
			want: "kind: Deployment\nmetadata:\n  name: a\n  namespace: {{ .Release.Namespace }}\nspec:\n  template:\n    metadata:\n      labels:\n" +
				"        app.kubernetes.io/part-of: rockpool\n        app.kubernetes.io/managed-by: {{ .Release.Service }}\n        b: c\n",
		},
		"labels that are not of an object stay": {
			text: "kind: ClusterRole\nmetadata:\n  name: a\nspec:\n  rules:\n    - alert: b\n      labels:\n        c: d\n",
			want: "kind: ClusterRole\nmetadata:\n  name: a\nspec:\n  rules:\n    - alert: b\n      labels:\n        c: d\n",
		},
		"the namespace is that of the release": {
			text: "kind: Role\nmetadata:\n  name: a\n  namespace: rockpool-system\n",
			want: "kind: Role\nmetadata:\n  name: a\n  namespace: {{ .Release.Namespace }}\n",
		},
		"what looks like a template is quoted": {
			text: "kind: A\nb: '{{ $value }}'\n", want: "kind: A\nb: '{{ \"{{\" }} $value }}'\n",
		},
		"a condition is around all objects": {
			template: template{when: ".Values.a"},
			text:     "kind: A\n---\nkind: B\n", want: "{{- if .Values.a }}\nkind: A\n---\nkind: B\n{{- end }}\n",
		},
		"an edit may have templates in it": {
			template: template{edits: []edit{{"kind: A", "kind: {{ .Values.a }}"}}},
			text:     "kind: A\n", want: "kind: {{ .Values.a }}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.template.render(c.text)
			if err != nil {
				t.Fatal(err)
			}
			_, got, _ = strings.Cut(got, "\n")
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestAnEditMustFindItsTextOnce(t *testing.T) {
	for name, text := range map[string]string{"not there": "kind: B\n", "there twice": "kind: A\n---\nkind: A\n"} {
		if _, err := (template{edits: []edit{{"kind: A", "kind: C"}}}).render(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWriteRemovesTemplatesWithoutAManifest(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(manifests)); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "helm/templates/stale.yaml")
	if err := os.WriteFile(stale, []byte("kind: A\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("stale.yaml is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "helm/templates/_helpers.tpl")); err != nil {
		t.Error(err)
	}
}
