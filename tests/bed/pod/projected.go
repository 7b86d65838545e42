package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A projection is a volume whose files come from the API server. All changes appear at once: names
// are links through ..data, which is a link to a directory with a time in its name
// (pkg/volume/util/atomic_writer.go).
type projection struct {
	path        string
	defaultMode fs.FileMode
	sources     []corev1.VolumeProjection

	mu sync.Mutex // one update at a time
}

// A payload is the content of a projection by path.
type payload map[string]payloadFile

type payloadFile struct {
	data []byte
	mode fs.FileMode
	user int // owner; -1: root
}

// project creates a projected volume and, without LateProjections, fills it.
func (p *Runner) project(ctx context.Context, name, path string, mode *int32, sources []corev1.VolumeProjection) error {
	v := &projection{path: path, defaultMode: 0o644, sources: sources}
	if mode != nil {
		v.defaultMode = fs.FileMode(*mode)
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	p.projected[name] = v
	if p.options.LateProjections {
		return nil
	}
	return p.update(ctx, v)
}

// RotateTokens updates all projected volumes, as the kubelet does from time to time: with new
// tokens, and with the present objects and the pod's present labels and annotations.
func (p *Runner) RotateTokens(ctx context.Context) error {
	now, err := p.client.CoreV1().Pods(p.pod.Namespace).Get(ctx, p.pod.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err == nil && now.UID == p.pod.UID {
		p.metadata.Store(&now.ObjectMeta)
	}
	for _, name := range slices.Sorted(maps.Keys(p.projected)) {
		if err := p.update(ctx, p.projected[name]); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return nil
}

func (p *Runner) update(ctx context.Context, v *projection) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	content := payload{}
	for _, source := range v.sources {
		if err := p.collect(ctx, v, source, content); err != nil {
			return err
		}
	}
	return v.swap(content, p.fsGroup())
}

// collect adds the files of one source.
func (p *Runner) collect(ctx context.Context, v *projection, source corev1.VolumeProjection, into payload) error {
	switch {
	case source.ServiceAccountToken != nil:
		token, err := p.requestToken(ctx, source.ServiceAccountToken)
		if err != nil {
			return err
		}
		file := payloadFile{data: []byte(token), mode: v.defaultMode, user: -1}
		user := p.fsUser()
		if user != nil || p.fsGroup() != nil {
			file.mode = 0o600 // swap lets the group read it, if there is one
		}
		if user != nil {
			file.user = int(*user)
		}
		into[source.ServiceAccountToken.Path] = file
		return nil
	case source.ConfigMap != nil:
		content, err := p.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional)
		if err != nil {
			return err
		}
		return v.collectKeys("config map "+source.ConfigMap.Name, content, source.ConfigMap.Items, source.ConfigMap.Optional, into)
	case source.Secret != nil:
		content, err := p.secret(ctx, source.Secret.Name, source.Secret.Optional)
		if err != nil {
			return err
		}
		return v.collectKeys("secret "+source.Secret.Name, content, source.Secret.Items, source.Secret.Optional, into)
	case source.DownwardAPI != nil:
		for _, item := range source.DownwardAPI.Items {
			var value string
			var err error
			if item.FieldRef != nil {
				value, err = p.field(item.FieldRef.FieldPath)
			} else if item.ResourceFieldRef != nil {
				value, err = p.resource(item.ResourceFieldRef, nil)
			}
			if err != nil {
				return err
			}
			into[item.Path] = payloadFile{data: []byte(value), mode: v.mode(item.Mode), user: -1}
		}
		return nil
	}
	return errors.New("this kind of projection is not supported")
}

func (v *projection) collectKeys(what string, content map[string][]byte, items []corev1.KeyToPath, optional *bool, into payload) error {
	if items == nil {
		for key, data := range content {
			into[key] = payloadFile{data: data, mode: v.defaultMode, user: -1}
		}
		return nil
	}
	for _, item := range items {
		data, found := content[item.Key]
		if !found {
			if optional != nil && *optional {
				continue
			}
			return fmt.Errorf("%s has no key %s", what, item.Key)
		}
		into[item.Path] = payloadFile{data: data, mode: v.mode(item.Mode), user: -1}
	}
	return nil
}

func (v *projection) mode(own *int32) fs.FileMode {
	if own != nil {
		return fs.FileMode(*own)
	}
	return v.defaultMode
}

// requestToken requests a token that is bound to the pod.
func (p *Runner) requestToken(ctx context.Context, source *corev1.ServiceAccountTokenProjection) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.pod.Name, UID: p.pod.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	account := p.pod.Spec.ServiceAccountName
	answer, err := p.client.CoreV1().ServiceAccounts(p.pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of service account %s: %w", account, err)
	}
	return answer.Status.Token, nil
}

// swap writes content to a new directory and makes it visible in one step.
func (v *projection) swap(content payload, group *int64) error {
	fresh, err := os.MkdirTemp(v.path, time.Now().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, file := range content {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leads out of the volume", name)
		}
		if err := file.write(filepath.Join(fresh, name)); err != nil {
			return err
		}
	}
	if group != nil {
		if err := giveToGroup(fresh, int(*group)); err != nil {
			return err
		}
	}
	data, next := filepath.Join(v.path, "..data"), filepath.Join(v.path, "..data_tmp")
	old, _ := os.Readlink(data) // fails the first time
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return err
	}
	if err := os.Rename(next, data); err != nil {
		return err
	}
	if err := v.link(content); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(v.path, old))
}

// link creates the links that users see, and removes those of files that no longer exist.
func (v *projection) link(content payload) error {
	wanted := map[string]bool{}
	for name := range content {
		top, _, _ := strings.Cut(filepath.Clean(name), "/")
		wanted[top] = true
	}
	entries, err := os.ReadDir(v.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "..") && !wanted[entry.Name()] {
			if err := os.Remove(filepath.Join(v.path, entry.Name())); err != nil {
				return err
			}
		}
		delete(wanted, entry.Name())
	}
	for name := range wanted {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (f payloadFile) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, f.data, 0o600); err != nil {
		return err
	}
	if f.user >= 0 {
		if err := ownedBy(path, f.user, -1); err != nil {
			return err
		}
	}
	return os.Chmod(path, f.mode) // whatever the umask is
}

// giveToGroup lets the group read files and enter directories, as the kubelet does with a read-only
// volume of a pod with fsGroup (SetVolumeOwnership in pkg/volume).
func giveToGroup(root string, group int) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if err := ownedBy(path, -1, group); err != nil {
			return err
		}
		mode := info.Mode() | 0o440
		if entry.IsDir() {
			mode |= 0o110 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}
