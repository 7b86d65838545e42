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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine the running sidecar, its link and its cache",
		Long: `Examine the running sidecar, its link and its cache, in the order in which a person would:
the programs' requests, the token and the TLS handshake, each address of the API server,
the history of the link, and what is recorded. Each line is OK, WARN or FAIL with the
fact; the next line says what to do.

The doctor changes nothing. It reads the whole cache, and sends each address one request
with the pod's token. docs/troubleshooting.md has a section for each code.

The exit status is 0 if there is no FAIL, and 1 otherwise.`,
		Example: `  kubectl exec POD -c rockpool-sidecar -- /rockpool-sidecar doctor`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := l.examine(cmd.Context())
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the findings as JSON.")
	return cmd
}

// examine examines the sidecar whose settings are in the environment.
func (l *lookup) examine(ctx context.Context) ([]doctor.Finding, error) {
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
