package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Load gives the settings from flags (which Register must have filled and the
// caller parsed), the process's environment, the file that --config names, and
// the defaults. The error joins all problems, one on a line.
func Load(flags *pflag.FlagSet) (Config, error) {
	r, err := resolve(flags)
	return r.Config, err
}

// resolved is settings, and the value of each key as it was written.
type resolved struct {
	Config
	values map[string]string
}

func resolve(flags *pflag.FlagSet) (resolved, error) {
	v := viper.New()
	// An empty variable is a value: ROCKPOOL_METRICS_ADDRESS= turns metrics off.
	v.AllowEmptyEnv(true)
	keys := Keys()
	for _, k := range keys {
		v.SetDefault(k.Name, k.Default)
		if err := v.BindEnv(k.Name, k.Env()); err != nil {
			return resolved{}, fmt.Errorf("bind %s: %w", k.Env(), err)
		}
		if err := v.BindPFlag(k.Name, flags.Lookup(k.Flag())); err != nil {
			return resolved{}, fmt.Errorf("bind --%s: %w", k.Flag(), err)
		}
	}

	file := locate(flags)
	problems := file.read(v, keys)
	problems = append(problems, unknownEnv(os.Environ(), keys)...)

	r := resolved{values: make(map[string]string, len(keys))}
	for _, k := range keys {
		source, given := origin(flags, v, file.path, k)
		raw, err := k.plain(v.Get(k.Name))
		if err == nil {
			r.values[k.Name] = raw
			err = k.set(&r.Config, raw)
		}
		if err == nil {
			continue
		}
		// What the user did not write, the user cannot mend.
		if !given {
			source = "default"
		}
		problems = append(problems, fmt.Errorf("%s: %w (from %s)", k.Name, err, source))
	}
	if len(problems) == 0 {
		problems = r.conflicts()
	}
	if len(problems) > 0 {
		return resolved{}, errors.Join(problems...)
	}
	return r, nil
}

// FileName is the file's name in a directory that --config names.
const FileName = "rockpool.yaml"

// file is the configuration file.
type file struct {
	path     string // empty: there is none
	optional bool   // it may be absent
}

// locate finds the file that --config names. Where that is a directory, it is the
// one of FileName in it, which may come and go: so it is in a volume of an optional
// ConfigMap, which is an empty directory until there is one. A file that is named
// itself must be there, because a misspelt name would else go unnoticed.
func locate(flags *pflag.FlagSet) file {
	path := os.Getenv(envName(ConfigFlag))
	if f := flags.Lookup(ConfigFlag); f != nil && f.Changed {
		path = f.Value.String()
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return file{filepath.Join(path, FileName), true}
	}
	return file{path: path}
}

// read merges the file into v, when there is one.
func (f file) read(v *viper.Viper, keys []Key) (problems []error) {
	path := f.path
	if path == "" {
		return nil
	}
	content, err := os.ReadFile(path)
	if f.optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("configuration file: %w", err)}
	}
	// A viper of its own: the main one also lists flags and defaults as keys.
	own := viper.New()
	own.SetConfigType("yaml")
	if err := own.ReadConfig(bytes.NewReader(content)); err != nil {
		return []error{fmt.Errorf("configuration file %s: %w", path, err)}
	}
	names := own.AllKeys()
	slices.Sort(names)
	shadowed := false
	for _, name := range names {
		switch {
		case slices.ContainsFunc(keys, func(k Key) bool { return k.Name == name }):
		case own.Get(name) == nil: // "upstream:" with nothing below it
		case slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, name+".") }):
			shadowed = true
			problems = append(problems, fmt.Errorf("%s: a section cannot have a value (from file %s)", name, path))
		default:
			problems = append(problems, fmt.Errorf("%s: unknown key%s (from file %s)", name, suggest(name, keys, Key.Flag), path))
		}
	}
	if shadowed {
		return problems // viper would take the keys of that section for set, and empty
	}
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(content)); err != nil {
		problems = append(problems, fmt.Errorf("configuration file %s: %w", path, err))
	}
	return problems
}

// unknownEnv finds ROCKPOOL_* variables that set nothing. Variables that the
// kubelet makes for a Service whose name begins with "rockpool" (such as the
// injector's own, for pods in its namespace) are not ours to refuse.
func unknownEnv(environ []string, keys []Key) (problems []error) {
	set := map[string]bool{}
	for _, e := range environ {
		if name, _, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, EnvPrefix) {
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

// origin says where viper takes the key from; given is false for a default.
func origin(flags *pflag.FlagSet, v *viper.Viper, path string, k Key) (source string, given bool) {
	if f := flags.Lookup(k.Flag()); f != nil && f.Changed {
		return "flag --" + k.Flag(), true
	}
	if _, ok := os.LookupEnv(k.Env()); ok {
		return "environment variable " + k.Env(), true
	}
	if v.InConfig(k.Name) {
		return "file " + path, true
	}
	return "default", false
}

// plain is a value as it would be written in a flag.
func (k Key) plain(value any) (string, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case string:
		return strings.TrimSpace(value), nil
	case []any:
		parts := make([]string, len(value))
		for i, v := range value {
			part, err := k.part(v)
			if err != nil {
				return "", fmt.Errorf("entry %d: %w", i+1, err)
			}
			parts[i] = part
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return "", errors.New("has keys below it; a single value is allowed")
	}
	return fmt.Sprint(value), nil
}

// part is a value in a list.
func (k Key) part(value any) (string, error) {
	if fields, ok := value.(map[string]any); ok && k.Type == typeServers {
		return mapping(fields)
	}
	return k.plain(value)
}
