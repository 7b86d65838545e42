// Command image writes a container image with static programs and no other files, as a tar for
// containerd, docker or kind. It needs no container engine. `make image` calls it.
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"rockpool.dev/scripts/image/archive"
)

// user is a number, because the kubelet checks runAsNonRoot, and the image has no /etc/passwd.
const user = "65532:65532"

func main() {
	if err := run(os.Args[1:], os.Getenv, os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

type options struct {
	name, version, revision, output string
	platform                        archive.Platform
	created                         time.Time
	programs                        []string
}

func run(args []string, getenv func(string) string, out io.Writer) error {
	o, err := parse(args, getenv)
	if err != nil {
		return err
	}
	image, err := build(o)
	if err != nil {
		return err
	}
	summary, err := write(o.output, image)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %s %s, %.1f MiB compressed, %.1f MiB unpacked, id %s\n",
		o.output, image.Name, image.Platform, mebibytes(summary.Compressed), mebibytes(summary.Unpacked), summary.ID)
	return nil
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

func parse(args []string, getenv func(string) string) (options, error) {
	var o options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&o.name, "name", "rockpool:dev", "name and tag of the image")
	platform := flags.String("platform", "linux/amd64", "platform of the programs: linux/amd64, linux/arm64 or linux/arm/v7")
	flags.StringVar(&o.version, "version", "dev", "version of the programs, for the label")
	flags.StringVar(&o.revision, "revision", "", "commit of the source, for the label")
	flags.StringVar(&o.output, "output", "", "the tar to write")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: image --output FILE.tar [flags] PROGRAM...\n\n"+
			"Each program is put into the root of the image under its own name. The first is the entrypoint.\n"+
			"SOURCE_DATE_EPOCH is the time of the image and its files, in seconds since 1970 (default 0).")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.platform, err = archive.ParsePlatform(*platform); err != nil {
		return o, fmt.Errorf("--platform: %w", err)
	}
	if o.output == "" {
		return o, errors.New("--output: required, the tar to write")
	}
	if o.programs = flags.Args(); len(o.programs) == 0 {
		return o, errors.New("no programs: pass those to put into the image")
	}
	if epoch := getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseUint(epoch, 10, 33) // the limit of tar
		if err != nil {
			return o, fmt.Errorf("SOURCE_DATE_EPOCH=%q: is not a number of seconds since 1970", epoch)
		}
		o.created = time.Unix(int64(seconds), 0)
	}
	return o, nil
}

func build(o options) (archive.Image, error) {
	image := archive.Image{Name: o.name, Platform: o.platform, Created: o.created}
	for _, program := range o.programs {
		content, err := os.ReadFile(program)
		if err != nil {
			return image, err
		}
		if err := static(content, o.platform); err != nil {
			return image, fmt.Errorf("%s: %w", program, err)
		}
		image.Files = append(image.Files, archive.File{Path: "/" + filepath.Base(program), Mode: 0o755, Content: content})
	}
	image.Config = archive.Config{
		User:       user,
		Entrypoint: []string{image.Files[0].Path},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "Rockpool",
			"org.opencontainers.image.description": "Keeps the Kubernetes API for a pod when the link to the cloud goes out",
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.version":     o.version,
		},
	}
	if o.revision != "" {
		image.Config.Labels["org.opencontainers.image.revision"] = o.revision
	}
	if !o.created.IsZero() {
		image.Config.Labels["org.opencontainers.image.created"] = o.created.UTC().Format(time.RFC3339)
	}
	return image, nil
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "arm": elf.EM_ARM}

// static returns an error for a program that cannot run in an image without libraries.
func static(program []byte, platform archive.Platform) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("is not a Linux program: %w", err)
	}
	if want := machines[platform.Architecture]; file.Machine != want {
		return fmt.Errorf("is for %s, not for %s", file.Machine, platform)
	}
	if file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return fmt.Errorf("is not a program but %s", file.Type)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("is linked dynamically, and the image has no libraries")
		}
	}
	return nil
}

// write writes the tar in one step: an error leaves an existing file as it was.
func write(output string, image archive.Image) (archive.Summary, error) {
	file, err := os.CreateTemp(filepath.Dir(output), "."+filepath.Base(output)+".*")
	if err != nil {
		return archive.Summary{}, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	summary, err := archive.Write(file, image)
	if err != nil {
		return summary, err
	}
	if err := errors.Join(file.Chmod(0o644), file.Close()); err != nil {
		return summary, err
	}
	return summary, os.Rename(file.Name(), output)
}
