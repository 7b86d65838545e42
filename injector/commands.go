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

const streamHelp = `Reads pods, Deployments, DaemonSets, StatefulSets, ReplicaSets, Jobs, CronJobs,
ReplicationControllers and Lists of them, YAML or JSON, and writes everything that it has
read to standard output. What it does not change stays as it is; comments, the order of
keys and unknown fields also survive where it does, unless the document has anchors.
If anything is wrong, nothing is written, standard error says what, and the exit code is 1.`

func newInjectCommand() *cobra.Command {
	var o sidecarOptions
	var files []string
	var namespace string
	cmd := &cobra.Command{
		Use:   "inject -f FILE...",
		Short: "Add the sidecar to the pods in manifests",
		Long: `Adds the sidecar to the pods in manifests, as the webhook does to pods: for GitOps, and
for clusters without the webhook. Where there is one it leaves these pods alone.

` + streamHelp + `

Every pod is injected but those with the annotation rockpool.dev/inject: "false", and those
that cannot be, of which a warning says why. Annotations go to the template of the pods.
What was injected before is injected anew, with the settings of now.

Not seen from here: whether the ServiceAccount object has automountServiceAccountToken: false
(set it in the pod template as well), and the Pod Security level of the namespace (use
--cache-volume=emptyDir where it forbids hostPath).

Every flag can also be given as an environment variable: --upstream as ` + envName("upstream") + `.`,
		Example: `  # Into a cluster without the webhook
  rockpool-injector inject -f deployment.yaml --sidecar-image=registry.example.com/rockpool:v1 \
    --upstream=https://api.example.com:6443 | kubectl apply -f -

  # Behind another tool
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
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of objects that do not name theirs; part of the cache's path on the node")
	o.addTo(cmd.Flags())
	return cmd
}

func newUninjectCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "uninject -f FILE...",
		Short: "Take the sidecar out of the pods in manifests",
		Long:  "Takes out of manifests what inject, or the webhook, has added.\n\n" + streamHelp,
		Example: `  # Out of a file
  rockpool-injector uninject -f injected.yaml > plain.yaml

  # A pod as it was before the webhook
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
	cmd.Flags().StringSliceVarP(files, "filename", "f", nil, "file, directory (its *.yaml, *.yml and *.json), or - for standard input; can be repeated (required)")
}

// rewriteFiles writes all files, changed, to standard output, or nothing.
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
				stream, err = manifest.Rewrite(stream, change)
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

// appendStream keeps the last document of one stream apart from the first of the next.
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

// expand returns the files of a directory in alphabetical order; a file is itself.
func expand(name string) ([]string, error) {
	if info, err := os.Stat(name); name == "-" || err != nil || !info.IsDir() {
		return []string{name}, nil // reading it tells what is wrong
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
