package account

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	dataNext = "..data_tmp"
	stamp    = "..2006_01_02_15_04_05." // and random digits
)

// generationName matches the directories that publish makes, so that nothing
// else is ever removed.
var generationName = regexp.MustCompile(`^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`)

// written tells whether a generation has been published.
func written(directory string) bool {
	_, err := os.Stat(filepath.Join(directory, dataLink))
	return err == nil
}

// publish makes directory show files, all at once:
//
//	directory/..2026_11_22_10_45_00.123/token     the files
//	directory/..data -> ..2026_11_22_10_45_00.123 swapped by rename
//	directory/token  -> ..data/token              stays as it is
//
// Whatever an earlier run left half done is finished or removed.
func publish(directory string, files map[string][]byte, now time.Time) (changed bool, err error) {
	if err := makeDirectory(directory); err != nil {
		return false, err
	}
	data := filepath.Join(directory, dataLink)
	current, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if current == "" || !shows(filepath.Join(directory, current), files) {
		changed = true
		next, err := writeGeneration(directory, files, now)
		if err == nil {
			err = swap(directory, next)
		}
		if err != nil {
			if next != "" {
				os.RemoveAll(filepath.Join(directory, next))
			}
			return false, err
		}
		current = next
	}
	if err := link(directory, files); err != nil {
		return changed, err
	}
	return changed, tidy(directory, current, files)
}

// makeDirectory makes what is missing, for everybody to read whatever the
// process's umask; a directory that is there is left as the kubelet made it.
func makeDirectory(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// shows tells whether a generation is just these files, readable by everybody.
func shows(generation string, files map[string][]byte) bool {
	have, err := readTree(generation)
	if err != nil || !maps.EqualFunc(have, files, bytes.Equal) {
		return false
	}
	for name := range files {
		if info, err := os.Lstat(filepath.Join(generation, filepath.FromSlash(name))); err != nil || info.Mode() != 0o644 {
			return false
		}
	}
	return true
}

func writeGeneration(directory string, files map[string][]byte, now time.Time) (string, error) {
	path, err := os.MkdirTemp(directory, now.UTC().Format(stamp))
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	// The process's umask must not close the copy to applications, which run as
	// any user: hence chmod, not the mode of the creating call alone.
	if err := os.Chmod(path, 0o755); err != nil {
		return name, err
	}
	for file, content := range files {
		parent := path
		for _, level := range strings.Split(filepath.Dir(filepath.FromSlash(file)), string(filepath.Separator)) {
			if level == "." {
				continue
			}
			parent = filepath.Join(parent, level)
			if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return name, err
			}
			if err := os.Chmod(parent, 0o755); err != nil {
				return name, err
			}
		}
		full := filepath.Join(path, filepath.FromSlash(file))
		if err := os.WriteFile(full, content, 0o644); err != nil {
			return name, err
		}
		if err := os.Chmod(full, 0o644); err != nil {
			return name, err
		}
	}
	return name, nil
}

func swap(directory, generation string) error {
	next := filepath.Join(directory, dataNext)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(generation, next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(directory, dataLink))
}

// visible gives the names that the user sees in the directory.
func visible(files map[string][]byte) map[string]bool {
	names := map[string]bool{}
	for file := range files {
		first, _, _ := strings.Cut(file, "/")
		names[first] = true
	}
	return names
}

func link(directory string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(visible(files))) {
		path, target := filepath.Join(directory, name), filepath.Join(dataLink, name)
		have, err := os.Readlink(path)
		switch {
		case err == nil && have == target:
			continue
		case err == nil:
			if err := os.Remove(path); err != nil {
				return err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: is in the way and not a link of this copy; the directory must be the sidecar's alone", path)
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes links to files that are gone and generations that are past.
func tidy(directory, current string, files map[string][]byte) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return err
	}
	names := visible(files)
	var failed []error
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(directory, name)
		switch {
		case name == current:
		case name == dataNext, entry.IsDir() && generationName.MatchString(name):
			failed = append(failed, os.RemoveAll(path))
		case !names[name] && entry.Type() == fs.ModeSymlink:
			if target, err := os.Readlink(path); err == nil && target == filepath.Join(dataLink, name) {
				failed = append(failed, os.Remove(path))
			}
		}
	}
	return errors.Join(failed...)
}
