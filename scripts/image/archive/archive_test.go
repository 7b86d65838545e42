package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Image {
	return Image{
		Name:     "rockpool:dev",
		Platform: Platform{OS: "linux", Architecture: "arm", Variant: "v7"},
		Created:  time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC),
		Files: []File{
			{Path: "/opt/bin/b", Mode: 0o755, Content: []byte("second")},
			{Path: "/a", Mode: 0o644, Content: []byte("first")},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		},
		Config: Config{
			User: "65532:65532", Env: []string{"A=b"}, Entrypoint: []string{"/a"}, Cmd: []string{"run"}, WorkingDir: "/opt",
			Labels: map[string]string{"one": "1", "two": "2", "three": "3"},
		},
	}
}

func written(t *testing.T, image Image) ([]byte, Summary) {
	t.Helper()
	var out bytes.Buffer
	summary, err := Write(&out, image)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), summary
}

// entries reads a tar. Each entry must have the image's time and belong to root.
func entries(t *testing.T, r io.Reader, created time.Time) (map[string]string, []string) {
	t.Helper()
	content, list := map[string]string{}, []string{}
	for in := tar.NewReader(r); ; {
		header, err := in.Next()
		if err == io.EOF {
			return content, list
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.Equal(created) || header.Uid != 0 || header.Gid != 0 || header.Uname != "" {
			t.Errorf("%s: %v, %d:%d %q", header.Name, header.ModTime, header.Uid, header.Gid, header.Uname)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := content[header.Name]; twice {
			t.Errorf("%s occurs twice", header.Name)
		}
		content[header.Name] = string(text)
		list = append(list, fmt.Sprintf("%c%04o %s", header.Typeflag, header.Mode, header.Name))
	}
}

func parse[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// TestTheArchiveContainsTheImage reads the archive as containerd does, from index.json, and as
// docker does, from manifest.json, and checks every digest.
func TestTheArchiveContainsTheImage(t *testing.T) {
	image := sample()
	created := image.Created.Truncate(time.Second)
	text, summary := written(t, image)
	files, order := entries(t, bytes.NewReader(text), created)
	if !slices.IsSortedFunc(order, func(a, b string) int { return strings.Compare(a[6:], b[6:]) }) {
		t.Errorf("not in order: %q", order)
	}

	blob := func(d descriptor, mediaType string) string {
		t.Helper()
		content, found := files[blobPath(d.Digest)]
		if !found || digest([]byte(content)) != d.Digest || int64(len(content)) != d.Size || d.MediaType != mediaType {
			t.Fatalf("descriptor %+v does not match its blob of %d bytes", d, len(content))
		}
		return content
	}
	if files["oci-layout"] != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout %s", files["oci-layout"])
	}
	idx := parse[index](t, files["index.json"])
	if len(idx.Manifests) != 1 || idx.SchemaVersion != 2 || idx.MediaType != typeIndex {
		t.Fatalf("index %+v", idx)
	}
	want := map[string]string{"io.containerd.image.name": "docker.io/library/rockpool:dev", "org.opencontainers.image.ref.name": "dev"}
	if !maps.Equal(idx.Manifests[0].Annotations, want) || *idx.Manifests[0].Platform != image.Platform {
		t.Errorf("index %+v", idx.Manifests[0])
	}
	m := parse[manifest](t, blob(idx.Manifests[0], typeManifest))
	if len(m.Layers) != 1 || m.SchemaVersion != 2 || m.MediaType != typeManifest {
		t.Fatalf("manifest %+v", m)
	}
	config := blob(m.Config, typeConfig)
	packed := blob(m.Layers[0], typeLayer)

	docker := parse[[]saved](t, files["manifest.json"])
	if diff := cmp.Diff([]saved{{Config: blobPath(m.Config.Digest), RepoTags: []string{"rockpool:dev"}, Layers: []string{blobPath(m.Layers[0].Digest)}}}, docker); diff != "" {
		t.Errorf("manifest.json: %s", diff)
	}
	if len(files) != 2+3+3 { // directories, blobs, and the three files above
		t.Errorf("the archive has %q", order)
	}

	zip, err := gzip.NewReader(strings.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	// Do not decode into type configuration: the names are part of the format.
	wantConfig := map[string]any{
		"created": "2026-01-02T03:04:05Z", "os": "linux", "architecture": "arm", "variant": "v7",
		"config": map[string]any{
			"User": "65532:65532", "Env": []any{"A=b"}, "Entrypoint": []any{"/a"}, "Cmd": []any{"run"}, "WorkingDir": "/opt",
			"Labels": map[string]any{"one": "1", "two": "2", "three": "3"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []any{digest(plain)}},
	}
	if diff := cmp.Diff(wantConfig, parse[map[string]any](t, config)); diff != "" {
		t.Errorf("configuration: %s", diff)
	}
	root, list := entries(t, bytes.NewReader(plain), created)
	if want := []string{"00644 a", "50755 opt/", "50755 opt/bin/", "00755 opt/bin/b", "51777 tmp/"}; !slices.Equal(list, want) {
		t.Errorf("files %q, want %q", list, want)
	}
	if root["a"] != "first" || root["opt/bin/b"] != "second" {
		t.Errorf("content %q", root)
	}

	wantSummary := Summary{ID: m.Config.Digest, Digest: idx.Manifests[0].Digest, Compressed: int64(len(packed)+len(config)) + idx.Manifests[0].Size, Unpacked: 11}
	if summary != wantSummary {
		t.Errorf("summary %+v, want %+v", summary, wantSummary)
	}
}

func TestTheSameImageGivesTheSameBytes(t *testing.T) {
	first, _ := written(t, sample())
	again := sample()
	slices.Reverse(again.Files)
	again.Created = again.Created.In(time.FixedZone("elsewhere", 3600)).Add(time.Millisecond)
	if second, _ := written(t, again); !bytes.Equal(first, second) {
		t.Error("the order of files or the time zone changes the bytes")
	}
	for what, change := range map[string]func(*Image){
		"time":    func(i *Image) { i.Created = i.Created.Add(time.Second) },
		"content": func(i *Image) { i.Files[0].Content = []byte("other") },
		"label":   func(i *Image) { i.Config.Labels["one"] = "2" },
	} {
		other := sample()
		change(&other)
		if changed, _ := written(t, other); bytes.Equal(first, changed) {
			t.Errorf("another %s gives the same bytes", what)
		}
	}
}

func TestAnInvalidImageIsRefused(t *testing.T) {
	tests := map[string]struct {
		change func(*Image)
		want   string
	}{
		"no files":             {func(i *Image) { i.Files = nil }, "no files"},
		"a bad name":           {func(i *Image) { i.Name = "Rock" }, `name "Rock"`},
		"no platform":          {func(i *Image) { i.Platform = Platform{} }, "is not one of linux/amd64"},
		"a relative path":      {func(i *Image) { i.Files[0].Path = "bin/b" }, `"bin/b": the path must be absolute`},
		"a path with ..":       {func(i *Image) { i.Files[0].Path = "/../b" }, "absolute and clean"},
		"the root":             {func(i *Image) { i.Files[0].Path = "/" }, "absolute and clean"},
		"a file twice":         {func(i *Image) { i.Files[0].Path = "/a" }, "/a: more than one file"},
		"a file below a file":  {func(i *Image) { i.Files[0].Path = "/a/b" }, "/a is not a directory"},
		"a symbolic link":      {func(i *Image) { i.Files[0].Mode |= fs.ModeSymlink }, "must be a regular file"},
		"a setuid program":     {func(i *Image) { i.Files[0].Mode |= fs.ModeSetuid }, "without setuid"},
		"content of directory": {func(i *Image) { i.Files[2].Content = []byte("x") }, "/tmp: a directory has no content"},
		"a whiteout":           {func(i *Image) { i.Files[0].Path = "/.wh.a" }, "marks a deletion"},
		"a name too long":      {func(i *Image) { i.Files[0].Path = "/" + strings.Repeat("a", 300) }, "/aaa"},
		"a time before 1970":   {func(i *Image) { i.Created = time.Unix(-1, 0) }, "header"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			image := sample()
			test.change(&image)
			var out bytes.Buffer
			_, err := Write(&out, image)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if out.Len() != 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

func TestImageNamesAreParsed(t *testing.T) {
	tests := map[string]struct{ short, full, fail string }{
		"rockpool:dev":                         {short: "rockpool:dev", full: "docker.io/library/rockpool:dev"},
		"rockpool":                             {short: "rockpool:latest", full: "docker.io/library/rockpool:latest"},
		"edge/rockpool:v1":                     {short: "edge/rockpool:v1", full: "docker.io/edge/rockpool:v1"},
		"registry.example.com/edge/rockpool":   {short: "registry.example.com/edge/rockpool:latest", full: "registry.example.com/edge/rockpool:latest"},
		"localhost:5000/rockpool:v1.2-3_4":     {short: "localhost:5000/rockpool:v1.2-3_4", full: "localhost:5000/rockpool:v1.2-3_4"},
		"localhost/rockpool:v1":                {short: "localhost/rockpool:v1", full: "localhost/rockpool:v1"},
		"":                                     {fail: "the path"},
		"Rockpool:dev":                         {fail: "the path"},
		"rock pool:dev":                        {fail: "the path"},
		"rockpool:":                            {fail: "the tag"},
		"rockpool:.dev":                        {fail: "the tag"},
		"rockpool:" + strings.Repeat("a", 129): {fail: "the tag"},
		"-.example.com/rockpool":               {fail: "the registry"},
		"example.com:/rockpool":                {fail: "the registry"},
		"a//b":                                 {fail: "the path"},
		"rockpool@sha256:00":                   {fail: "a digest"},
		strings.Repeat("a", 255):               {fail: "the path"},
	}
	for text, test := range tests {
		n, err := parseName(text)
		if test.fail != "" {
			if err == nil || !strings.Contains(err.Error(), test.fail) || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
				t.Errorf("%q: got %v, want %q", text, err, test.fail)
			}
			continue
		}
		if err != nil || n.short() != test.short || n.full() != test.full {
			t.Errorf("%q: %q, %q, %v", text, n.short(), n.full(), err)
		}
	}
}

// FuzzName checks that the two forms of a valid name are parsed as that name.
func FuzzName(f *testing.F) {
	for _, seed := range []string{"rockpool:dev", "a.b/c", "localhost:5000/a/b:c", "x__y", "a:b:c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseName(text)
		if err != nil {
			return
		}
		for _, form := range []string{n.short(), n.full()} {
			again, err := parseName(form)
			if err != nil || again.full() != n.full() {
				t.Errorf("%q: %q is parsed as %+v, %v", text, form, again, err)
			}
		}
	})
}

func TestPlatformsAreParsed(t *testing.T) {
	for _, text := range []string{"linux/amd64", "linux/arm64", "linux/arm/v7"} {
		if p, err := ParsePlatform(text); err != nil || p.String() != text {
			t.Errorf("%s: %s, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "linux", "linux/arm", "linux/arm/v6", "linux/amd64/v2", "windows/amd64", "linux/arm/v7/x"} {
		if p, err := ParsePlatform(text); err == nil || !strings.Contains(err.Error(), "linux/arm/v7") {
			t.Errorf("%s: %+v, %v; want an error with the allowed platforms", text, p, err)
		}
	}
}
