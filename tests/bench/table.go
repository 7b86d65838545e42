package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// String is empty if the interval is not known.
func (i interval) String() string {
	if !i.known() {
		return ""
	}
	return fmt.Sprintf("%v–%v", number(i.low), number(i.high))
}

var columns = []string{"case", "measure", "unit", "direct", "nginx", "recording off", "recording on", "nginx x", "off x", "on x", "interval", "target", ""}

func (r *row) cells() []string {
	cells := []string{r.Case, r.Measure, r.Unit}
	for _, n := range []number{r.Direct, r.Nginx, r.Off, r.On, r.NginxRatio, r.OffRatio, r.OnRatio} {
		cells = append(cells, n.String())
	}
	return append(cells, r.interval().String(), r.Target, r.Verdict)
}

// about says what the run was, without what the machine did.
func (r *report) about() string {
	rounds := fmt.Sprintf("up to %d rounds", r.Rounds)
	if r.Short {
		rounds += " with --short"
	}
	return fmt.Sprintf("rockpool %s, %d CPUs, Linux %s, %s", r.Version, r.CPUs, r.Kernel, rounds)
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s; medians; x = ratio to direct access in the same round\n"+
		"interval = where the median of the judged value lies: 95 %% confidence from six rounds on, else all rounds\n\n", r.about())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(columns, "\t"))
	for i := range r.Rows {
		fmt.Fprintln(t, strings.Join(r.Rows[i].cells(), "\t"))
	}
	t.Flush() // an error of w is one of the next Fprintln too
	fmt.Fprintln(w)
	var all float64
	for _, l := range r.Load {
		fmt.Fprintln(w, "machine:", l)
		all += l.Seconds
	}
	fmt.Fprintf(w, "machine: all cases %d s, of that the objects they create\n", int(all))
	for _, text := range r.Wrong {
		fmt.Fprintln(w, "WRONG:", text)
	}
}

// markdown is the table as a document has it. A case is named in its first row.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\n| %s |\n|%s\n", r.about(), strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	last := ""
	for i := range r.Rows {
		cells := r.Rows[i].cells()
		if cells[0] == last {
			cells[0] = ""
		} else {
			last = cells[0]
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	b.WriteString("\n| case | seconds | load average | busy CPUs | of them by other programs |\n|---|---|---|---|---|\n")
	for _, l := range r.Load {
		fmt.Fprintf(&b, "| %s | %.0f | %s | %.2f | %.2f |\n", l.Case, l.Seconds, l.Average, l.Busy, l.Others)
	}
	return b.String()
}

// The table is between these lines of a document.
const (
	tableBegins = "<!-- table of make bench-release begins -->\n"
	tableEnds   = "<!-- table of make bench-release ends -->\n"
)

// tableIn returns the table in a document, and what is before and after it.
func tableIn(document string) (before, table, after string, err error) {
	before, rest, begins := strings.Cut(document, tableBegins)
	table, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", "", "", fmt.Errorf("there is no table between the lines %q and %q", tableBegins, tableEnds)
	}
	return before, table, after, nil
}

// writeTable replaces the table in a document.
func (r *report) writeTable(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, _, after, err := tableIn(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(r.document(before, after)), 0o644)
}

// document is a document with the table.
func (r *report) document(before, after string) string {
	return before + tableBegins + "\n" + r.markdown() + "\n" + tableEnds + after
}

// store writes the results to the files of the options. A run with wrong answers gets no table, and
// does not replace the run that the document's table is of.
func (r *report) store(o options) error {
	if o.table != "" && len(r.Wrong) > 0 {
		return fmt.Errorf("%d wrong answers or lost events, so that nothing is written; the first: %s", len(r.Wrong), r.Wrong[0])
	}
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	switch o.table {
	case "":
		return nil
	case "-":
		_, err := os.Stdout.WriteString(r.markdown())
		return err
	}
	return r.writeTable(o.table)
}

// show shows a stored run.
func show(o options) error {
	r, err := readReport(o.from)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	if o.table == "" {
		r.print(os.Stdout)
	}
	return r.store(o)
}
