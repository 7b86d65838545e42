package zoo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"rockpool.dev/tests/bed/cluster"
	"rockpool.dev/tests/bed/programs"
)

// installedFile passes what Install has done to the process in the node's namespaces.
const installedFile = "zoo.json"

// Install builds or finds the programs, only the quick ones unless all is true, and writes the
// result to directory for Run. It writes progress to w.
func Install(ctx context.Context, directory string, all bool, w io.Writer) error {
	done := map[string]Installed{}
	for _, p := range Table {
		if !p.Quick && !all {
			continue
		}
		i, err := p.source(ctx, directory, w)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			i = Installed{Skipped: err.Error()}
			fmt.Fprintf(w, "\n****\n**** ZOO: %s IS SKIPPED: %v\n****\n\n", p.Name, err)
		}
		done[p.Name] = i
	}
	content, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, installedFile), content, 0o644)
}

// installed reads the result of Install.
func installed(directory string) (map[string]Installed, error) {
	content, err := os.ReadFile(filepath.Join(directory, installedFile))
	if err != nil {
		return nil, err
	}
	var done map[string]Installed
	return done, json.Unmarshal(content, &done)
}

// module is a program that is built from its Go module.
func module(p programs.Program) source {
	return func(ctx context.Context, _ string, w io.Writer) (Installed, error) {
		path, err := p.Build(ctx, w)
		return Installed{Version: p.Version, Path: path}, err
	}
}

// follower is tests/programs/follower with the client-go of a module file in its directory.
func follower(modfile string) source {
	return func(ctx context.Context, directory string, w io.Writer) (Installed, error) {
		modfile := filepath.Join("tests/programs/follower", modfile)
		root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "rockpool.dev"))
		if err != nil {
			return Installed{}, err
		}
		list := exec.CommandContext(ctx, "go", "list", "-modfile="+modfile, "-m", "-f", "{{.Version}}", "k8s.io/client-go")
		list.Dir = root
		version, err := output(list)
		if err != nil {
			return Installed{}, err
		}
		path := filepath.Join(directory, "followers", "follower-"+version)
		fmt.Fprintf(w, "zoo: building a program with client-go %s\n", version)
		build := exec.CommandContext(ctx, "go", "build", "-modfile="+modfile, "-trimpath", "-o", path, "./tests/programs/follower")
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		_, err = output(build)
		return Installed{Version: version, Path: path}, err
	}
}

// kubectl is the kubectl of the tests' control plane.
func kubectl(ctx context.Context, _ string, w io.Writer) (Installed, error) {
	tools, err := cluster.FindTools(ctx, w)
	if err != nil {
		return Installed{}, err
	}
	path, err := filepath.EvalSymlinks(tools.Kubectl)
	if err != nil {
		return Installed{}, err
	}
	text, err := output(exec.CommandContext(ctx, path, "version", "--client", "-o", "json"))
	if err != nil {
		return Installed{}, err
	}
	var got struct {
		ClientVersion struct{ GitVersion string } `json:"clientVersion"`
	}
	err = json.Unmarshal([]byte(text), &got)
	return Installed{Version: got.ClientVersion.GitVersion, Path: path}, err
}

// debian is a program of this machine with a library. ask are arguments with which it prints the
// library's version.
func debian(name, packages string, ask ...string) source {
	return func(ctx context.Context, _ string, _ io.Writer) (Installed, error) {
		missing := func(err error) error {
			return fmt.Errorf("%w; on Debian or Ubuntu: apt-get install %s", err, packages)
		}
		// The one of the distribution: pods do not see others, such as those of pyenv.
		path, err := filepath.EvalSymlinks(filepath.Join("/usr/bin", name))
		if err != nil {
			return Installed{}, missing(err)
		}
		if !strings.HasPrefix(path, "/usr/") {
			return Installed{}, missing(fmt.Errorf("%s is not below /usr, which pods see", path))
		}
		version, err := output(exec.CommandContext(ctx, path, ask...))
		if err != nil {
			return Installed{}, missing(err)
		}
		version, _, _ = strings.Cut(version, "\n")
		return Installed{Version: version, Path: path}, nil
	}
}

// nodeProgram is the Node.js that pods see.
const nodeProgram = "/usr/bin/node"

// npm is the program in scripts/node with its packages, as its lock file says. No script of a
// package is run.
func npm(ctx context.Context, directory string, w io.Writer) (Installed, error) {
	if _, err := os.Stat(nodeProgram); err != nil {
		return Installed{}, fmt.Errorf("%w; on Debian or Ubuntu: apt-get install nodejs npm", err)
	}
	target := filepath.Join(directory, "node-program")
	files, err := fs.Sub(nodeScript, "scripts/node")
	if err != nil {
		return Installed{}, err
	}
	if err := os.CopyFS(target, files); err != nil {
		return Installed{}, err
	}
	fmt.Fprintln(w, "zoo: installing packages with npm")
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = target
	if _, err := output(install); err != nil {
		return Installed{}, err
	}
	content, err := os.ReadFile(filepath.Join(target, "node_modules/@kubernetes/client-node/package.json"))
	if err != nil {
		return Installed{}, err
	}
	var library struct{ Version string }
	err = json.Unmarshal(content, &library)
	return Installed{Version: library.Version, Path: target}, err
}

// output is what a program prints on standard output.
func output(cmd *exec.Cmd) (string, error) {
	text, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return strings.TrimSpace(string(text)), nil
}
