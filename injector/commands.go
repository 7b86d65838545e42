package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/manifest"
)

const streamHelp = `The command reads pods, Deployments, DaemonSets, StatefulSets, ReplicaSets, Jobs,
CronJobs, ReplicationControllers and Lists of them, YAML or JSON. It writes all documents to
standard output: those without changes byte for byte. In the YAML of others it changes only
its own lines; a warning names a document for which it cannot. On an error it writes nothing
to standard output, names the error on standard error, and exits with code 1.`

func newInjectCommand() *cobra.Command {
	var o sidecarOptions
	var files []string
	var namespace string
	cmd := &cobra.Command{
		Use:   "inject -f FILE...",
		Short: "Add the sidecar to the pods in manifests",
		Long: `Add the sidecar to the pods in manifests, as the webhook does to pods: for GitOps, and
for clusters without the webhook. If the cluster has the webhook, it leaves these pods alone.

` + streamHelp + `

The command injects all pods, except those with the annotation rockpool.dev/inject: "false"
and those that it cannot inject; for these, a warning says why. Rockpool annotations belong in
the template of the pods. Pods that are already injected get the present settings.

The command cannot know whether the ServiceAccount object has automountServiceAccountToken:
false (set it in the pod template as well), nor the Pod Security level of the namespace (use
--cache-volume=emptyDir if it forbids hostPath).

Every flag can also be an environment variable, for example ` + envName("upstream") + ` for --upstream.`,
		Example: `  # For a cluster without the webhook
  rockpool-injector inject -f deployment.yaml --sidecar-image=registry.example.com/rockpool:v1 \
    --upstream=https://api.example.com:6443 | kubectl apply -f -

  # After another tool
  helm template shop ./chart -n shop | rockpool-injector inject -f - -n shop --sidecar-image=rockpool:dev > shop.yaml`,
		Args:    cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) error { return setFromEnv(cmd.Flags()) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			params, err := o.params(true)
			if err != nil {
				return err
			}
			return rewriteFiles(cmd, files, func(p *manifest.Pod) (*corev1.Pod, error) {
				facts := inject.Facts{Namespace: p.Namespace, Asked: true, Template: true, Controller: p.Controller}
				if facts.Namespace == "" {
					facts.Namespace = namespace
				}
				before, _ := inject.Uninject(p.Pod)
				after, result := inject.Inject(before, facts, params)
				if result.Outcome == inject.Refused {
					return nil, errors.New(result.Cause.String())
				}
				for _, w := range result.Warnings() {
					cmd.PrintErrf("warning: %s: %s\n", p, w)
				}
				return after, nil
			})
		},
	}
	addFiles(cmd, &files)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "",
		"`name` of the namespace of objects without one; part of the cache's path on the node")
	o.addTo(cmd.Flags())
	return cmd
}

func newUninjectCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "uninject -f FILE...",
		Short: "Remove the sidecar from the pods in manifests",
		Long:  "Remove the additions of inject, or of the webhook, from manifests.\n\n" + streamHelp,
		Example: `  # From a file
  rockpool-injector uninject -f injected.yaml > plain.yaml

  # Show a pod as it was before the webhook
  kubectl get pod web-0 -o yaml | rockpool-injector uninject -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return rewriteFiles(cmd, files, func(p *manifest.Pod) (*corev1.Pod, error) {
				before, _ := inject.Uninject(p.Pod)
				return before, nil
			})
		},
	}
	addFiles(cmd, &files)
	return cmd
}

func addFiles(cmd *cobra.Command, files *[]string) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringSliceVarP(files, "filename", "f", nil,
		"`path` of a file or of a directory (its *.yaml, *.yml and *.json), or - for standard input;\nrequired, can be repeated")
}

// rewriteFiles writes all files, with the changes, to standard output. On an error it writes none.
func rewriteFiles(cmd *cobra.Command, files []string, change func(*manifest.Pod) (*corev1.Pod, error)) error {
	if len(files) == 0 {
		return errors.New("--filename: no file is named; -f - reads standard input")
	}
	var out bytes.Buffer
	var errs []error
	for _, argument := range files {
		names, err := expand(argument)
		errs = append(errs, err)
		for _, name := range names {
			stream, err := read(cmd.InOrStdin(), name)
			if err == nil {
				stream, err = manifest.Rewrite(stream, change, func(document int) {
					cmd.PrintErrf("warning: %s: document %d cannot be changed in place; it is written again as a whole, without its comments\n", name, document)
				})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				continue
			}
			appendStream(&out, stream)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err := cmd.OutOrStdout().Write(out.Bytes())
	return err
}

// appendStream separates the last document of one stream from the first of the next.
func appendStream(out *bytes.Buffer, stream []byte) {
	if out.Len() > 0 {
		if !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
			out.WriteByte('\n')
		}
		if !bytes.HasPrefix(stream, []byte("---")) {
			out.WriteString("---\n")
		}
	}
	out.Write(stream)
}

// expand returns the manifests in a directory in alphabetical order, or the name of a file.
func expand(name string) ([]string, error) {
	if info, err := os.Stat(name); name == "-" || err != nil || !info.IsDir() {
		return []string{name}, nil // reading it reports an error
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			names = append(names, filepath.Join(name, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: has no *.yaml, *.yml or *.json", name)
	}
	return names, nil
}

func read(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	text, err := os.ReadFile(name)
	var path *os.PathError
	if errors.As(err, &path) {
		return nil, path.Err // the caller names the file
	}
	return text, err
}
