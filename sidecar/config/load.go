package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Load gives the settings from flags (which Register must have filled and the
// caller parsed), the process's environment, the files that --config names, and
// the defaults. The error joins all problems, one on a line.
//
// What is wrong in a directory that --config names is no error: those files come
// from the cluster while the sidecar runs, and a bad word in one must not keep a pod
// from starting again. Follow tells of it.
func Load(flags *pflag.FlagSet) (Config, error) {
	r, err := resolve(flags)
	return r.Config, err
}

// resolved is settings, and the value of each key as it was written.
type resolved struct {
	Config
	values   map[string]string
	problems []error         // of sources that are tolerated
	left     map[string]bool // keys with a value that was left out for one of them
}

func resolve(flags *pflag.FlagSet) (resolved, error) {
	keys := Keys()
	sources := locate(flags).sources(keys)
	r, err := combine(flags, keys, sources)
	if err != nil {
		return resolved{}, err
	}
	conflicts := r.conflicts()
	if len(conflicts) == 0 {
		return r, nil
	}
	// What comes from the cluster may be right each and wrong together: then none of
	// it counts.
	own, err := combine(flags, keys, slices.DeleteFunc(sources, func(s source) bool { return s.tolerated }))
	if err != nil || len(own.conflicts()) > 0 {
		return resolved{}, errors.Join(conflicts...)
	}
	own.problems = slices.Concat(r.problems, conflicts)
	for _, k := range keys {
		own.left[k.Name] = true
	}
	return own, nil
}

// combine puts flags before variables before sources, of which later ones come before
// earlier ones, before defaults.
func combine(flags *pflag.FlagSet, keys []Key, sources []source) (resolved, error) {
	v := viper.New()
	// An empty variable is a value: ROCKPOOL_METRICS_ADDRESS= turns metrics off.
	v.AllowEmptyEnv(true)
	for _, k := range keys {
		v.SetDefault(k.Name, k.Default)
		if err := v.BindEnv(k.Name, k.Env()); err != nil {
			return resolved{}, fmt.Errorf("bind %s: %w", k.Env(), err)
		}
		if err := v.BindPFlag(k.Name, flags.Lookup(k.Flag())); err != nil {
			return resolved{}, fmt.Errorf("bind --%s: %w", k.Flag(), err)
		}
	}
	r := resolved{values: make(map[string]string, len(keys)), left: map[string]bool{}}
	var problems []error
	for _, s := range sources {
		if s.tolerated {
			r.problems = append(r.problems, s.problems...)
		} else {
			problems = append(problems, s.problems...)
		}
		for _, name := range s.left {
			r.left[name] = true
		}
		for name := range s.values {
			delete(r.left, name)
		}
		if err := v.MergeConfigMap(s.values); err != nil {
			return resolved{}, fmt.Errorf("configuration: %w", err)
		}
	}
	problems = append(problems, unknownEnv(os.Environ(), keys)...)
	for _, k := range keys {
		raw := strings.TrimSpace(v.GetString(k.Name))
		r.values[k.Name] = raw
		if err := k.set(&r.Config, raw); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w (from %s)", k.Name, err, origin(flags, k)))
		}
	}
	if len(problems) > 0 {
		return resolved{}, errors.Join(problems...)
	}
	return r, nil
}

// unknownEnv finds ROCKPOOL_* variables that set nothing, but for those that replace
// defaults. Variables that the
// kubelet makes for a Service whose name begins with "rockpool" (such as the
// injector's own, for pods in its namespace) are not ours to refuse.
func unknownEnv(environ []string, keys []Key) (problems []error) {
	set := map[string]bool{}
	for _, e := range environ {
		if name, _, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, EnvPrefix) && !strings.HasPrefix(name, defaultPrefix) {
			set[name] = true
		}
	}
	for name := range set {
		known := name == envName(ConfigFlag) || slices.ContainsFunc(keys, func(k Key) bool { return k.Env() == name })
		if known || serviceLink(name, set) {
			continue
		}
		problems = append(problems, fmt.Errorf("%s: unknown environment variable%s", name, suggest(name, keys, Key.Env)))
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

// serviceLink tells whether name is of the family <SERVICE>_SERVICE_HOST,
// <SERVICE>_SERVICE_PORT..., <SERVICE>_PORT... of one Service.
// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
func serviceLink(name string, set map[string]bool) bool {
	for host := range set {
		service, ok := strings.CutSuffix(host, "_SERVICE_HOST")
		if !ok {
			continue
		}
		rest, ok := strings.CutPrefix(name, service+"_")
		if ok && (rest == "SERVICE_HOST" || rest == "SERVICE_PORT" || rest == "PORT" ||
			strings.HasPrefix(rest, "SERVICE_PORT_") || strings.HasPrefix(rest, "PORT_")) {
			return true
		}
	}
	return false
}

// origin says where the key's value is from. Sources have been checked.
func origin(flags *pflag.FlagSet, k Key) string {
	if f := flags.Lookup(k.Flag()); f != nil && f.Changed {
		return "flag --" + k.Flag()
	}
	if _, ok := os.LookupEnv(k.Env()); ok {
		return "environment variable " + k.Env()
	}
	return "default"
}
