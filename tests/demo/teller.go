package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// teller tells the story.
type teller struct {
	out   io.Writer
	start time.Time
}

func (t *teller) phase(title string) {
	fmt.Fprintf(t.out, "\n%5.1fs  == %s\n", time.Since(t.start).Seconds(), title)
}

func (t *teller) say(format string, args ...any) {
	fmt.Fprintf(t.out, "%5.1fs     %s\n", time.Since(t.start).Seconds(), fmt.Sprintf(format, args...))
}

// quote shows what somebody said.
func (t *teller) quote(who, text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if len(line) > 150 {
			line = line[:150] + "…"
		}
		fmt.Fprintf(t.out, "           %s | %s\n", who, line)
	}
}

// kubectl runs kubectl inside the pod and shows what it says; it must end with
// the code and say want.
func (d *demo) kubectl(ctx context.Context, code int, want string, args ...string) error {
	result, err := d.pod.Exec(ctx, "shell", append([]string{"/kubectl"}, args...)...)
	if err != nil {
		return err
	}
	said := result.Stdout + result.Stderr
	d.say("in the pod: kubectl %s", strings.Join(args, " "))
	d.quote("kubectl", said)
	if result.ExitCode != code || !strings.Contains(said, want) {
		return fmt.Errorf("kubectl %s ended with %d and %q; %d and %q were expected", strings.Join(args, " "), result.ExitCode, said, code, want)
	}
	return nil
}

// rows shows what is recorded, as the sqlite3 shell shows it.
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

// lastWords shows what the containers printed, when something went wrong.
func (d *demo) lastWords() {
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
