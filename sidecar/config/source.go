package config

import (
	"bytes"
	"crypto/sha256"
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

// source is the settings from one file or from the environment.
type source struct {
	values    map[string]any // valid ones by key, as strings in the form of a flag
	problems  []error
	rejected  []string // keys with an invalid value
	tolerated bool     // the sidecar starts despite the problems
	from      string   // its name for people
}

// add stores a valid value, and rejects an invalid one.
func (s *source) add(k Key, value string, from string) {
	if err := k.Check(value); err != nil {
		s.reject(k, err, from)
		return
	}
	s.values[k.Name] = value
}

func (s *source) reject(k Key, err error, from string) {
	s.rejected = append(s.rejected, k.Name)
	s.problems = append(s.problems, fmt.Errorf("%s: %w (from %s)", k.Name, err, from))
}

// origin is the file or directory that --config names.
type origin struct {
	path      string // empty = --config is not set
	directory bool
}

// locate finds the origin that --config names. Files in a directory may come and go: the
// volume of an optional ConfigMap is an empty directory until the ConfigMap exists. A file
// that --config names must exist, because a misspelt name would otherwise go unnoticed.
func locate(flags *pflag.FlagSet) origin {
	path := os.Getenv(envName(ConfigFlag))
	if f := flags.Lookup(ConfigFlag); f != nil && f.Changed {
		path = f.Value.String()
	}
	info, err := os.Stat(path)
	return origin{path, err == nil && info.IsDir()}
}

// watchDirectory is the directory to watch. A watch on a file would miss its replacement by
// renaming: editors rename the file itself, and the kubelet renames the link ..data, which
// the file's path goes through.
func (o origin) watchDirectory() string {
	if o.directory {
		return o.path
	}
	return filepath.Dir(o.path)
}

// digest is a hash of what the origin's files have in them. A file that cannot be read counts as one
// without content, with its error.
func (o origin) digest() (sum [sha256.Size]byte) {
	paths := []string{o.path}
	if o.directory {
		paths = []string{filepath.Join(o.path, FileName), filepath.Join(o.path, AnnotationsFileName)}
	}
	hash := sha256.New()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		fmt.Fprintf(hash, "%v %d\n", err, len(content))
		hash.Write(content)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// sources returns the sources that flags and variables override, lowest precedence first.
func (o origin) sources(keys []Key) []source {
	sources := []source{environmentDefaults(os.Environ(), keys)}
	switch {
	case o.directory:
		file := readFile(filepath.Join(o.path, FileName), keys, o.path)
		annotations := readAnnotations(filepath.Join(o.path, AnnotationsFileName), keys)
		sources = append(sources, file, annotations)
	case o.path != "":
		sources = append(sources, readFile(o.path, keys, ""))
	}
	return sources
}

// environmentDefaults reads the variables in which the injector recorded the cluster's
// settings when it admitted the pod. A newer injector may record keys that this version does
// not know.
func environmentDefaults(environ []string, keys []Key) source {
	s := source{values: map[string]any{}, tolerated: true, from: "cluster's settings when the pod was created"}
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

// readFile reads a YAML file. A file in a directory may be missing, and its problems are
// tolerated; directory is empty for a file that --config names itself.
func readFile(path string, keys []Key, directory string) source {
	s := source{values: map[string]any{}, tolerated: directory != "", from: "file " + path}
	content, err := os.ReadFile(path)
	if s.tolerated && errors.Is(err, fs.ErrNotExist) {
		return s
	}
	if err != nil {
		return s.rejectAll(fmt.Errorf("configuration file: %w", err), keys)
	}
	v := viper.New()
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(content)); err != nil {
		return s.rejectAll(fmt.Errorf("configuration file %s: %w", path, err), keys)
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
		value, err := k.flagValue(v.Get(k.Name))
		if err == nil && s.tolerated {
			err = k.checkCAFiles(value, directory)
		}
		if err != nil {
			s.reject(k, err, "file "+path)
			continue
		}
		s.add(k, value, "file "+path)
	}
	return s
}

// rejectAll rejects every key, because the source cannot be read.
func (s source) rejectAll(err error, keys []Key) source {
	s.problems = append(s.problems, err)
	for _, k := range keys {
		s.rejected = append(s.rejected, k.Name)
	}
	return s
}

// checkCAFiles rejects CA files for servers in the directory of the settings. Many programs
// may write ConfigMaps in the namespace: with a CA file of their own, they could have the
// pod's token sent to a server of their own.
func (k Key) checkCAFiles(value, directory string) error {
	var c Config
	if k.Type != typeServers || k.set(&c, value) != nil {
		return nil // add reports an invalid value
	}
	for _, s := range c.Upstream.Servers {
		if s.CAFile != "" && (within(s.CAFile, directory) || within(resolveLinks(s.CAFile), resolveLinks(directory))) {
			return fmt.Errorf("%s: %s: %q is in the directory of the settings; another directory is allowed",
				s.URL, fieldCA, s.CAFile)
		}
	}
	return nil
}

// resolveLinks follows the symbolic links in a path; some below /proc lead anywhere. It
// returns a path that does not exist unchanged.
func resolveLinks(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// flagValue converts a value from a file to the form of a flag.
func (k Key) flagValue(value any) (string, error) {
	switch value := value.(type) {
	case nil:
		return "", nil
	case string:
		return strings.TrimSpace(value), nil
	case []any:
		parts := make([]string, len(value))
		for i, v := range value {
			part, err := k.listEntry(v)
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

// listEntry converts an entry of a list.
func (k Key) listEntry(value any) (string, error) {
	if fields, ok := value.(map[string]any); ok && k.Type == typeServers {
		return mappingEntry(fields)
	}
	return k.flagValue(value)
}
