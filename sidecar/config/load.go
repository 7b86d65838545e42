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

// Load returns the settings from flags, the process's environment, the files that --config
// names, and the defaults. Register must have filled flags, and the caller parsed them. The
// error joins all problems, one on a line.
//
// If --config names a directory, a problem in its files is not an error: the files come from
// the cluster while the sidecar runs, and a typo in one must not keep a pod from restarting.
// Follow reports such problems.
func Load(flags *pflag.FlagSet) (Config, error) {
	r, err := resolve(flags)
	return r.Config, err
}

// resolved is the settings, and the unparsed value of each key.
type resolved struct {
	Config
	values   map[string]string
	problems []error         // in tolerated sources
	rejected map[string]bool // keys of which a tolerated source has an invalid value
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
	// Settings from the cluster may be valid alone but not together: then ignore them all.
	own, err := combine(flags, keys, slices.DeleteFunc(sources, func(s source) bool { return s.tolerated }))
	if err != nil || len(own.conflicts()) > 0 {
		return resolved{}, errors.Join(conflicts...)
	}
	own.problems = slices.Concat(r.problems, conflicts)
	for _, k := range keys {
		own.rejected[k.Name] = true
	}
	return own, nil
}

// combine merges the settings: flags override variables, which override sources, which
// override defaults. A later source overrides an earlier one.
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
	r := resolved{values: make(map[string]string, len(keys)), rejected: map[string]bool{}}
	var problems []error
	for _, s := range sources {
		if s.tolerated {
			r.problems = append(r.problems, s.problems...)
		} else {
			problems = append(problems, s.problems...)
		}
		for _, name := range s.rejected {
			r.rejected[name] = true
		}
		for name := range s.values {
			delete(r.rejected, name)
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
			problems = append(problems, fmt.Errorf("%s: %w (from %s)", k.Name, err, setBy(flags, k)))
		}
	}
	if len(problems) > 0 {
		return resolved{}, errors.Join(problems...)
	}
	return r, nil
}

// unknownEnv finds ROCKPOOL_* variables that set nothing, except those that replace defaults.
// It accepts the variables that the kubelet makes for a Service whose name begins with
// "rockpool", such as the injector's own, for pods in its namespace.
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

// serviceLink reports whether name belongs to the family <SERVICE>_SERVICE_HOST,
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

// setBy names the flag or variable that sets the key, or the default. The values of sources are
// already checked.
func setBy(flags *pflag.FlagSet, k Key) string {
	if f := flags.Lookup(k.Flag()); f != nil && f.Changed {
		return "flag --" + k.Flag()
	}
	if _, ok := os.LookupEnv(k.Env()); ok {
		return "environment variable " + k.Env()
	}
	return "default"
}
