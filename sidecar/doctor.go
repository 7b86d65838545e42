package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"rockpool.dev/sidecar/doctor"
)

func doctorCommand() *cobra.Command {
	l := &lookup{directory: new(string)}
	var asJSON, rehearse bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the running sidecar, its link and its cache",
		Long: `Examine the running sidecar, its link and its cache, in the order in which a person would:
the programs' requests, the token and the TLS handshake, each address of the API server,
the history of the link, and what is recorded. Each line is OK, WARN or FAIL with the
fact; the next line says what to do.

With --rehearse, the sidecar answers each distinct request that its programs have made as
if the link were down, and discards the answer. Nothing is sent for that.

The doctor changes nothing. It reads the whole cache, and sends each address one request
with the pod's token. docs/troubleshooting.md has a section for each code.

The exit status is 0 if there is no FAIL, and 1 otherwise.`,
		Example: `  kubectl exec POD -c rockpool-sidecar -- /rockpool-sidecar doctor`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := l.examine(cmd.Context(), rehearse)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(findings)
			} else {
				err = printFindings(cmd.OutOrStdout(), findings)
			}
			if err == nil && doctor.Worst(findings) == doctor.Fail {
				return &exitError{status: 1}
			}
			return err
		},
	}
	cmd.Flags().StringVar(l.directory, "directory", "", "The `path` of the cache; empty = cache.directory.")
	cmd.Flags().BoolVar(&rehearse, "rehearse", false, "Also tell which of the programs' requests would fail if the link went now, and why.")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the findings as JSON.")
	return cmd
}

// examine examines the sidecar whose settings are in the environment.
func (l *lookup) examine(ctx context.Context, rehearse bool) ([]doctor.Finding, error) {
	cfg, err := loadSettings()
	if err != nil {
		return nil, err
	}
	o := doctor.Options{
		Listen: cfg.Listen.Address, Metrics: cfg.Metrics.Address, Account: cfg.Account.Source, Mirror: cfg.Account.Mirror,
		Records: cfg.Cache.Agents.Match, Version: programVersion(),
	}
	servers, err := upstreamSettings(cfg)
	if err != nil {
		return nil, err
	}
	o.Servers = servers.Servers
	if rehearse {
		o.Rehearse = func(ctx context.Context) ([]doctor.Rehearsed, error) { return askRehearsal(ctx, cfg.Private.Directory) }
	}
	o.Cache, o.CacheError = l.find()
	return doctor.Examine(ctx, o), nil
}

func printFindings(w io.Writer, all []doctor.Finding) error {
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%-4s  %-20s  %s\n", f.Level, f.Code, f.Fact); err != nil {
			return err
		}
		if f.Next != "" {
			if _, err := fmt.Fprintf(w, "%28s→ %s\n", "", f.Next); err != nil {
				return err
			}
		}
	}
	return nil
}
