package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// printer prints what happens, with times.
type printer struct {
	out   io.Writer
	start time.Time
}

func (p *printer) phase(title string) {
	fmt.Fprintf(p.out, "\n%5.1fs  == %s\n", time.Since(p.start).Seconds(), title)
}

func (p *printer) say(format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1fs     %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// quote shows the output of a program.
func (p *printer) quote(who, text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if len(line) > 150 {
			line = line[:150] + "…"
		}
		fmt.Fprintf(p.out, "           %s | %s\n", who, line)
	}
}

// kubectl runs kubectl in the pod and shows its output. The exit code must be code, and the output
// must contain want.
func (d *demo) kubectl(ctx context.Context, code int, want string, args ...string) error {
	result, err := d.pod.Exec(ctx, "shell", append([]string{"/kubectl"}, args...)...)
	if err != nil {
		return err
	}
	output := result.Stdout + result.Stderr
	d.say("in the pod: kubectl %s", strings.Join(args, " "))
	d.quote("kubectl", output)
	if result.ExitCode != code || !strings.Contains(output, want) {
		return fmt.Errorf("kubectl %s: exit code %d, output %q; want %d and %q",
			strings.Join(args, " "), result.ExitCode, output, code, want)
	}
	return nil
}

// rows shows the cache with the sqlite3 shell.
func (d *demo) rows(ctx context.Context) error {
	for _, query := range []string{
		"SELECT resource, namespace, state, resource_version AS version, objects, bytes, synced FROM v_collection WHERE state = 'complete'",
		"SELECT name, resource_version AS version, size, updated, json->>'$.data.value' AS says FROM v_object WHERE name IN ('greeting', 'written')",
		"SELECT at, state, substr(reason, 1, 70) AS reason FROM v_link",
	} {
		out, err := d.node.SQL(ctx, "-column", "-header", query)
		if err != nil {
			return err
		}
		if out == "" {
			return fmt.Errorf("nothing is recorded: %s", query)
		}
		d.say("sqlite3 -readonly rockpool.db %q", query)
		d.quote("sqlite3", out)
	}
	return nil
}

// logs shows the states and the output of the containers, after a failure.
func (d *demo) logs() {
	if d.pod == nil {
		return
	}
	for _, s := range d.pod.Statuses() {
		text, err := d.pod.Logs(s.Name)
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(d.out, "\n--- %s: %+v\n%s", s.Name, s, text)
	}
}
