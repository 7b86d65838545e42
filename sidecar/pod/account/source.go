package account

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	dataLink = "..data" // the kubelet's name for the link to the current generation
	// maxSize limits the copy: it takes the pod's memory, and twice as much during a change.
	maxSize = 256 << 10
	// attempts limits how often a read restarts because its generation was replaced.
	attempts = 5
)

// readSource returns all files of one generation by their slash-separated paths. read is
// readTree, except in tests.
func readSource(directory string, read func(string) (map[string][]byte, error)) (files map[string][]byte, err error) {
	for range attempts {
		generation, linked := directory, false
		switch target, err := os.Readlink(filepath.Join(directory, dataLink)); {
		case err == nil:
			generation, linked = filepath.Join(directory, target), true
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		files, err = read(generation)
		if linked && errors.Is(err, fs.ErrNotExist) {
			continue // the kubelet has removed the generation
		}
		if err != nil {
			return nil, err
		}
		if !linked {
			return files, nil
		}
		// The kubelet removes a generation file by file: the files are complete only if the
		// generation is still current after the read.
		if target, err := os.Readlink(filepath.Join(directory, dataLink)); err == nil && filepath.Join(directory, target) == generation {
			return files, nil
		}
	}
	if err == nil {
		err = errors.New("keeps changing while it is read")
	}
	return nil, fmt.Errorf("%s: %w", directory, err)
}

// readTree reads all regular files, and follows links to such files: a directory that is not
// the kubelet's may consist of links. It skips names that begin with "..", the volume's own
// bookkeeping.
func readTree(directory string) (map[string][]byte, error) {
	files := map[string][]byte{}
	total := 0
	err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == directory {
			return nil
		}
		if strings.HasPrefix(entry.Name(), "..") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		content, err := readLimited(path, maxSize-total)
		if err != nil {
			return err
		}
		total += len(content)
		name, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)] = content
		return nil
	})
	return files, err
}

func readLimited(path string, limit int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(content) > limit {
		return nil, fmt.Errorf("%s: the service-account directory has more than %d bytes", path, maxSize)
	}
	return content, nil
}
