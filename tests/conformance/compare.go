package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// A difference is a test that does not have the same result both ways.
type difference struct {
	name            string
	direct, sidecar result
}

// A comparison says what the same tests did directly and through the sidecar.
type comparison struct {
	direct, sidecar counts
	both            []string            // passed both ways
	worse           []difference        // passed directly only
	better          []difference        // passed through the sidecar only
	neither         []difference        // did not pass directly, nor through the sidecar
	left            map[string][]string // did not run, by the reason in slice.go
}

type counts struct{ passed, failed, skipped int }

// compare compares the tests of the slice by name. A test that passed directly and is not in the
// other report is worse.
func compare(direct, sidecar map[string]result, selected *regexp.Regexp) comparison {
	c := comparison{left: map[string][]string{}}
	names := map[string]bool{}
	for _, results := range []map[string]result{direct, sidecar} {
		for name := range results {
			names[name] = selected.MatchString(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !names[name] {
			continue
		}
		if reason := skipped(name); reason != "" {
			c.left[reason] = append(c.left[reason], name)
			continue
		}
		d := difference{name, direct[name], sidecar[name]}
		c.direct.add(d.direct)
		c.sidecar.add(d.sidecar)
		switch {
		case d.direct.state == passed && d.sidecar.state == passed:
			c.both = append(c.both, name)
		case d.direct.state == passed:
			c.worse = append(c.worse, d)
		case d.sidecar.state == passed:
			c.better = append(c.better, d)
		default:
			c.neither = append(c.neither, d)
		}
	}
	return c
}

func (c *counts) add(r result) {
	switch {
	case r.state == passed:
		c.passed++
	case r.failed():
		c.failed++
	default:
		c.skipped++
	}
}

// err returns an error if the sidecar is worse, or if nothing was compared.
func (c comparison) err() error {
	if c.direct.passed == 0 {
		return fmt.Errorf("no test has passed directly")
	}
	if len(c.worse) > 0 {
		return fmt.Errorf("%d tests pass directly and not through the sidecar", len(c.worse))
	}
	return nil
}

// print prints the comparison for people: the tests that passed, those that were left out, the
// others, and the counts last.
func (c comparison) print(w io.Writer) {
	list := func(title string, names []string) {
		fmt.Fprintf(w, "%s: %d\n", title, len(names))
		for _, name := range names {
			fmt.Fprintf(w, "- %s\n", name)
		}
		fmt.Fprintln(w)
	}
	list("Passed both ways", c.both)
	for _, reason := range slices.Sorted(maps.Keys(c.left)) {
		list("Left out ("+reason+")", c.left[reason])
	}
	for _, group := range []struct {
		title string
		tests []difference
	}{
		{"Did not pass directly, nor through the sidecar", c.neither},
		{"Passed through the sidecar, not directly", c.better},
		{"PASSED DIRECTLY, NOT THROUGH THE SIDECAR", c.worse},
	} {
		if len(group.tests) == 0 {
			continue
		}
		fmt.Fprintf(w, "%s: %d\n", group.title, len(group.tests))
		for _, d := range group.tests {
			fmt.Fprintf(w, "- %s\n", d.name)
			for _, r := range []struct {
				way string
				result
			}{{"directly", d.direct}, {"through the sidecar", d.sidecar}} {
				if r.state != passed {
					fmt.Fprintf(w, "    %s: %s: %s\n", r.way, cmp.Or(r.state, "not in the report"), indent(r.message))
				}
			}
		}
		fmt.Fprintln(w)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tpassed\tfailed\tskipped themselves\t")
	fmt.Fprintf(table, "directly\t%d\t%d\t%d\t\n", c.direct.passed, c.direct.failed, c.direct.skipped)
	fmt.Fprintf(table, "through the sidecar\t%d\t%d\t%d\t\n", c.sidecar.passed, c.sidecar.failed, c.sidecar.skipped)
	_ = table.Flush() // w is the terminal
}

// indent puts a message into the list. Of a long one, the beginning and the end say most.
func indent(message string) string {
	const limit = 2000
	if len(message) > limit {
		message = message[:limit/2] + "\n[...]\n" + message[len(message)-limit/2:]
	}
	return strings.ReplaceAll(strings.TrimSpace(message), "\n", "\n      ")
}
