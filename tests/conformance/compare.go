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
	worse           []difference // passed directly only
	better          []difference // passed through the sidecar only
	neither         []difference // did not pass directly, nor through the sidecar
	left            map[string]int
}

type counts struct{ passed, failed, skipped int }

// compare compares the tests of the slice by name. A test that passed directly and is not in the
// other report is worse.
func compare(direct, sidecar map[string]result, selected *regexp.Regexp) comparison {
	c := comparison{left: map[string]int{}}
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
			c.left[reason]++
			continue
		}
		d := difference{name, direct[name], sidecar[name]}
		c.direct.add(d.direct)
		c.sidecar.add(d.sidecar)
		switch {
		case d.direct.state == passed && d.sidecar.state == passed:
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

// print prints the comparison for people.
func (c comparison) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tpassed\tfailed\tskipped themselves\t")
	fmt.Fprintf(table, "directly\t%d\t%d\t%d\t\n", c.direct.passed, c.direct.failed, c.direct.skipped)
	fmt.Fprintf(table, "through the sidecar\t%d\t%d\t%d\t\n", c.sidecar.passed, c.sidecar.failed, c.sidecar.skipped)
	_ = table.Flush() // w is the terminal
	for _, reason := range slices.Sorted(maps.Keys(c.left)) {
		fmt.Fprintf(w, "%4d left out: %s\n", c.left[reason], reason)
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
		fmt.Fprintf(w, "\n%s:\n", group.title)
		for _, d := range group.tests {
			fmt.Fprintf(w, "- %s\n", d.name)
			for way, r := range map[string]result{"directly": d.direct, "through the sidecar": d.sidecar} {
				if r.state != passed {
					fmt.Fprintf(w, "    %s: %s: %s\n", way, cmp.Or(r.state, "not in the report"), indent(r.message))
				}
			}
		}
	}
}

// indent puts a message into the list. Of a long one, the beginning and the end say most.
func indent(message string) string {
	const limit = 2000
	if len(message) > limit {
		message = message[:limit/2] + "\n[...]\n" + message[len(message)-limit/2:]
	}
	return strings.ReplaceAll(strings.TrimSpace(message), "\n", "\n      ")
}
