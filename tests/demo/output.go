package main

import (
	"context"
	"encoding/json"
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

// chapter begins a part of the story. about says what to look at; empty: nothing.
func (p *printer) chapter(title, about string) {
	fmt.Fprintf(p.out, "\n── %s ── %.1f s\n", title, time.Since(p.start).Seconds())
	if about != "" {
		fmt.Fprintf(p.out, "%s\n", about)
	}
	fmt.Fprintln(p.out)
}

func (p *printer) say(format string, args ...any) {
	fmt.Fprintf(p.out, "%s\n", fmt.Sprintf(format, args...))
}

// quote shows the output of a program.
func (p *printer) quote(who, text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		fmt.Fprintf(p.out, "  %-7s │ %s\n", who, strings.TrimRight(line, "\n"))
	}
}

// command shows a command. What stands after the $ can be pasted into a shell.
func (p *printer) command(text string) { fmt.Fprintf(p.out, "  $ %s\n", text) }

// readable turns a line of the informer into words.
func readable(line string) string {
	var event struct {
		Event, Name string
		Data        map[string]string
		Count       int
	}
	if json.Unmarshal([]byte(line), &event) != nil {
		return line
	}
	if event.Event == "synced" {
		return fmt.Sprintf("synced: %d ConfigMaps", event.Count)
	}
	if value, ok := event.Data["value"]; ok {
		return fmt.Sprintf("%s: %s = %q", event.Event, event.Name, value)
	}
	return event.Event + ": " + event.Name
}

// kubectl runs kubectl in the pod and shows its output. The exit code must be code, and the output
// must contain want.
func (d *demo) kubectl(ctx context.Context, code int, want string, args ...string) error {
	result, err := d.pod.Exec(ctx, "shell", append([]string{"/kubectl"}, args...)...)
	if err != nil {
		return err
	}
	output := result.Stdout + result.Stderr
	fmt.Fprintf(d.out, "  kubectl %s\n", strings.Join(args, " "))
	d.quote("kubectl", output)
	if result.ExitCode != code || !strings.Contains(output, want) {
		return fmt.Errorf("kubectl %s: exit code %d, output %q; want %d and %q",
			strings.Join(args, " "), result.ExitCode, output, code, want)
	}
	return nil
}

// Queries of the cache.
const (
	collections = "SELECT resource, objects, bytes, resource_version AS version, synced AS synced_utc FROM v_collection WHERE state = 'complete'"
	greeting    = "SELECT name, resource_version AS version, encoding, size AS bytes, updated AS recorded_utc FROM v_object WHERE name IN ('greeting', 'written')"
	history     = "SELECT at AS at_utc, state FROM v_link"
)

// rows shows the cache with the sqlite3 shell.
func (d *demo) rows(ctx context.Context, queries ...string) error {
	path, err := d.node.Database()
	if err != nil {
		return err
	}
	for _, query := range queries {
		out, err := d.node.SQL(ctx, "-box", query)
		if err != nil {
			return err
		}
		if out == "" {
			return fmt.Errorf("nothing is recorded: %s", query)
		}
		d.command(fmt.Sprintf("sqlite3 -readonly -box %s \"%s\"", path, query))
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
