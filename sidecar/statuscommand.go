package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"rockpool.dev/sidecar/status"
)

func statusCommand() *cobra.Command {
	var page bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what the running sidecar knows: the link, what is recorded, what would fail",
		Long: `Print what the running sidecar knows, as JSON: the link and its history, the addresses of
the API server, the recorded lists and who has asked for them, the open watches, the requests
that would fail if the link went now, the last errors, and the settings with their sources.

It is what the status page shows, and with --html it is that page. The content of objects and
tokens are not in it.`,
		Example: `  kubectl exec POD -c rockpool-sidecar -- /rockpool-sidecar status --html > status.html`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadSettings()
			if err != nil {
				return err
			}
			path := status.JSONPath
			if page {
				path = status.PagePath
			}
			err = askSidecar(cmd.Context(), cfg.Private.Directory, path, func(from io.Reader) error {
				_, err := io.Copy(cmd.OutOrStdout(), from)
				return err
			})
			if err != nil {
				return fmt.Errorf("ask the sidecar, which must run in this container: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&page, "html", false, "Print the page.")
	return cmd
}
