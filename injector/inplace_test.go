package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestInjectOnlyAddsLines checks for shapes of YAML that people and tools write that every line
// stays as it is and where it is, and that uninject gives the same bytes back.
func TestInjectOnlyAddsLines(t *testing.T) {
	const head = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
	long := strings.Repeat("a long line of text that is folded when it is written again as a whole ", 4)
	tests := []struct {
		name, in string
		added    string // at the end, by inject and uninject
	}{
		{"lists on the column of their key", head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\n        image: web:v1\n", ""},
		{"lists indented by hand", head + "spec:\n    template:\n        spec:\n            containers:\n              -   name: web\n                  image: web:v1\n                  args:\n                     - a\n                     - b\n", ""},
		{"an item that begins under its dash", head + "spec:\n  template:\n    spec:\n      containers:\n      -\n        name: web\n        image: web:v1\n", ""},
		{"an empty mapping on its own line", head + "spec:\n  selector:\n    {}\n  template:\n    metadata:\n      labels:\n        {}\n    spec:\n      containers:\n      - name: web\n        resources:\n          {}\n", ""},
		{"an anchor and a merge", head + "x-base: &base\n  image: web:v1\n  imagePullPolicy: Always\nspec:\n  template:\n    spec:\n      containers:\n      - <<: *base\n        name: web\n      - <<: *base\n        name: other\n", ""},
		{"long plain scalars", head + "spec:\n  template:\n    metadata:\n      annotations:\n        text: " + long + "\n        more: " + long + "\n          " + long + "\n    spec:\n      containers:\n      - name: web\n        args: [" + long + "]\n", ""},
		{"literal text at the end", head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\n        command: [sh, -c]\n        args:\n        - |\n          # not a comment\n          run\n\n          more\n        # a comment\n", ""},
		{"folded text with chomping", head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\n        args:\n        - >-\n          one\n          two\n\n\n      # the end\n", ""},
		{"comments everywhere", "# top\n" + head + "spec: # spec\n  template: # template\n    # before spec\n    spec: # spec\n      # before containers\n      containers: # list\n      # before web\n      - name: web # name\n        # before image\n        image: web:v1 # image\n        # after image\n      # after web\n    # after spec\n  # after template\n# after all\n", ""},
		{"blank lines", head + "\nspec:\n\n  template:\n\n    spec:\n\n      containers:\n\n      - name: web\n\n        image: web:v1\n\n\n", ""},
		{"no line break at the end", head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\n        image: web:v1", "\n"},
		{"quoted keys and values", head + "\"spec\":\n  'template':\n    \"spec\":\n      \"containers\":\n      - \"name\": 'web'\n        \"image\": \"web:v1 # no comment\"\n", ""},
		{"Windows line breaks", strings.ReplaceAll(head+"spec:\n  template:\n    spec:\n      containers:\n      - name: web\n        image: web:v1\n", "\n", "\r\n"), ""},
		{"a document between others", "# first\n---\n" + head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\n---\nkind:   Other\n...\n", ""},
		{"letters of several bytes", head + "spec:\n  template:\n    metadata:\n      annotations:\n        größe: \"über # alles\"\n    spec:\n      containers:\n      - name: web # naïve\n        env:\n        - {name: ÄÖ, value: ü}\n", ""},
		{"a List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: a\n  spec:\n    containers:\n    - name: a\n- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: b\n  spec:\n    containers:\n    - name: b\n", ""},
		{"tabs after values", head + "spec:\n  template:\n    spec:\n      containers:\n      - name: web\t\n        image: web:v1\t# tab\n", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out, warnings := injectStream(t, test.in)
			if strings.Contains(warnings, "written again as a whole") {
				t.Fatalf("%s\n%s", warnings, out)
			}
			checkLinesStay(t, test.in, out)
			back, _, err := pipe(t, out, "uninject", "-f", "-")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.in, strings.TrimSuffix(back, test.added)); diff != "" {
				t.Errorf("uninject does not restore the bytes (-before +after):\n%s", diff)
			}
		})
	}
}

func TestInjectOnlyAddsLinesToTheStreams(t *testing.T) {
	for _, name := range []string{"controllers.yaml", "workloads.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata/streams", name))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := injectStream(t, string(text))
		checkLinesStay(t, string(text), out)
	}
}

// checkLinesStay checks that the lines of before are in after, in their order, except for empty
// collections, whose place the additions take.
func checkLinesStay(t *testing.T, before, after string) {
	t.Helper()
	rest := strings.SplitAfter(after, "\n")
	for _, line := range strings.SplitAfter(before, "\n") {
		kept := strings.TrimRight(line, "\r\n")
		found := false
		for i := range rest {
			have := strings.TrimRight(rest[i], "\r\n")
			if found = have == kept && (line == rest[i] || !strings.HasSuffix(line, "\n")); found {
				rest = rest[i+1:]
				break
			}
		}
		if empty := strings.TrimSpace(kept); !found && !strings.HasSuffix(empty, "{}") && !strings.HasSuffix(empty, "[]") {
			t.Fatalf("the line %q is changed or not in its place:\n%s", line, after)
		}
	}
}
