package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rockpool.dev/sidecar/config"
	"rockpool.dev/sidecar/inspect"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/pod/slot"
	"rockpool.dev/sidecar/principal"
	"rockpool.dev/store"
)

// lookup is the flags of one command on a cache.
type lookup struct {
	directory *string
	output    string
	selection inspect.Selection
}

func cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Read the pod's cache, also while the sidecar runs",
		Long: `Read the pod's cache, also while the sidecar runs. Only vacuum writes to it.

In a pod, the commands find the cache by the sidecar's settings. Elsewhere, as on the
node, --directory names it. An object is shown as a program would get it while the link
is down, also if it was recorded as protobuf.

What the sidecar keeps in memory is not shown: Secrets and other resources in
cache.memory-only, and the events of the last moment.`,
		Example: `  # in a pod
  kubectl exec web-0 -c rockpool-sidecar -- /rockpool-sidecar cache ls

  # on a node
  rockpool-sidecar cache get configmaps greeting --directory=/var/lib/rockpool/shop/web/deployment.web`,
	}
	directory := cmd.PersistentFlags().String("directory", "", "The `path` of a cache: the directory with rockpool.db, or of a workload; empty = cache.directory.")
	for _, sub := range []func(*lookup) *cobra.Command{
		(*lookup).lsCommand, (*lookup).getCommand, (*lookup).exportCommand, (*lookup).diffCommand, (*lookup).verifyCommand, (*lookup).vacuumCommand,
	} {
		cmd.AddCommand(sub(&lookup{directory: directory}))
	}
	return cmd
}

// find returns the directory of the cache.
func (l *lookup) find() (string, error) {
	directory, pod := *l.directory, ""
	if directory == "" {
		cfg, err := loadSettings()
		if err != nil {
			return "", err
		}
		directory = cfg.Cache.Directory
		if token, err := os.ReadFile(filepath.Join(cfg.Account.Source, account.TokenFile)); err == nil {
			pod = principal.PodUID(strings.TrimSpace(string(token)))
		}
	}
	if _, err := os.Stat(filepath.Join(directory, store.FileName)); err == nil {
		return directory, nil
	}
	paths := slot.Find(directory, pod)
	switch len(paths) {
	case 0:
		return "", fmt.Errorf("--directory: no cache in %s", directory)
	case 1:
		return paths[0], nil
	}
	return "", fmt.Errorf("--directory: %s has the caches of several pods; name one of them: %s", directory, strings.Join(paths, " "))
}

// loadSettings loads the sidecar's settings from the environment and the files.
func loadSettings() (config.Config, error) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Register(flags)
	cfg, err := config.Load(flags)
	if err != nil {
		return cfg, fmt.Errorf("invalid configuration:\n%w", err)
	}
	return cfg, nil
}

// with runs f on the cache.
func (l *lookup) with(ctx context.Context, f func(*inspect.Cache) error) error {
	directory, err := l.find()
	if err != nil {
		return err
	}
	c, err := inspect.Open(ctx, directory, nil)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	return f(c)
}

// objectFlags are the flags that select objects. arguments are TYPE and NAME.
func (l *lookup) objectFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&l.selection.Namespace, "namespace", "n", "", "Only objects in this `namespace`.")
	cmd.Flags().StringVar(&l.selection.Account, "as", "", "Only what this service `account` has read: system:serviceaccount:NAMESPACE:NAME.")
}

func (l *lookup) outputFlag(cmd *cobra.Command, allowed ...string) {
	cmd.Flags().StringVarP(&l.output, "output", "o", allowed[0], "The `format`: "+strings.Join(allowed, ", ")+".")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(allowed, l.output) {
			return fmt.Errorf("--output: %q is not %s", l.output, strings.Join(allowed, " or "))
		}
		return nil
	}
}

func (l *lookup) take(args []string) {
	if len(args) > 0 {
		l.selection.Type = args[0]
	}
	if len(args) > 1 {
		l.selection.Name = args[1]
	}
}

func (l *lookup) lsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [TYPE [NAME]]",
		Short: "List what is recorded: the collections, or the objects of a type",
		Long: `List the recorded collections: how many objects, how large, how old. Only a complete
collection answers a list while the link is down.

With a type, such as pods, Pod or deployments.apps, list its objects, one on a line, and
the answer that a program would get.`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.take(args)
			return l.with(cmd.Context(), func(c *inspect.Cache) error {
				if len(args) > 0 {
					return l.listObjects(cmd.Context(), cmd.OutOrStdout(), c)
				}
				return l.listCollections(cmd.Context(), cmd.OutOrStdout(), c)
			})
		},
	}
	l.objectFlags(cmd)
	l.outputFlag(cmd, "table", "json")
	return cmd
}

