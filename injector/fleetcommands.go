package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"

	"rockpool.dev/injector/fleet"
	"rockpool.dev/injector/inject"
	"rockpool.dev/injector/settings"
)

// cluster are the flags of the commands that look at running pods.
type cluster struct {
	kubeconfig, context          string
	namespace, selector          string
	settingsNamespace, configMap string
	image                        string
}

func (c *cluster) addTo(flags *pflag.FlagSet, image string) {
	flags.SortFlags = false
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "`path` of a kubeconfig; empty: as kubectl finds it")
	flags.StringVar(&c.context, "context", "", "`name` of a context in the kubeconfig; empty: the current one")
	flags.StringVarP(&c.namespace, "namespace", "n", "", "`name` of the namespace of the pods; empty: all")
	flags.StringVarP(&c.selector, "selector", "l", "", "label `selector` of the pods; empty: all")
	flags.StringVar(&c.image, "image", "", image)
	flags.StringVar(&c.settingsNamespace, "settings-namespace", "rockpool-system", "`name` of the namespace with --config-map")
	flags.StringVar(&c.configMap, "config-map", settings.DefaultName, "`name` of the ConfigMap with the settings for all pods")
}

// sidecars returns the sidecars, and the image that they should have; empty if that is unknown.
func (c *cluster) sidecars(ctx context.Context) (*fleet.Client, []fleet.Sidecar, string, error) {
	config, err := clientConfig(c.kubeconfig, c.context)
	if err != nil {
		return nil, nil, "", err
	}
	client, err := fleet.NewClient(config)
	if err != nil {
		return nil, nil, "", err
	}
	if c.image != "" {
		if err := inject.ValidateImage(c.image); err != nil {
			return nil, nil, "", fmt.Errorf("--image: %w", err)
		}
	}
	image := c.image
	if image == "" {
		image, err = client.Image(ctx, c.settingsNamespace, c.configMap)
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return nil, nil, "", fmt.Errorf("ConfigMap %s/%s: image: %w", c.settingsNamespace, c.configMap, err)
		}
	}
	sidecars, err := client.List(ctx, c.namespace, c.selector)
	if err != nil {
		return nil, nil, "", fmt.Errorf("list pods: %w", err)
	}
	return client, sidecars, image, nil
}

func newStatusCommand() *cobra.Command {
	var c cluster
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the sidecars of running pods: versions, outdated and unhealthy ones",
		Long: `Show how many pods run with which image of the sidecar, and by which version of the injector
they were injected; then each pod whose sidecar is outdated or does not serve it. Pods that have
completed are left out. Outdated is an image other than --image, or that of the ConfigMap, unless
the pod chooses it by annotation. The command needs the right to list pods.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, sidecars, image, err := c.sidecars(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), sidecars, image)
		},
	}
	c.addTo(cmd.Flags(), "`image` that sidecars should have; empty: that of --config-map, if it names one")
	return cmd
}

func printStatus(out io.Writer, sidecars []fleet.Sidecar, image string) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tINJECTOR\tPODS\tOUTDATED\tUNHEALTHY")
	for _, g := range fleet.Summarize(sidecars, image) {
		outdated := strconv.Itoa(g.Outdated)
		if image == "" {
			outdated = "?"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%d\n", g.Image, cmp.Or(g.Injector, "?"), g.Pods, outdated, g.Unhealthy)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	heading := "\nNAMESPACE\tPOD\tNODE\tSTATE\tIMAGE\n"
	for i := range sidecars {
		s := &sidecars[i]
		var states []string
		if image != "" && s.Outdated(image) {
			states = append(states, "outdated")
		}
		if s.Problem != "" {
			states = append(states, s.Problem)
		}
		if len(states) > 0 {
			fmt.Fprintf(t, "%s%s\t%s\t%s\t%s\t%s\n", heading, s.Namespace, s.Pod, s.Node, strings.Join(states, ", "), s.Image)
			heading = ""
		}
	}
	return t.Flush()
}

func newUpgradeCommand() *cobra.Command {
	var c cluster
	var maxUnavailable string
	var timeout time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Give the sidecars of running pods another image, without a restart of the application",
		Long: `Give the sidecars of running pods another image. The kubelet restarts the sidecar alone: the
application keeps running, its requests fail for a second or two, and its watches go on. To roll
back, name the old image. Where the new image does not start in time, the pod gets the old one back,
and the command stops. A sidecar on a node that is offline counts as one that does not start.

New pods get the image of the ConfigMap rockpool-cfg, or of the injector: change that as well. Pods
that choose their image by the annotation rockpool.dev/image are left alone. The command needs the
rights to list, get and patch pods.`,
		Example: `  # One namespace first, then all, a tenth at a time
  rockpool-injector upgrade --image=registry.example.com/rockpool:v2 -n canary
  rockpool-injector upgrade --image=registry.example.com/rockpool:v2 --max-unavailable=10%`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return errors.New("--timeout: must be more than 0")
			}
			client, sidecars, image, err := c.sidecars(cmd.Context())
			if err != nil {
				return err
			}
			if image == "" {
				return errors.New("--image: no image is named, neither here nor in the ConfigMap")
			}
			atOnce, err := share(maxUnavailable, len(sidecars))
			if err != nil {
				return fmt.Errorf("--max-unavailable: %w", err)
			}
			if dryRun {
				return printStatus(cmd.OutOrStdout(), sidecars, image)
			}
			u := fleet.Upgrade{
				Pods: client, Image: image, AtOnce: atOnce, Timeout: timeout, Clock: clock.RealClock{},
				Report: func(s *fleet.Sidecar, step string) { cmd.Printf("%s %s\n", s, step) },
			}
			n, err := u.Run(cmd.Context(), sidecars)
			cmd.Printf("%d upgraded\n", n)
			return err
		},
	}
	c.addTo(cmd.Flags(), "`image` that sidecars get; empty: that of --config-map")
	cmd.Flags().StringVar(&maxUnavailable, "max-unavailable", "1", "how many sidecars may be restarting at any time: a `number`, or a percentage of those found")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long one sidecar may take until it serves again")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what is outdated")
	return cmd
}

// share returns a number, or a percentage of n, rounded up; at least 1.
func share(text string, n int) (int, error) {
	number, percent := strings.CutSuffix(text, "%")
	value, err := strconv.Atoi(number)
	if err != nil || value < 1 || percent && value > 100 {
		return 0, fmt.Errorf("%q is not a number above 0 or a percentage, like 3 or 10%%", text)
	}
	if percent {
		return max(1, int(math.Ceil(float64(n)*float64(value)/100))), nil
	}
	return value, nil
}
