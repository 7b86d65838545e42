// Command bench measures the costs and savings of the sidecar. In one run, the targets take turns:
// direct access to a real kube-apiserver, access through a sidecar that records, and access through
// a sidecar that does not. In the cases of single requests and lists, nginx is a fourth target where
// it is installed. Other load of the machine thus affects all of them. Each line of the table is a
// median over rounds; ratios are medians of the ratios within the rounds.
//
// A missed target does not make bench fail. Wrong answers, lost events and failed measurements do, and
// with --check also values that are worse than in an earlier run, beyond the noise of both.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// options are the flags.
type options struct {
	json    string
	short   bool
	rounds  int
	cases   string
	sidecar string
	base    string
	check   bool
}

func main() {
	var o options
	flag.StringVar(&o.json, "json", "", "Also write the results to this file, as JSON.")
	flag.BoolVar(&o.short, "short", false, "Fewer and shorter rounds, no 10,000-object lists.")
	flag.IntVar(&o.rounds, "rounds", 0, "Rounds of each case; 0: 10, or 3 with --short.")
	flag.StringVar(&o.cases, "cases", "", "Run only these cases, comma-separated, or all: "+strings.Join(caseNames(false), ", ")+"; and those that take minutes each: "+strings.Join(caseNames(true), ", ")+".")
	flag.StringVar(&o.sidecar, "sidecar", "", "Measure this rockpool-sidecar instead of building one from this module.")
	flag.StringVar(&o.base, "base", "", "Compare with the run in this file, written with --json.")
	flag.BoolVar(&o.check, "check", false, "Fail if anything is worse than in the run of --base.")
	flag.Parse()
	if o.rounds == 0 {
		o.rounds = 10
		if o.short {
			o.rounds = 3
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: FAILED:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	options
	*stage
	report *report
	direct *target
	on     *target // recording
	off    *target // not recording
	nginx  *target // nil: the case has none, or it is not installed
}

// benchCase is a part of the run.
type benchCase struct {
	name string
	run  func(*bench, context.Context) error
	// nginx says that nginx is a target, too, and that allocated bytes are counted.
	nginx bool
	// long cases are only run if they are asked for.
	long bool
	// alone says that the case needs neither an API server nor the sidecars of the others.
	alone bool
}

var cases = []benchCase{
	{name: "start", run: (*bench).start},
	{name: "restart", run: (*bench).restart},
	{name: "get", run: (*bench).get, nginx: true},
	{name: "throughput", run: (*bench).throughput, nginx: true},
	{name: "list", run: (*bench).lists, nginx: true},
	{name: "filters", run: (*bench).filters},
	{name: "relist", run: (*bench).relist},
	{name: "watch", run: (*bench).watches},
	{name: "crowd", run: (*bench).crowd},
	{name: "memory", run: (*bench).memory},
	{name: "offline", run: (*bench).offline},
	{name: "admission", run: (*bench).admission},
	{name: "density", run: (*bench).density, long: true},
	{name: "cuts", run: (*bench).cuts, long: true},
	{name: "thin", run: (*bench).thin, long: true},
	{name: "saved", run: (*bench).saved, long: true},
	{name: "day", run: (*bench).day, long: true},
	{name: "large", run: (*bench).large, long: true, alone: true},
	{name: "instructions", run: (*bench).instructions, long: true, alone: true},
}

func caseNames(long bool) (names []string) {
	for _, c := range cases {
		if c.long == long {
			names = append(names, c.name)
		}
	}
	return names
}

func (o options) chosen() (chosen []benchCase, err error) {
	switch o.cases {
	case "":
		return slices.DeleteFunc(slices.Clone(cases), func(c benchCase) bool { return c.long }), nil
	case "all":
		return cases, nil
	}
	for name := range strings.SplitSeq(o.cases, ",") {
		i := slices.IndexFunc(cases, func(c benchCase) bool { return c.name == name })
		if i < 0 {
			all := slices.Concat(caseNames(false), caseNames(true))
			return nil, fmt.Errorf("--cases: %q is unknown; there are %s, and all", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, cases[i])
	}
	return chosen, nil
}

func run(ctx context.Context, o options) (err error) {
	chosen, err := o.chosen()
	if err != nil {
		return err
	}
	var before *report
	if o.base != "" {
		if before, err = readReport(o.base); err != nil {
			return fmt.Errorf("--base: %w", err)
		}
	} else if o.check {
		return errors.New("--check needs --base, the file of an earlier run")
	}
	b := &bench{options: o, report: &report{Rounds: o.rounds, Short: o.short}}
	if slices.ContainsFunc(chosen, func(c benchCase) bool { return !c.alone }) {
		if b.stage, err = newStage(ctx, o); err != nil {
			return err
		}
		defer func() {
			if stopErr := b.stop(); err == nil {
				err = stopErr
			}
		}()
	}
	b.report.describe()
	for _, c := range chosen {
		progress("case %s", c.name)
		if err := b.turn(ctx, c); err != nil {
			return fmt.Errorf("case %s: %w", c.name, err)
		}
	}
	b.report.print(os.Stdout)
	b.report.missed(before)
	var worse []regression
	if before != nil {
		worse = regressions(before, b.report)
	}
	b.report.printComparison(os.Stdout, before, worse)
	if o.json != "" {
		text, err := json.MarshalIndent(b.report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if n := len(b.report.Wrong); n > 0 {
		return fmt.Errorf("%d wrong answers or lost events, the first: %s", n, b.report.Wrong[0])
	}
	if n := len(worse); n > 0 && o.check {
		return fmt.Errorf("%d values are worse than in the run of %s", n, before.Version)
	}
	return nil
}

// turn runs one case with its own sidecars, and reports the load of the machine.
func (b *bench) turn(ctx context.Context, c benchCase) error {
	if c.alone {
		return c.run(b, ctx)
	}
	on, err := b.startSidecar(ctx, sidecarOptions{name: c.name + "-on", record: true, metrics: c.nginx})
	if err != nil {
		return err
	}
	defer on.stop()
	off, err := b.startSidecar(ctx, sidecarOptions{name: c.name + "-off", metrics: c.nginx})
	if err != nil {
		return err
	}
	defer off.stop()
	b.direct, b.on, b.off, b.nginx = b.directTarget(), b.target("on", on), b.target("off", off), nil
	if c.nginx {
		proxy, err := b.startNginx(ctx, c.name+"-nginx")
		if err != nil {
			return err
		}
		defer proxy.stop()
		if proxy != nil {
			b.nginx = b.nginxTarget(proxy)
		}
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	m := watchMachine()
	if err := c.run(b, ctx); err != nil {
		return err
	}
	load := m.load(c.name)
	b.report.Load = append(b.report.Load, load)
	progress("case %s: %s", c.name, load)
	return nil
}

// targets returns the targets of the case, in an order that rotates with the rounds.
func (b *bench) targets(round int) []*target {
	all := []*target{b.direct, b.off, b.on}
	if b.nginx != nil {
		all = append(all, b.nginx)
	}
	n := round % len(all)
	return append(all[n:len(all):len(all)], all[:n]...)
}

// progress prints a progress message.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
