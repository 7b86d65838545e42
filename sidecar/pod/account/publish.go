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
	dataNext         = "..data_tmp"
	generationFormat = "..2006_01_02_15_04_05." // and random digits
)

// generationName matches the directories that publish makes: only these are ever removed.
var generationName = regexp.MustCompile(`^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`)

// published reports whether the directory shows a generation.
func published(directory string) bool {
	_, err := os.Stat(filepath.Join(directory, dataLink))
	return err == nil
}

// publish makes directory show files, in one atomic step:
//
//	directory/..2026_11_22_10_45_00.123/token     the files
//	directory/..data -> ..2026_11_22_10_45_00.123 swapped by rename
//	directory/token  -> ..data/token              never changes
//
// It finishes or removes the leftovers of an interrupted run.
func publish(directory string, files map[string][]byte, now time.Time) (changed bool, err error) {
	if err := makeDirectory(directory); err != nil {
		return false, err
	}
	data := filepath.Join(directory, dataLink)
	current, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if current == "" || !matches(filepath.Join(directory, current), files) {
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
	if err := linkFiles(directory, files); err != nil {
		return changed, err
	}
	return changed, removeStale(directory, current, files)
}

// makeDirectory creates a missing directory, readable by every user whatever the process's
// umask. It leaves an existing directory as the kubelet made it.
func makeDirectory(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// matches reports whether a generation has exactly these files, readable by every user.
func matches(generation string, files map[string][]byte) bool {
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
	path, err := os.MkdirTemp(directory, now.UTC().Format(generationFormat))
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	// Applications run as any user, and the process's umask must not close the copy to them:
	// hence chmod after each creating call.
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

// visible returns the names that an application sees in the directory.
func visible(files map[string][]byte) map[string]bool {
	names := map[string]bool{}
	for file := range files {
		first, _, _ := strings.Cut(file, "/")
		names[first] = true
	}
	return names
}

func linkFiles(directory string, files map[string][]byte) error {
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
			return fmt.Errorf("%s: is in the way and not a link of this copy; only the sidecar may write to this directory", path)
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}

// removeStale removes links to removed files, and old generations.
func removeStale(directory, current string, files map[string][]byte) error {
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
