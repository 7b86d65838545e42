package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"rockpool.dev/injector/doctor"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/manifest"
)

// examination are the flags of doctor.
type examination struct {
	kubeconfig, context string
	names               doctor.Names
	pods, files         []string
	namespace           string
	probeNamespace      string
	json                bool
}

func newDoctorCommand() *cobra.Command {
	var e examination
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the webhook and the injector, and say why a pod is not injected",
		Long: `Examine the webhook and the injector, in the order in which the API server uses them: which
pods it asks about, whom, whether it trusts the certificate, whether the call succeeds, and with
which settings; then nodes and running sidecars. Each line is OK, WARN or FAIL with the fact; the
next line says what to do. docs/troubleshooting.md has a section for each code.

With --pod or --filename, it also says whether these pods would be injected if they were created
now, and if not, why.

The doctor changes nothing. To see whether the API server reaches the webhook, it creates a pod with
dryRun, which is not stored. It needs the rights to list pods, nodes and namespaces, to create pods,
and to read the injector's objects; without one of them, it leaves out what needs it. Of the Secret
it reads the certificate, and never prints anything else.

The exit status is 0 if there is no FAIL, and 1 otherwise.`,
		Example: `  rockpool-injector doctor
  rockpool-injector doctor --pod shop/web-0
  helm template shop ./chart -n shop | rockpool-injector doctor -f - -n shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := e.run(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			if e.json {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(findings)
			} else {
				err = printFindings(cmd.OutOrStdout(), findings)
			}
			if err == nil && doctor.Worst(findings) == doctor.Fail {
				return errors.New("the doctor has found a FAIL")
			}
			return err
		},
	}
	e.addTo(cmd.Flags())
	return cmd
}

func (e *examination) addTo(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringSliceVar(&e.pods, "pod", nil, "`namespace/name` of a pod to judge; can be repeated")
	flags.StringSliceVarP(&e.files, "filename", "f", nil, "`path` of a file or directory with pods or workloads to judge, or - for standard input; can be repeated")
	flags.StringVarP(&e.namespace, "namespace", "n", "default", "`name` of the namespace of objects in files without one")
	flags.BoolVar(&e.json, "json", false, "print the findings as JSON")
	flags.StringVar(&e.probeNamespace, "probe-namespace", "default", "`name` of the namespace in which a pod is tried with dryRun; empty: none is")
	flags.StringVar(&e.kubeconfig, "kubeconfig", "", "`path` of a kubeconfig; empty: as kubectl finds it")
	flags.StringVar(&e.context, "context", "", "`name` of a context in the kubeconfig; empty: the current one")
	var defaults options
	defaults.addTo(pflag.NewFlagSet("", pflag.ContinueOnError))
	flags.StringVar(&e.names.Namespace, "injector-namespace", defaults.objects.Namespace, "`name` of the injector's namespace")
	flags.StringVar(&e.names.Service, "service", defaults.objects.Service, "`name` of the webhook's Service")
	flags.StringVar(&e.names.Configuration, "webhook-configuration", defaults.objects.Configuration, "`name` of the MutatingWebhookConfiguration")
	flags.StringVar(&e.names.Secret, "tls-secret", defaults.objects.Secret, "`name` of the Secret with the certificate, unless the injector's pods mount another")
	flags.StringVar(&e.names.ConfigMap, "config-map", defaults.configMap, "`name` of the ConfigMap with the settings for all pods")
}

// run gathers the facts and judges them. An error means that the command was not asked properly.
func (e *examination) run(ctx context.Context, stdin io.Reader) ([]doctor.Finding, error) {
	for _, pod := range e.pods {
		if namespace, name, ok := strings.Cut(pod, "/"); !ok || namespace == "" || name == "" {
			return nil, fmt.Errorf("--pod: %q is not namespace/name, such as shop/web-0", pod)
		}
	}
	candidates, err := e.inFiles(stdin)
	if err != nil {
		return nil, err
	}
	config, err := clientConfig(e.kubeconfig, e.context)
	if err != nil {
		return nil, err
	}
	client, err := doctor.NewClient(doctor.Options{Config: config, Names: e.names, ProbeNamespace: e.probeNamespace, Flags: flagsOf})
	if err != nil {
		return nil, err
	}
	facts := client.Gather(ctx, buildVersion())
	findings := doctor.Examine(facts)
	if facts.ServerError != nil {
		return findings, nil
	}
	for _, pod := range e.pods {
		namespace, name, _ := strings.Cut(pod, "/")
		c, err := client.Pod(ctx, namespace, name)
		switch {
		case apierrors.IsNotFound(err):
			findings = append(findings, doctor.Finding{
				Level: doctor.Fail, Code: doctor.PodMissing, Fact: fmt.Sprintf("there is no pod %s", pod), Next: doctor.Advice[doctor.PodMissing],
			})
		case err != nil:
			return nil, fmt.Errorf("--pod: %w", err)
		default:
			candidates = append(candidates, c)
		}
	}
	return append(findings, doctor.Judge(facts, candidates)...), nil
}

// inFiles returns the pods of --filename.
func (e *examination) inFiles(stdin io.Reader) ([]doctor.Candidate, error) {
	var all []doctor.Candidate
	for _, argument := range e.files {
		names, err := expand(argument)
		if err != nil {
			return nil, fmt.Errorf("--filename: %w", err)
		}
		for _, name := range names {
			stream, err := read(stdin, name)
			if err == nil {
				_, err = manifest.Rewrite(stream, func(p *manifest.Pod) (*corev1.Pod, error) {
					pod := p.Pod.DeepCopy()
					pod.UID = "" // it is to be created, also if it was read from a cluster
					all = append(all, doctor.Candidate{
						Name: p.String(), Namespace: cmp.Or(p.Namespace, e.namespace), Pod: pod, Controller: p.Controller, Annotations: maps.Clone(p.Annotations),
					})
					return p.Pod, nil
				}, nil)
			}
			if err != nil {
				return nil, fmt.Errorf("--filename: %s: %w", name, err)
			}
		}
	}
	return all, nil
}

// flagsOf returns the settings for pods and the excluded namespaces by the flags and variables of the
// injector's container. What these take from elsewhere, or get wrong, has its default.
func flagsOf(container *corev1.Container) (inject.Params, []string) {
	var o options
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.addTo(flags)
	set := func(name, value string) {
		if flags.Lookup(name) != nil && value != "" {
			_ = flags.Set(name, value)
		}
	}
	if container != nil {
		for _, v := range container.Env {
			if name, ok := strings.CutPrefix(v.Name, envPrefix); ok {
				set(strings.ToLower(strings.ReplaceAll(name, "_", "-")), v.Value)
			}
		}
		for name, value := range arguments(flags, slices.Concat(container.Command, container.Args)) {
			set(name, value)
		}
	}
	params, err := o.params(false)
	if err != nil {
		o = options{}
		o.addTo(pflag.NewFlagSet("", pflag.ContinueOnError))
		params, _ = o.params(false)
	}
	return params, o.excluded
}

// arguments yields the names and values of flags: --name=value, --name value and, of a switch, --name.
// It goes on behind a flag that it does not know, unlike the injector itself.
func arguments(known *pflag.FlagSet, args []string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for i := 0; i < len(args) && args[i] != "--"; i++ {
			argument, ok := strings.CutPrefix(args[i], "--")
			if !ok {
				continue
			}
			name, value, ok := strings.Cut(argument, "=")
			switch f := known.Lookup(name); {
			case ok || f == nil:
			case f.NoOptDefVal != "":
				value = f.NoOptDefVal
			case i+1 < len(args):
				i++
				value = args[i]
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

func printFindings(w io.Writer, all []doctor.Finding) error {
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%-4s  %-22s  %s\n", f.Level, f.Code, f.Fact); err != nil {
			return err
		}
		if f.Next != "" {
			if _, err := fmt.Fprintf(w, "%30s→ %s\n", "", f.Next); err != nil {
				return err
			}
		}
	}
	return nil
}

// clientConfig connects as kubectl does.
func clientConfig(kubeconfig, name string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: name}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	config.UserAgent = "rockpool-injector/" + buildVersion()
	return config, nil
}
