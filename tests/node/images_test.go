package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"rockpool.dev/scripts/image/archive"
	"rockpool.dev/tests/bed/node"
)

// Images on the node besides the sandbox's.
const (
	rockpoolImage = "rockpool:dev"
	programsImage = "programs:dev"
)

// writeImages builds Rockpool and the test programs, static, into archives that a node imports.
func writeImages(ctx context.Context, directory string) error {
	fmt.Fprintln(os.Stderr, "tests/node: building the images")
	bin := filepath.Join(directory, "build")
	static := []string{"-trimpath", "-tags", "netgo,osusergo,sqlite_omit_load_extension", "-ldflags", "-s -w -linkmode external -extldflags '-static'"}
	for _, program := range []struct {
		pkg  string
		cgo  string
		args []string
	}{
		{"./sidecar", "1", static}, // SQLite is C
		{"./injector", "0", nil},
		{"./tests/programs/informer", "0", nil},
		{"./tests/programs/asker", "0", nil},
		{"./tests/programs/pause", "0", nil},
	} {
		name := filepath.Base(program.pkg)
		if filepath.Dir(program.pkg) == "." {
			name = "rockpool-" + name
		}
		args := append([]string{"build", "-o", filepath.Join(bin, name)}, append(program.args, program.pkg)...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED="+program.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program.pkg, err, out)
		}
	}
	client := "../programs/python/client.py"
	return errors.Join(
		writeImage(directory, rockpoolImage, "65532:65532", filepath.Join(bin, "rockpool-sidecar"), filepath.Join(bin, "rockpool-injector")),
		writeImage(directory, programsImage, "", filepath.Join(bin, "informer"), filepath.Join(bin, "asker"), client),
		writeImage(directory, node.SandboxImage, "65535:65535", filepath.Join(bin, "pause")),
	)
}

// writeImage writes an image with files in its root, the first of which is the entrypoint.
func writeImage(directory, name, user string, paths ...string) error {
	image := archive.Image{
		Name: name, Platform: archive.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config: archive.Config{User: user, Entrypoint: []string{"/" + filepath.Base(paths[0])}},
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		image.Files = append(image.Files, archive.File{Path: "/" + filepath.Base(path), Mode: 0o755, Content: content})
	}
	file, err := os.Create(filepath.Join(directory, image.Name[:len(image.Name)-len(":dev")]+".tar"))
	if err != nil {
		return err
	}
	_, err = archive.Write(io.Writer(file), image)
	return errors.Join(err, file.Close())
}
