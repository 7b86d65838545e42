package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
)

// benchCase is a part of the run.
type benchCase struct {
	name string
	run  func(*bench, context.Context) error
	// seconds is about how long it takes on two quiet CPUs, with the objects that it creates.
	seconds int
	// nginx says that nginx is a target, too, and that allocated bytes are counted.
	nginx bool
	// long cases are only run if they are asked for.
	long bool
	// alone says that the case needs neither an API server nor the sidecars of the others.
	alone bool
}

var cases = []benchCase{
	{name: "start", run: (*bench).start, seconds: 6},
	{name: "restart", run: (*bench).restart, seconds: 22},
	{name: "get", run: (*bench).get, seconds: 21, nginx: true},
	{name: "throughput", run: (*bench).throughput, seconds: 72, nginx: true},
	{name: "list", run: (*bench).lists, seconds: 90, nginx: true},
	{name: "filters", run: (*bench).filters, seconds: 38},
	{name: "relist", run: (*bench).relist, seconds: 6},
	{name: "watch", run: (*bench).watches, seconds: 68},
	{name: "crowd", run: (*bench).crowd, seconds: 65},
	{name: "informer", run: (*bench).informerStarts, seconds: 50},
	{name: "memory", run: (*bench).memory, seconds: 8},
	{name: "offline", run: (*bench).offline, seconds: 66},
	{name: "admission", run: (*bench).admission, seconds: 78},
	{name: "density", run: (*bench).density, seconds: 1080, long: true},
	{name: "cuts", run: (*bench).cuts, seconds: 540, long: true},
	{name: "thin", run: (*bench).thin, seconds: 120, long: true},
	{name: "saved", run: (*bench).saved, seconds: 300, long: true},
	{name: "day", run: (*bench).day, seconds: 840, long: true},
	{name: "large", run: (*bench).large, seconds: 180, long: true, alone: true},
	{name: "instructions", run: (*bench).instructions, seconds: 120, long: true, alone: true},
}

func caseNames() (names []string) {
	for _, c := range cases {
		names = append(names, c.name)
	}
	return names
}

// usage prints the flags, and the cases with how long they take.
func usage() {
	out := flag.CommandLine.Output()
	fmt.Fprintf(out, "Usage of bench: without --cases it takes about %d minutes on two quiet CPUs.\n", minutes(cases))
	flag.PrintDefaults()
	fmt.Fprintln(out, "\nCases, and about how many seconds each takes:")
	for _, c := range cases {
		long := ""
		if c.long {
			long = "  only with --cases"
		}
		fmt.Fprintf(out, "  %-12s %5d%s\n", c.name, c.seconds, long)
	}
}

// minutes is about how long the cases take that are not long, with the start of the API server.
func minutes(all []benchCase) int {
	seconds := 20
	for _, c := range all {
		if !c.long {
			seconds += c.seconds
		}
	}
	return (seconds + 59) / 60
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
			return nil, fmt.Errorf("--cases: %q is unknown; there are %s, and all", name, strings.Join(caseNames(), ", "))
		}
		chosen = append(chosen, cases[i])
	}
	return chosen, nil
}