func (l *lookup) listCollections(ctx context.Context, w io.Writer, c *inspect.Cache) error {
	all, documents, err := c.List(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(x inspect.Collection) bool {
		s := l.selection
		return s.Account != "" && x.Account != s.Account || s.Namespace != "" && x.Namespace != s.Namespace
	})
	if l.output == "json" {
		return json.NewEncoder(w).Encode(all)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RESOURCE\tNAMESPACE\tSELECTOR\tFORM\tSTATE\tOBJECTS\tBYTES\tVERSION\tAGE\tACCOUNT")
	for _, x := range all {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", x.Resource, orDash(x.Namespace), orDash(strings.Trim(x.Labels+" "+x.Fields, " ")),
			x.Form, x.State, x.Objects, x.Bytes, orDash(x.At), orDash(x.Age), x.Account)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%d documents (discovery, OpenAPI, tables), %d bytes\n", documents.Count, documents.Bytes)
	return err
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (l *lookup) listObjects(ctx context.Context, w io.Writer, c *inspect.Cache) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := json.NewEncoder(w)
	if l.output == "table" {
		fmt.Fprintln(t, "NAMESPACE\tNAME\tVERSION\tBYTES\tAGE\tANSWER")
	}
	_, err := c.Objects(ctx, l.selection, func(o inspect.Object) error {
		answer := "200"
		switch {
		case o.JSON == nil:
			answer = o.Problem
		case o.Metadata:
			answer = "200, metadata only"
		}
		if l.output == "json" {
			return lines.Encode(map[string]any{"account": o.Principal, "namespace": o.Namespace, "name": o.Name, "resourceVersion": o.ResourceVersion(),
				"bytes": len(o.JSON), "ageSeconds": int(o.Age.Seconds()), "answer": answer})
		}
		age := "-"
		if o.JSON != nil {
			age = inspect.Age(o.Age)
		}
		_, err := fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", orDash(o.Namespace), o.Name, orDash(o.ResourceVersion()), len(o.JSON), age, answer)
		return err
	})
	return errors.Join(err, t.Flush())
}

func (l *lookup) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get TYPE [NAME]",
		Short: "Print recorded objects, as a program would get them while the link is down",
		Long: `Print recorded objects, as a program would get them while the link is down: the newest
recorded state, unless something newer contradicts it. Objects that were recorded as
protobuf are converted.

It is an error if there is no such object, or if a program would get no object.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.take(args)
			return l.print(cmd, "no such object is recorded, or it is known to be gone")
		},
	}
	l.objectFlags(cmd)
	l.outputFlag(cmd, string(inspect.YAML), string(inspect.JSON))
	return cmd
}

func (l *lookup) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [TYPE]",
		Short: "Print all recorded objects",
		Long: `Print all recorded objects, or those of one type, each as a program would get it while
the link is down. An object without such an answer is named on standard error, and the
command then ends with an error.`,
		Example: `  kubectl exec web-0 -c rockpool-sidecar -- /rockpool-sidecar cache export -o json > cache.jsonl`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.take(args)
			return l.print(cmd, "")
		},
	}
	l.objectFlags(cmd)
	l.outputFlag(cmd, string(inspect.YAML), string(inspect.JSON))
	return cmd
}

// print prints the selected objects. none is the error if there are none; empty: that is no error.
func (l *lookup) print(cmd *cobra.Command, none string) error {
	return l.with(cmd.Context(), func(c *inspect.Cache) error {
		p := &inspect.Printer{W: cmd.OutOrStdout(), Format: inspect.Format(l.output)}
		without := 0
		count, err := c.Objects(cmd.Context(), l.selection, func(o inspect.Object) error {
			if o.JSON == nil {
				without++
				fmt.Fprintf(cmd.ErrOrStderr(), "%s %s/%s: %s\n", o.Resource.Resource, o.Namespace, o.Name, o.Problem)
				return nil
			}
			return p.Print(o.JSON)
		})
		switch {
		case err != nil:
			return err
		case count == 0 && none != "":
			return errors.New(none)
		case without > 0:
			return fmt.Errorf("%d of %d objects would not be answered", without, count)
		}
		return nil
	})
}

func (l *lookup) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read the whole cache, and report damage",
		Long: `Read the whole cache: the structure of the file, its indexes, and the checksum of each
object. It is an error if anything is damaged. The sidecar repairs that by itself when it
meets it: it forgets the collection, or begins a new file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return l.with(cmd.Context(), func(c *inspect.Cache) error {
				wrong := 0
				objects, err := c.Verify(cmd.Context(), func(what string) {
					wrong++
					fmt.Fprintln(cmd.OutOrStdout(), what)
				})
				if err != nil {
					return err
				}
				if wrong > 0 {
					return fmt.Errorf("%d things are damaged", wrong)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d objects\n", objects)
				return err
			})
		},
	}
}

func (l *lookup) vacuumCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vacuum",
		Short: "Give the cache's free pages back to the disk",
		Long: `Give the cache's free pages back to the disk, and empty its log. This writes to the file,
also while the sidecar runs, which waits for some pages at once. No recording is lost.
The sidecar does the same by itself, a little at a time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			directory, err := l.find()
			if err != nil {
				return err
			}
			before, after, err := store.Vacuum(cmd.Context(), directory)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d bytes before, %d after\n", before, after)
			return err
		},
	}
}
