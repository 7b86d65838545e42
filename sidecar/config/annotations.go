package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// annotationPrefix begins the name of each Rockpool annotation on a pod.
const annotationPrefix = "rockpool.dev/"

// annotations lists the pod annotations and the key that each sets. Those without a key are
// read by the injector alone, when it admits the pod.
var annotations = []struct{ name, key string }{
	{"rockpool.dev/api-names", ""},
	{"rockpool.dev/cache-agents", "cache.agents"},
	{"rockpool.dev/cache-exclude", "cache.exclude"},
	{"rockpool.dev/cache-memory-size", "cache.memory-max-size"},
	{"rockpool.dev/cache-size", "cache.max-size"},
	{"rockpool.dev/cache-volume", ""},
	{"rockpool.dev/cache-write-budget", "cache.write-budget"},
	{"rockpool.dev/cpu-limit", ""},
	{"rockpool.dev/cpu-request", ""},
	{"rockpool.dev/exclude-containers", ""},
	{"rockpool.dev/filters", "filters.choice"},
	{"rockpool.dev/image", ""},
	{"rockpool.dev/inject", ""},
	{"rockpool.dev/log-level", "log.level"},
	{"rockpool.dev/memory-limit", ""},
	{"rockpool.dev/memory-request", ""},
	{"rockpool.dev/metrics-address", ""}, // the injector sets the variable
	{"rockpool.dev/offline-election-annotations", "offline.election-annotations"},
	{"rockpool.dev/offline-events", "offline.events"},
	{"rockpool.dev/offline-leases", "offline.leases"},
	{"rockpool.dev/offline-tokens", "offline.tokens"},
	{"rockpool.dev/offline-write-patience", "offline.write-patience"},
	{"rockpool.dev/online-reads", "online.reads"},
	{"rockpool.dev/pool", "filters.pool"},
	{"rockpool.dev/port", ""}, // also in the applications' environment
	{"rockpool.dev/report", "report.kinds"},
	{"rockpool.dev/status", ""},
	{"rockpool.dev/stay", ""},
	{"rockpool.dev/upstreams", "upstream.servers"},
	{"rockpool.dev/zone", "filters.zone"},
}

// Annotations maps each pod annotation to the key that it sets; the key is empty for those
// that only the injector reads.
func Annotations() map[string]string {
	all := make(map[string]string, len(annotations))
	for _, a := range annotations {
		all[a.name] = a.key
	}
	return all
}

// readAnnotations reads the settings among the pod's annotations. A missing file has none.
func readAnnotations(path string, keys []Key) source {
	s := source{values: map[string]any{}, tolerated: true, from: "annotation"}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s
	}
	if err != nil {
		return s.rejectAll(fmt.Errorf("annotations: %w", err), keys)
	}
	for line := range strings.Lines(string(content)) {
		name, value, ok, err := parseAnnotation(line)
		if err != nil {
			s.problems = append(s.problems, fmt.Errorf("%s: %w (from file %s)", name, err, path))
			continue
		}
		if ok {
			s.annotate(name, value, keys)
		}
	}
	return s
}

func (s *source) annotate(name, value string, keys []Key) {
	i := slices.IndexFunc(annotations, func(a struct{ name, key string }) bool { return a.name == name })
	if i < 0 {
		s.problems = append(s.problems, fmt.Errorf("%s: unknown annotation", name))
		return
	}
	if annotations[i].key == "" {
		return
	}
	k := keys[slices.IndexFunc(keys, func(k Key) bool { return k.Name == annotations[i].key })]
	if value = strings.TrimSpace(value); value == "" {
		s.reject(k, errors.New("is empty; remove the annotation to use the cluster's setting"), "annotation "+name)
		return
	}
	s.add(k, value, "annotation "+name)
}

// parseAnnotation reads a line of the file that the downward API writes for
// metadata.annotations: the name, an equals sign, and the value as a Go string. ok is
// false for an annotation that is not Rockpool's.
// https://pkg.go.dev/k8s.io/kubernetes/pkg/fieldpath#FormatMap
func parseAnnotation(line string) (name, value string, ok bool, err error) {
	if !strings.HasPrefix(line, annotationPrefix) {
		return "", "", false, nil
	}
	name, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
	if value, err = strconv.Unquote(quoted); err != nil {
		return strconv.QuoteToASCII(name), "", false, errors.New("its value cannot be read")
	}
	return name, value, true, nil
}
