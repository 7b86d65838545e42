package programs

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rockpool.dev/tests/bed/internal/gobuild"
)

// hello is a module that lacks a file which its program embeds.
var hello = map[string]string{
	"go.mod":  "module zoo.example/hello\n\ngo 1.26\n",
	"main.go": "package main\n\nimport _ \"embed\"\n\n//go:embed word\nvar word string\n\nvar version = \"none\"\n\nfunc main() { println(word, version) }\n",
}

// publish makes a module proxy with zoo.example/hello v1.0.0 and lets the go command use only that.
func publish(t *testing.T) {
	t.Helper()
	directory := t.TempDir()
	versions := filepath.Join(directory, "zoo.example/hello/@v")
	if err := os.MkdirAll(versions, 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for name, content := range hello {
		f, err := w.Create("zoo.example/hello@v1.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"v1.0.0.info": `{"Version":"v1.0.0"}`, "v1.0.0.mod": hello["go.mod"], "v1.0.0.zip": archive.String(),
	} {
		if err := os.WriteFile(filepath.Join(versions, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	modules := t.TempDir()
	t.Setenv("GOPROXY", "file://"+directory)
	t.Setenv("GONOSUMDB", "*")
	t.Setenv("GOMODCACHE", modules)
	t.Setenv(gobuild.DirectoryVariable, t.TempDir())
	t.Cleanup(func() {
		// Files of the module cache are read-only.
		_ = exec.Command("chmod", "-R", "u+w", modules).Run()
	})
}

func TestAProgramIsBuiltOnceFromItsModuleAndWhatThatLacks(t *testing.T) {
	publish(t)
	p := Program{
		Name: "hello", Module: "zoo.example/hello", Version: "v1.0.0", Package: ".", Flags: "-X main.version=v1",
		Files:    map[string]string{"word": "draft"},
		Commands: [][]string{{"run", "write.go"}},
	}
	p.Files["write.go"] = "//go:build ignore\n\npackage main\n\nimport \"os\"\n\nfunc main() { os.WriteFile(\"word\", []byte(\"hi\"), 0o644) }\n"
	_, err := p.Build(t.Context(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "has the sum h1:") {
		t.Fatalf("a module without a known sum: %v", err)
	}
	_, sum, _ := strings.Cut(err.Error(), "has the sum ")
	p.Sum, _, _ = strings.Cut(sum, ",")

	path, err := p.Build(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(path).CombinedOutput()
	if got := strings.TrimSpace(string(said)); err != nil || got != "hi v1" {
		t.Errorf("it prints %q, %v, want hi v1", got, err)
	}
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	again, err := p.Build(t.Context(), &progress)
	if err != nil || again != path || progress.Len() > 0 {
		t.Errorf("the second build: %s, %v, %q, want %s and no progress", again, err, &progress, path)
	}
	if second, err := os.Stat(path); err != nil || !second.ModTime().Equal(first.ModTime()) {
		t.Errorf("the executable is of %v, %v, want that of %s", second, err, first.ModTime().Format(time.StampMilli))
	}
	p.Version = "v1.0.1"
	if _, err := p.Build(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "zoo.example/hello v1.0.1") {
		t.Errorf("a version that does not exist: %v", err)
	}
}
