package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"rockpool.dev/sidecar/inspect"
	"rockpool.dev/sidecar/pod/account"
	"rockpool.dev/sidecar/upstream"
)

func (l *lookup) diffCommand() *cobra.Command {
	var other string
	cmd := &cobra.Command{
		Use:   "diff [TYPE [NAME]]",
		Short: "Compare the cache with the API server, or with another cache",
		Long: `Compare the lists that are recorded whole with the API server's, by the resourceVersion
of each object. It asks the API server with the pod's own token, and reads metadata only.
With --with, compare with another cache instead, such as a copy of an earlier state.

+ is not in the cache, - is only in the cache, ~ has another version there. The exit
status is 0 if nothing differs, 1 if something does, and 2 for an error.`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l.take(args)
			differs := false
			show := func(c inspect.Change) {
				differs = true
				fmt.Fprintln(cmd.OutOrStdout(), c)
			}
			err := l.with(cmd.Context(), func(c *inspect.Cache) error {
				if other != "" {
					second, err := inspect.Open(cmd.Context(), other, nil)
					if err != nil {
						return fmt.Errorf("--with: %w", err)
					}
					defer second.Close() //nolint:errcheck // nothing was written
					return c.DiffCache(cmd.Context(), second, l.selection, show)
				}
				return l.diffServer(cmd.Context(), c, show, cmd.ErrOrStderr())
			})
			switch {
			case err != nil:
				return &exitError{2, err}
			case differs:
				return &exitError{1, nil}
			}
			return nil
		},
	}
	l.objectFlags(cmd)
	cmd.Flags().StringVar(&other, "with", "", "The `path` of another cache: the directory with rockpool.db.")
	return cmd
}

// diffServer compares the cache with an API server that answers.
func (l *lookup) diffServer(ctx context.Context, c *inspect.Cache, show func(inspect.Change), stderr io.Writer) error {
	cfg, err := loadSettings()
	if err != nil {
		return err
	}
	servers, err := upstreamSettings(cfg)
	if err != nil {
		return err
	}
	token := filepath.Join(cfg.Account.Source, account.TokenFile)
	u, err := upstream.New(upstream.Options{Settings: servers, CAFile: filepath.Join(cfg.Account.Source, account.CAFile), TokenFile: token})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return u.Run(ctx) })
	running.Go(func() error {
		defer stop()
		waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := u.WaitOnline(waiting); err != nil {
			return errors.New("no API server can be reached: the link is down, or upstream.servers is wrong; --with compares with another cache")
		}
		fetch := func(ctx context.Context, path, accept string) (*http.Response, error) {
			return fetchAs(ctx, u, token, path, accept)
		}
		skipped := 0
		err := c.DiffServer(ctx, l.selection, fetch, show, func(why string) {
			skipped++
			fmt.Fprintln(stderr, "not compared:", why)
		})
		if err == nil && skipped > 0 {
			err = fmt.Errorf("%d collections were not compared", skipped)
		}
		return err
	})
	return running.Wait()
}

// fetchAs sends a GET with the token in a file.
func fetchAs(ctx context.Context, u *upstream.Upstream, tokenFile, path, accept string) (*http.Response, error) {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(path)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Accept": {accept}, "Authorization": {"Bearer " + strings.TrimSpace(string(token))}}
	return u.RoundTrip((&http.Request{Method: http.MethodGet, URL: at, Header: header}).WithContext(ctx))
}
