package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// program is an ELF file without code: run reads only the headers.
func program(machine elf.Machine, kind elf.Type, segments ...elf.ProgType) []byte {
	var text bytes.Buffer
	header := elf.Header64{
		Type: uint16(kind), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(segments)),
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	binary.Write(&text, binary.LittleEndian, header)
	for _, s := range segments {
		binary.Write(&text, binary.LittleEndian, elf.Prog64{Type: uint32(s)})
	}
	return text.Bytes()
}

func writeFile(t *testing.T, directory, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(directory, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func environment(epoch string) func(string) string {
	return func(name string) string {
		if name == "SOURCE_DATE_EPOCH" {
			return epoch
		}
		return ""
	}
}

func TestTheImageRunsTheSidecarAsAnUnprivilegedUser(t *testing.T) {
	directory := t.TempDir()
	static := program(elf.EM_X86_64, elf.ET_EXEC, elf.PT_LOAD)
	sidecar, injector := writeFile(t, directory, "rockpool-sidecar", static), writeFile(t, directory, "rockpool-injector", static)
	output := filepath.Join(directory, "image.tar")
	written := func(epoch string) []byte {
		t.Helper()
		var printed bytes.Buffer
		err := run([]string{"--name=rockpool:test", "--version=v1", "--revision=abc", "--output=" + output, sidecar, injector}, environment(epoch), &printed)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(printed.String(), output+": rockpool:test linux/amd64, 0.0 MiB compressed, ") {
			t.Errorf("output %q", &printed)
		}
		text, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first := written("1700000000")
	if !bytes.Equal(first, written("1700000000")) {
		t.Error("a second run gives other bytes")
	}
	if bytes.Equal(first, written("")) {
		t.Error("SOURCE_DATE_EPOCH changes nothing")
	}
	if left, _ := filepath.Glob(filepath.Join(directory, ".*")); len(left) != 0 {
		t.Errorf("temporary files remain: %q", left)
	}

	var config struct{ Config map[string]any }
	in := tar.NewReader(bytes.NewReader(first))
	for {
		_, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(in)
		if bytes.Contains(text, []byte(`"rootfs"`)) {
			if err := json.Unmarshal(text, &config); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]any{
		"User":       "65532:65532",
		"Entrypoint": []any{"/rockpool-sidecar"},
		"Labels": map[string]any{
			"org.opencontainers.image.title":       "Rockpool",
			"org.opencontainers.image.description": "Keeps the Kubernetes API for a pod when the link to the cloud goes out",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     "v1",
			"org.opencontainers.image.revision":    "abc",
			"org.opencontainers.image.created":     "2023-11-14T22:13:20Z",
		},
	}
	if diff := cmp.Diff(want, config.Config); diff != "" {
		t.Error(diff)
	}
}

// The Dockerfile repeats the configuration of the image.
func TestTheDockerfileBuildsTheSameImage(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	image, err := build(options{version: "$VERSION", programs: []string{
		writeFile(t, directory, "rockpool-sidecar", program(elf.EM_NONE, elf.ET_EXEC)), writeFile(t, directory, "rockpool-injector", program(elf.EM_NONE, elf.ET_EXEC)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"USER " + image.Config.User, `ENTRYPOINT ["` + image.Config.Entrypoint[0] + `"]`, "COPY --from=build /out/rockpool-sidecar /out/rockpool-injector /\n"}
	for key, value := range image.Config.Labels {
		want = append(want, key+`="`+value+`"`)
	}
	for _, line := range want {
		if !strings.Contains(string(text), line) {
			t.Errorf("the Dockerfile has no %s", line)
		}
	}
}

func TestErrorsNameTheMistake(t *testing.T) {
	directory := t.TempDir()
	good := writeFile(t, directory, "good", program(elf.EM_X86_64, elf.ET_EXEC, elf.PT_LOAD))
	output := writeFile(t, directory, "image.tar", []byte("what was there"))
	tests := map[string]struct {
		args  []string
		epoch string
		want  string
	}{
		"no output":            {args: []string{good}, want: "--output: required"},
		"no program":           {args: []string{"--output", output}, want: "no programs"},
		"an unknown flag":      {args: []string{"--tag=dev"}, want: "flag provided but not defined: -tag"},
		"an unknown platform":  {args: []string{"--platform=linux/mips", "--output", output, good}, want: `--platform: platform "linux/mips": is not one of linux/amd64, linux/arm64, linux/arm/v7`},
		"a bad name":           {args: []string{"--name=Rock:dev", "--output", output, good}, want: `name "Rock:dev"`},
		"not a time":           {args: []string{"--output", output, good}, epoch: "now", want: `SOURCE_DATE_EPOCH="now": is not a number`},
		"a time before 1970":   {args: []string{"--output", output, good}, epoch: "-1", want: "SOURCE_DATE_EPOCH"},
		"no such program":      {args: []string{"--output", output, good + "x"}, want: good + "x: no such file"},
		"a script":             {args: []string{"--output", output, writeFile(t, directory, "script", []byte("#!/bin/sh\n"))}, want: "script: is not a Linux program"},
		"another architecture": {args: []string{"--platform=linux/arm64", "--output", output, good}, want: "good: is for EM_X86_64, not for linux/arm64"},
		"a dynamic program":    {args: []string{"--output", output, writeFile(t, directory, "dynamic", program(elf.EM_X86_64, elf.ET_DYN, elf.PT_INTERP))}, want: "dynamic: is linked dynamically"},
		"an object file":       {args: []string{"--output", output, writeFile(t, directory, "object", program(elf.EM_X86_64, elf.ET_REL))}, want: "object: is not a program but ET_REL"},
		"one name twice":       {args: []string{"--output", output, good, good}, want: "/good: more than one file"},
		"no such directory":    {args: []string{"--output", directory + "/nowhere/image.tar", good}, want: "nowhere"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := run(test.args, environment(test.epoch), io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if text, err := os.ReadFile(output); err != nil || string(text) != "what was there" {
				t.Errorf("the existing tar is now %q, %v", text, err)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(directory, ".*")); len(left) != 0 {
		t.Errorf("temporary files remain: %q", left)
	}
}
