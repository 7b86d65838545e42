package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"rockpool.dev/tests/bed/link"
)

// listPrograms are programs that list the pods of a namespace once, and print how many there are.
//
//go:embed scripts
var listPrograms embed.FS

const (
	// systemPython has Debian's python3-kubernetes, where it is installed.
	systemPython = "/usr/bin/python3"
	// nodePackages has the lock file of the program for which the zoo installs the JavaScript
	// client.
	nodePackages = "tests/zoo/scripts/node"
)

// savedClient is a program that lists once.
type savedClient struct {
	name string
	argv []string
	// whole says that it asks for the whole list at once, as objects. The API server answers Tables
	// and pages itself: they only have to cost no more than without a sidecar.
	whole bool
}

// savedClients are those that this machine has. A library that is missing is named.
func (b *bench) savedClients(ctx context.Context) ([]savedClient, error) {
	programs := filepath.Join(b.directory, "programs")
	files, err := fs.Sub(listPrograms, "scripts")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(programs, files); err != nil {
		return nil, err
	}
	kubectl := []string{b.plane.Tools().Kubectl, "get", "pods", "-n", someNamespace}
	all := []savedClient{
		{"kubectl get", kubectl, false},
		{"kubectl get -o name --chunk-size=0", append(kubectl[:len(kubectl):len(kubectl)], "-o", "name", "--chunk-size=0"), true},
	}
	if err := exec.CommandContext(ctx, systemPython, "-c", "import kubernetes").Run(); err != nil {
		progress("saved: without Python's client: %v; on Debian or Ubuntu: apt-get install python3-kubernetes", err)
	} else {
		all = append(all, savedClient{"Python's client", []string{systemPython, filepath.Join(programs, "list.py"), someNamespace}, true})
	}
	if err := installNode(ctx, programs); err != nil {
		progress("saved: without Node's client: %v; on Debian or Ubuntu: apt-get install nodejs npm", err)
	} else {
		all = append(all, savedClient{"Node's client", []string{"node", filepath.Join(programs, "list.mjs"), someNamespace}, true})
	}
	return all, ctx.Err()
}

// installNode installs the official JavaScript client into a directory, as the zoo's lock file
// says. No script of a package is run.
func installNode(ctx context.Context, directory string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "rockpool.dev").Output()
	if err != nil {
		return err
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		content, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), nodePackages, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o600); err != nil {
			return err
		}
	}
	install := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = directory
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%.2000s", err, out)
	}
	return nil
}

// savedLists measures what programs cost a thin link that list once, as `saved` does it for
// informers.
func (b *bench) savedLists(ctx context.Context) error {
	all, err := b.savedClients(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		progress("saved: %s", c.name)
		if err := b.savedList(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) savedList(ctx context.Context, c savedClient) error {
	wan, err := link.New(b.plane.Address())
	if err != nil {
		return err
	}
	defer wan.Close()
	wan.SetShape(thinShape, thinShape) // also for the first time: the sidecar keeps what it carries
	if _, _, err := b.listsOnce(ctx, c, wan, true); err != nil {
		return err
	}
	if err := b.writer.change(ctx); err != nil {
		return err
	}
	used, took := series{}, series{}
	for _, t := range []struct {
		name    string
		sidecar bool
	}{{"on", true}, {"direct", false}} {
		bytes, time, err := b.listsOnce(ctx, c, wan, t.sidecar)
		if err != nil {
			return err
		}
		used.add(t.name, bytes/1e3)
		took.add(t.name, time.Seconds())
	}
	what := fmt.Sprintf("%s lists %d pods after a restart, 1 %% changed, 1 Mbit/s, 100 ms", c.name, someObjects)
	bytes, seconds := 1.1, 1.1
	if c.whole {
		bytes, seconds = 0.03, 0.1
	}
	b.report.compare(what, "over the link, both ways", "KB", used).atMost(bytes, ofRatio)
	b.report.compare(what, "until it has ended", "s", took).atMost(seconds, ofRatio)
	return nil
}

// listsOnce runs a client to its end. It returns the bytes on the link, both ways, and the time.
// With a sidecar, that starts before and stops after it.
func (b *bench) listsOnce(ctx context.Context, c savedClient, over *link.Link, sidecar bool) (bytes float64, took time.Duration, err error) {
	home, err := os.MkdirTemp(b.directory, "home-") // kubectl keeps documents there
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	server, ca := "https://"+over.Address(), b.plane.CA()
	mark := over.Stats()
	if sidecar {
		s, err := b.startSidecar(ctx, sidecarOptions{name: "saved-lists", record: true, upstream: over.Address(), settings: []string{"--online.reads", readsSave}})
		if err != nil {
			return 0, 0, err
		}
		defer s.stop()
		if ca, err = s.ca(); err != nil {
			return 0, 0, err
		}
		server = "https://" + s.address
		defer func() { _, _ = settled(ctx, s.pid()) }() // it records behind its answers
	}
	kubeconfig := filepath.Join(home, "kubeconfig")
	if err := writeKubeconfig(kubeconfig, server, b.token, ca); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+home, "KUBECONFIG="+kubeconfig)
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("%s: %w\n%.2000s", c.name, err, out)
	}
	took = time.Since(begun)
	return float64(over.Stats().Since(mark).Wire()), took, nil
}

func writeKubeconfig(path, server, token string, ca []byte) error {
	const name = "bench"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	return clientcmd.WriteToFile(*config, path)
}
