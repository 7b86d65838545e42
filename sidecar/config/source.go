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

// Files in a directory that --config names.
const (
	// FileName is the file with settings.
	FileName = "rockpool.yaml"
	// AnnotationsFileName is the file with the pod's annotations, as the downward API
	// writes it.
	AnnotationsFileName = "annotations"
)

// source is what one place says about settings, as far as it is right.
type source struct {
	values    map[string]any // by key; strings, as they would be written in a flag
	problems  []error
	left      []string // keys of which the value was left out
	tolerated bool     // its problems do not keep the sidecar from starting
}

// add takes a value, or tells what is wrong with it.
func (s *source) add(k Key, value string, from string) {
	if err := k.Check(value); err != nil {
		s.refuse(k, err, from)
		return
	}
	s.values[k.Name] = value
}

func (s *source) refuse(k Key, err error, from string) {
	s.left = append(s.left, k.Name)
	s.problems = append(s.problems, fmt.Errorf("%s: %w (from %s)", k.Name, err, from))
}

// place is what --config names.
type place struct {
	path      string // empty: there is none
	directory bool
}

// locate finds what --config names. In a directory files may come and go: so it is in a
// volume of an optional ConfigMap, which is an empty directory until there is one. A
// file that is named itself must be there, because a misspelt name would else go
// unnoticed.
func locate(flags *pflag.FlagSet) place {
	path := os.Getenv(envName(ConfigFlag))
	if f := flags.Lookup(ConfigFlag); f != nil && f.Changed {
		path = f.Value.String()
	}
	info, err := os.Stat(path)
	return place{path, err == nil && info.IsDir()}
}

// watched is the directory in which changes show, because files in it are replaced by
// renaming: by editors, and by the kubelet, which renames ..data, the link that they
// are behind.
func (p place) watched() string {
	if p.directory {
		return p.path
	}
	return filepath.Dir(p.path)
}

// sources gives what is below flags and variables, the least first.
func (p place) sources(keys []Key) []source {
	sources := []source{environmentDefaults(os.Environ(), keys)}
	switch {
	case p.directory:
		file := readFile(filepath.Join(p.path, FileName), keys, p.path)
		annotations := readAnnotations(filepath.Join(p.path, AnnotationsFileName), keys)
		sources = append(sources, file, annotations)
	case p.path != "":
		sources = append(sources, readFile(p.path, keys, ""))
	}
	return sources
}

// environmentDefaults reads the variables with which the injector has noted what held in
// the cluster when the pod was admitted. A newer injector may note what this version
// does not know.
func environmentDefaults(environ []string, keys []Key) source {
	s := source{values: map[string]any{}, tolerated: true}
	slices.Sort(environ)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, defaultPrefix) {
			continue
		}
		i := slices.IndexFunc(keys, func(k Key) bool { return k.DefaultEnv() == name })
		if i < 0 {
			s.problems = append(s.problems, fmt.Errorf("%s: unknown environment variable%s", name, suggest(name, keys, Key.DefaultEnv)))
			continue
		}
		s.add(keys[i], strings.TrimSpace(value), "environment variable "+name)
	}
	return s
}

// readFile reads a YAML file. In a directory, which must be given then, it may be
// missing, and is tolerated.
func readFile(path string, keys []Key, directory string) source {
	s := source{values: map[string]any{}, tolerated: directory != ""}
	content, err := os.ReadFile(path)
	if s.tolerated && errors.Is(err, fs.ErrNotExist) {
		return s
	}
	if err != nil {
		return s.unreadable(fmt.Errorf("configuration file: %w", err), keys)
	}
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(content)); err != nil {
		return s.unreadable(fmt.Errorf("configuration file %s: %w", path, err), keys)
	}
	names := v.AllKeys()
	slices.Sort(names)
	for _, name := range names {
		switch {
		case slices.ContainsFunc(keys, func(k Key) bool { return k.Name == name }):
		case v.Get(name) == nil: // "upstream:" with nothing below it
		case slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, name+".") }):
			s.problems = append(s.problems, fmt.Errorf("%s: a section cannot have a value (from file %s)", name, path))
		default:
			s.problems = append(s.problems, fmt.Errorf("%s: unknown key%s (from file %s)", name, suggest(name, keys, Key.Flag), path))
		}
	}
	for _, k := range keys {
		if !v.InConfig(k.Name) {
			continue
		}
		value, err := k.plain(v.Get(k.Name))
		if err == nil && s.tolerated {
			err = k.trusted(value, directory)
		}
		if err != nil {
			s.refuse(k, err, "file "+path)
			continue
		}
		s.add(k, value, "file "+path)
	}
	return s
}

// unreadable says nothing of any key.
func (s source) unreadable(err error, keys []Key) source {
	s.problems = append(s.problems, err)
	for _, k := range keys {
		s.left = append(s.left, k.Name)
	}
	return s
}

// trusted refuses authorities for servers out of the directory that the settings
// themselves are in. Who may write a ConfigMap in the namespace, as many programs may,
// would else be able to have the pod's token sent to a server of his own.
func (k Key) trusted(value, directory string) error {
	var c Config
	if k.Type != typeServers || k.set(&c, value) != nil {
		return nil // what is wrong with the value is told elsewhere
	}
	for _, s := range c.Upstream.Servers {
		if s.CAFile != "" && (within(s.CAFile, directory) || within(withoutLinks(s.CAFile), withoutLinks(directory))) {
			return fmt.Errorf("%s: %s: %q is in the directory of the settings; another directory is allowed", s.URL, fieldCA, s.CAFile)
		}
	}
	return nil
}

// withoutLinks follows the links in a path, of which /proc has some that lead anywhere. What is not there
// stays as it is written.
func withoutLinks(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
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
