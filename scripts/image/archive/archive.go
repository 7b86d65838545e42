// Package archive writes a container image of a few files as a tar, without a container engine.
// Like the output of `docker save` since version 25, the tar has two formats at once: an OCI image
// layout, which containerd imports, and the older manifest.json, which `docker load` and kind read.
//
// The same Image gives the same bytes, at any time and on any machine, with the same Go release,
// which determines how gzip compresses.
//
// https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Image describes an image.
type Image struct {
	// Name is the name of the loaded image, such as "rockpool:dev" or
	// "registry.example.com/edge/rockpool:v1". The default tag is "latest".
	Name     string
	Platform Platform
	// Created is the time of the image and of all its files, truncated to seconds. The zero time is
	// the start of 1970.
	Created time.Time
	// Files are all files of the image. Parent directories are added. The order does not matter.
	Files []File
	// Config has the defaults for containers.
	Config Config
}

// Config is the part of the image's configuration that containers inherit.
type Config struct {
	User       string            `json:"User,omitempty"` // a number if the image has no /etc/passwd
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

// Summary describes a written image.
type Summary struct {
	ID         string // digest of the configuration, "sha256:…": the image ID of docker and crictl
	Digest     string // digest of the manifest
	Compressed int64  // bytes that a registry stores and a node pulls
	Unpacked   int64  // bytes of the files
}

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob by its digest.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

type configuration struct {
	Created time.Time `json:"created"`
	Platform
	Config Config `json:"config"`
	RootFS rootFS `json:"rootfs"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// saved is one entry of manifest.json.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the image. It returns errors of the image before it writes the first byte.
func Write(w io.Writer, image Image) (Summary, error) {
	name, err := parseName(image.Name)
	if err != nil {
		return Summary{}, err
	}
	if err := image.Platform.validate(); err != nil {
		return Summary{}, err
	}
	if len(image.Files) == 0 {
		return Summary{}, errors.New("image has no files")
	}
	created := time.Unix(0, 0).UTC()
	if !image.Created.IsZero() {
		created = image.Created.UTC().Truncate(time.Second)
	}

	layer, err := newLayer(image.Files, created)
	if err != nil {
		return Summary{}, err
	}
	a := contents{}
	layerBlob := a.blob(typeLayer, layer.compressed)
	configBlob, err := a.json(typeConfig, configuration{
		Created: created, Platform: image.Platform, Config: image.Config,
		RootFS: rootFS{Type: "layers", DiffIDs: []string{layer.diffID}},
	})
	if err != nil {
		return Summary{}, err
	}
	manifestBlob, err := a.json(typeManifest, manifest{SchemaVersion: 2, MediaType: typeManifest, Config: configBlob, Layers: []descriptor{layerBlob}})
	if err != nil {
		return Summary{}, err
	}
	summary := Summary{
		ID: configBlob.Digest, Digest: manifestBlob.Digest,
		Compressed: layerBlob.Size + configBlob.Size + manifestBlob.Size, Unpacked: layer.unpacked,
	}
	manifestBlob.Platform = &image.Platform
	manifestBlob.Annotations = map[string]string{
		"io.containerd.image.name":          name.full(),
		"org.opencontainers.image.ref.name": name.tag,
	}
	for file, content := range map[string]any{
		"oci-layout":    map[string]string{"imageLayoutVersion": "1.0.0"},
		"index.json":    index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{manifestBlob}},
		"manifest.json": []saved{{Config: blobPath(configBlob.Digest), RepoTags: []string{name.short()}, Layers: []string{blobPath(layerBlob.Digest)}}},
	} {
		text, err := json.Marshal(content)
		if err != nil {
			return Summary{}, err
		}
		a[file] = text
	}
	return summary, a.write(w, created)
}

// contents are the files of the archive by path.
type contents map[string][]byte

func (a contents) blob(mediaType string, content []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: int64(len(content))}
	a[blobPath(d.Digest)] = content
	return d
}

func (a contents) json(mediaType string, content any) (descriptor, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return descriptor{}, err
	}
	return a.blob(mediaType, text), nil
}

func (a contents) write(w io.Writer, modified time.Time) error {
	paths := []string{"blobs/", "blobs/sha256/"}
	for path := range a {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	out := tar.NewWriter(w)
	for _, path := range paths {
		header := &tar.Header{Name: path, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(a[path])), ModTime: modified, Format: tar.FormatUSTAR}
		if strings.HasSuffix(path, "/") {
			header.Typeflag, header.Mode = tar.TypeDir, 0o755
		}
		if err := out.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if _, err := io.Copy(out, bytes.NewReader(a[path])); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return out.Close()
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobPath(digest string) string {
	return "blobs/" + strings.Replace(digest, ":", "/", 1)
}
