package e2enode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"rockpool.dev/scripts/image/archive"
	"rockpool.dev/tests/bed/node"
)

const (
	rockpoolImage = "rockpool:dev" // as the manifests have it
	programsImage = "programs:dev" // with the test programs
)

// program is the path of a program that writeImages has built.
func program(name string) string { return filepath.Join(node.Directory(), "build", name) }

// writeImages writes the archives that the node imports to directory: Rockpool's image, the image
// of the test programs, and the image that holds a pod's namespaces.
func writeImages(ctx context.Context, directory, rockpool string) error {
	content, err := os.ReadFile(rockpool)
	if err != nil {
		return fmt.Errorf("the image of Rockpool (make image builds it): %w", err)
	}
	if err := os.WriteFile(filepath.Join(directory, "rockpool.tar"), content, 0o644); err != nil {
		return err
	}
	bin := filepath.Join(directory, "build")
	for name, source := range map[string]string{
		"informer": "../programs/informer", "asker": "../programs/asker", "pause": "../programs/pause", "rockpool-injector": "../../injector",
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(bin, name), source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	client := "../programs/python/client.py"
	return errors.Join(
		writeImage(directory, programsImage, "", filepath.Join(bin, "informer"), filepath.Join(bin, "asker"), client),
		writeImage(directory, node.SandboxImage, "65535:65535", filepath.Join(bin, "pause")),
	)
}

// writeImage writes an image with files in its root. The first file is the entrypoint.
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
	file, err := os.Create(filepath.Join(directory, filepath.Base(paths[0])+".tar"))
	if err != nil {
		return err
	}
	_, err = archive.Write(file, image)
	return errors.Join(err, file.Close())
}
