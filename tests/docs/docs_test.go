package docs

import (
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

const longestREADME = 120 // lines

var checkout = os.DirFS("../..")

// pages returns all documents of the checkout, by path.
func pages(t *testing.T) map[string]page {
	t.Helper()
	all := map[string]page{}
	err := fs.WalkDir(checkout, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || name == "dist" || name == "bin") {
			return fs.SkipDir
		}
		if path.Ext(name) != ".md" {
			return nil
		}
		text, err := fs.ReadFile(checkout, name)
		all[name] = parse(string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d documents were found: %q", len(all), slices.Sorted(maps.Keys(all)))
	}
	return all
}

// broken says why a target does not lead anywhere, or "".
func broken(files fs.FS, all map[string]page, from, target string) string {
	link, err := url.Parse(target)
	if err != nil {
		return err.Error()
	}
	if link.Scheme != "" {
		return ""
	}
	to := from
	if link.Path != "" {
		to = path.Join(path.Dir(from), link.Path)
		if _, err := fs.Stat(files, to); err != nil {
			return err.Error()
		}
	}
	if p, found := all[to]; found && link.Fragment != "" && !p.anchors()[link.Fragment] {
		return "no such heading in " + to
	}
	return ""
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	checked := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, target := range all[name].targets() {
			checked++
			if why := broken(checkout, all, name, target); why != "" {
				t.Errorf("%s: the link %s: %s", name, target, why)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d links were found", checked)
	}
}

func TestLinesAreShort(t *testing.T) {
	for name, p := range pages(t) {
		for _, number := range p.long() {
			t.Errorf("%s:%d is longer than %d columns", name, number, columns)
		}
	}
}

func TestTheREADMELeadsToEachPage(t *testing.T) {
	all := pages(t)
	targets := all["README.md"].targets()
	for name := range all {
		if name != "README.md" && (path.Dir(name) == "docs" || path.Dir(name) == ".") && !slices.ContainsFunc(targets, func(target string) bool {
			to, _, _ := strings.Cut(target, "#")
			return to == name
		}) {
			t.Errorf("README.md does not link to %s", name)
		}
	}
	if n := len(all["README.md"].lines) - 1; n > longestREADME {
		t.Errorf("README.md has %d lines, want %d or fewer: move something to docs/", n, longestREADME)
	}
}

func TestAPageIsReadAsGitHubReadsIt(t *testing.T) {
	p := parse("# A `b-c` D: [e](f.md), _g_\n## Twice\n## Twice\n```\n# code [x](gone.md)\n```\n" +
		"<!-- [x](gone.md)\n[y](gone.md) -->\ntext [a](b.md#c) and `[x](gone.md)`\n![picture](p.svg)\n<img src=\"q.png\">\n" +
		"[by reference][r] and [without a definition][lost]\n[r]: r.md\n")
	if got, want := p.targets(), []string{"r.md", "f.md", "b.md#c", "p.svg", "q.png", "][lost]"}; !slices.Equal(got, want) {
		t.Errorf("targets %q, want %q", got, want)
	}
	want := []string{"a-b-c-d-e-_g_", "twice", "twice-1"}
	if got := slices.Sorted(maps.Keys(p.anchors())); !slices.Equal(got, want) {
		t.Errorf("anchors %q, want %q", got, want)
	}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	long := strings.Repeat("long ", 21)
	p := parse("| " + long + "|\n# " + long + "\n" + long + "\n```\n" + long + "\n```\nhttps://" + strings.Repeat("x", 100) + "\n[x]: https://" + strings.Repeat("x", 100) + "\n")
	if got, want := p.long(), []int{3}; !slices.Equal(got, want) {
		t.Errorf("long lines %v, want %v", got, want)
	}
	all := map[string]page{"README.md": parse("# Here\n"), "docs/rbac.md": parse("# There\n")}
	for target, want := range map[string]bool{
		"docs/rbac.md": true, "docs/rbac.md#there": true, "#here": true, "https://example.com/": true, "Makefile": true,
		"docs/gone.md": false, "docs/rbac.md#here": false, "#there": false, "rbac.md": false,
	} {
		if why := broken(checkout, all, "README.md", target); (why == "") != want {
			t.Errorf("%s: %q, want it to lead somewhere: %v", target, why, want)
		}
	}
}
