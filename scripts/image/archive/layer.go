package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// File is a file or an empty directory of the image, owned by root.
type File struct {
	Path    string      // absolute and clean, such as "/bin/app"
	Mode    fs.FileMode // permissions; fs.ModeDir for a directory, fs.ModeSticky for one like /tmp
	Content []byte
}

// layer is the file system of the image.
type layer struct {
	compressed []byte
	diffID     string // digest of the uncompressed layer
	unpacked   int64
}

func newLayer(files []File, modified time.Time) (layer, error) {
	files, err := withParents(files)
	if err != nil {
		return layer{}, err
	}
	var l layer
	var plain bytes.Buffer
	out := tar.NewWriter(&plain)
	for _, f := range files {
		header := &tar.Header{
			Name: f.Path[1:], Typeflag: tar.TypeReg, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Content)),
			ModTime: modified, Format: tar.FormatUSTAR,
		}
		if f.Mode.IsDir() {
			header.Name, header.Typeflag = header.Name+"/", tar.TypeDir
		}
		if f.Mode&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		if err := out.WriteHeader(header); err != nil {
			return layer{}, fmt.Errorf("file %s: %w", f.Path, err)
		}
		if _, err := out.Write(f.Content); err != nil {
			return layer{}, fmt.Errorf("file %s: %w", f.Path, err)
		}
		l.unpacked += int64(len(f.Content))
	}
	if err := out.Close(); err != nil {
		return layer{}, err
	}
	l.diffID = digest(plain.Bytes())

	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression) // its header has no time by default
	if err != nil {
		return layer{}, err
	}
	if _, err := zip.Write(plain.Bytes()); err != nil {
		return layer{}, err
	}
	if err := zip.Close(); err != nil {
		return layer{}, err
	}
	l.compressed = packed.Bytes()
	return l, nil
}

// withParents checks the files and adds their parent directories. It sorts them by path, so that
// each comes after its parent.
func withParents(files []File) ([]File, error) {
	all := map[string]File{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("file %q: the path must be absolute and clean, such as /bin/app", f.Path)
		}
		if strings.HasPrefix(path.Base(f.Path), ".wh.") {
			return nil, fmt.Errorf("file %s: a name that begins with .wh. marks a deletion in image layers", f.Path)
		}
		if f.Mode&^(fs.ModeDir|fs.ModeSticky|fs.ModePerm) != 0 {
			return nil, fmt.Errorf("file %s: mode %s: must be a regular file or a directory, without setuid and setgid", f.Path, f.Mode)
		}
		if f.Mode.IsDir() && len(f.Content) > 0 {
			return nil, fmt.Errorf("file %s: a directory has no content", f.Path)
		}
		if _, twice := all[f.Path]; twice {
			return nil, fmt.Errorf("file %s: more than one file has this path", f.Path)
		}
		all[f.Path] = f
	}
	for _, f := range files {
		for parent := path.Dir(f.Path); parent != "/"; parent = path.Dir(parent) {
			p, found := all[parent]
			if found && !p.Mode.IsDir() {
				return nil, fmt.Errorf("file %s: %s is not a directory", f.Path, parent)
			}
			if !found {
				all[parent] = File{Path: parent, Mode: fs.ModeDir | 0o755}
			}
		}
	}
	sorted := make([]File, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return sorted, nil
}
