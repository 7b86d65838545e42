package config

import (
	"os"
	"reflect"

	"github.com/spf13/pflag"
)

// Setting is the value of a key, for people.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// Source names where the value comes from: a flag, a variable, a file, an annotation, the cluster's
	// settings at the pod's creation, or the default.
	Source string `json:"source"`
	// Pending means that the value takes effect after a restart.
	Pending bool `json:"pending,omitempty"`
}

// Describe returns all settings as they are configured now, and what is wrong in their files and
// annotations. started are those with which the sidecar has started.
func Describe(flags *pflag.FlagSet, started Config) (all []Setting, problems []error, err error) {
	r, err := resolve(flags)
	if err != nil {
		return nil, nil, err
	}
	sources := locate(flags).sources(Keys())
	for _, k := range Keys() {
		all = append(all, Setting{
			Name: k.Name, Value: r.values[k.Name], Source: describeSource(flags, k, sources),
			Pending: !k.Runtime && !r.rejected[k.Name] && !reflect.DeepEqual(r.with(started, k), started),
		})
	}
	return all, r.problems, nil
}

// describeSource names the source that combine has taken a value from.
func describeSource(flags *pflag.FlagSet, k Key, sources []source) string {
	f := flags.Lookup(k.Flag())
	if _, ok := os.LookupEnv(k.Env()); ok || f != nil && f.Changed {
		return setBy(flags, k)
	}
	from := "default"
	for _, s := range sources {
		if _, ok := s.values[k.Name]; ok {
			from = s.from
		}
	}
	return from
}
