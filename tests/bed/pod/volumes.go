package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/internal/sandbox"
)

// A volume is a directory or file of the host. One in memory is mounted in the sandbox.
type volume struct {
	path     string
	readOnly bool // also for mounts that are not
}

// makeVolume creates a volume of the pod, as a kubelet does.
func (p *Runner) makeVolume(ctx context.Context, v *corev1.Volume) error {
	path := filepath.Join(p.directory, "volumes", v.Name)
	made := volume{path: path}
	var err error
	switch {
	case v.HostPath != nil:
		made.path, err = p.hostPath(v.HostPath)
	case v.EmptyDir != nil:
		err = p.emptyDir(ctx, path, v.EmptyDir)
	case v.Projected != nil:
		made.readOnly = true
		err = p.project(ctx, v.Name, path, v.Projected.DefaultMode, v.Projected.Sources)
	case v.ConfigMap != nil:
		made.readOnly = true
		err = p.project(ctx, v.Name, path, v.ConfigMap.DefaultMode, []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference, Items: v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
		}}})
	case v.Secret != nil:
		made.readOnly = true
		err = p.project(ctx, v.Name, path, v.Secret.DefaultMode, []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName}, Items: v.Secret.Items, Optional: v.Secret.Optional,
		}}})
	case v.DownwardAPI != nil:
		made.readOnly = true
		err = p.project(ctx, v.Name, path, v.DownwardAPI.DefaultMode, []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{
			Items: v.DownwardAPI.Items,
		}}})
	default:
		return errors.New("this kind of volume is not supported")
	}
	p.volumes[v.Name] = made
	return err
}

// hostPath returns the path below the host root, and checks or creates it by its type
// (https://kubernetes.io/docs/concepts/storage/volumes/#hostpath-volume-types).
func (p *Runner) hostPath(source *corev1.HostPathVolumeSource) (string, error) {
	path := filepath.Join(p.options.HostRoot, filepath.Join("/", source.Path))
	kind := corev1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return "", err
	}
	switch kind {
	case corev1.HostPathDirectoryOrCreate, corev1.HostPathUnset:
		// With no type, the kubelet does not check the path, and the runtime creates a directory.
		if missing {
			return path, os.MkdirAll(path, 0o755)
		}
		if kind != corev1.HostPathUnset && !info.IsDir() {
			return "", fmt.Errorf("hostPath %s: not a directory", source.Path)
		}
	case corev1.HostPathFileOrCreate:
		if missing {
			return path, os.WriteFile(path, nil, 0o644)
		}
		if !info.Mode().IsRegular() {
			return "", fmt.Errorf("hostPath %s: not a file", source.Path)
		}
	case corev1.HostPathDirectory, corev1.HostPathFile, corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev:
		if missing {
			return "", fmt.Errorf("hostPath %s: no %s exists there", source.Path, kind)
		}
		is := map[corev1.HostPathType]bool{
			corev1.HostPathDirectory: info.IsDir(),
			corev1.HostPathFile:      info.Mode().IsRegular(),
			corev1.HostPathSocket:    info.Mode()&fs.ModeSocket != 0,
			corev1.HostPathCharDev:   info.Mode()&fs.ModeCharDevice != 0,
			corev1.HostPathBlockDev:  info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0,
		}
		if !is[kind] {
			return "", fmt.Errorf("hostPath %s: not of type %s", source.Path, kind)
		}
	default:
		return "", fmt.Errorf("hostPath %s: unknown type %q", source.Path, kind)
	}
	return path, nil
}

// emptyDir creates a directory that any user may write to. One in memory is mounted in the sandbox,
// for as long as the pod runs.
func (p *Runner) emptyDir(ctx context.Context, path string, source *corev1.EmptyDirVolumeSource) error {
	group := 0
	mode := fs.FileMode(0o777)
	if g := p.fsGroup(); g != nil && !singleUser() {
		group, mode = int(*g), mode|fs.ModeSetgid
	}
	if err := os.Mkdir(path, 0o777); err != nil {
		return err
	}
	if source.Medium == corev1.StorageMediumMemory {
		tmpfs := &sandbox.Tmpfs{Path: path, Mode: 0o777, Group: group}
		if group != 0 {
			tmpfs.Mode = 0o2777
		}
		if source.SizeLimit != nil {
			tmpfs.Bytes = source.SizeLimit.Value()
		}
		_, err := p.sandbox.call(ctx, sandbox.Request{Tmpfs: tmpfs})
		return err
	}
	if err := ownedBy(path, -1, group); err != nil {
		return err
	}
	return os.Chmod(path, mode) // after chown, which clears set-group-ID
}

// fsGroup is the group that owns the pod's volumes, or nil.
func (p *Runner) fsGroup() *int64 {
	if p.pod.Spec.SecurityContext == nil {
		return nil
	}
	return p.pod.Spec.SecurityContext.FSGroup
}

// fsUser is the user of all containers, or nil if they have several or one has none
// (FsUserFrom in pkg/volume/util). Projected tokens belong to that user.
func (p *Runner) fsUser() *int64 {
	var common *int64
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			var user *int64
			if p.pod.Spec.SecurityContext != nil {
				user = p.pod.Spec.SecurityContext.RunAsUser
			}
			if own := list[i].SecurityContext; own != nil && own.RunAsUser != nil {
				user = own.RunAsUser
			}
			if user == nil || common != nil && *common != *user {
				return nil
			}
			common = user
		}
	}
	return common
}
