package pod

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"rockpool.dev/tests/bed/internal/sandbox"
)

// capabilities by name without CAP_, as in linux/capability.h.
var capabilities = map[string]int{
	"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6,
	"SETUID": 7, "SETPCAP": 8, "LINUX_IMMUTABLE": 9, "NET_BIND_SERVICE": 10, "NET_BROADCAST": 11, "NET_ADMIN": 12,
	"NET_RAW": 13, "IPC_LOCK": 14, "IPC_OWNER": 15, "SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_CHROOT": 18,
	"SYS_PTRACE": 19, "SYS_PACCT": 20, "SYS_ADMIN": 21, "SYS_BOOT": 22, "SYS_NICE": 23, "SYS_RESOURCE": 24,
	"SYS_TIME": 25, "SYS_TTY_CONFIG": 26, "MKNOD": 27, "LEASE": 28, "AUDIT_WRITE": 29, "AUDIT_CONTROL": 30,
	"SETFCAP": 31, "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35, "BLOCK_SUSPEND": 36,
	"AUDIT_READ": 37, "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40,
}

// defaultCapabilities are those that container runtimes give a container by default.
var defaultCapabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
	"NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// A launch is a container in the form that the sandbox starts.
type launch struct {
	container sandbox.Container
	process   sandbox.Process
}

// launchOf translates a container for the sandbox. It reads the objects that the container refers
// to, so it is called at each start.
func (p *Runner) launchOf(ctx context.Context, c *corev1.Container) (launch, error) {
	var l launch
	image := p.options.Images[c.Image]
	identity, err := p.identity(c, image)
	if err != nil {
		return l, err
	}
	env, err := p.environment(ctx, c, identity.UID)
	if err != nil {
		return l, err
	}
	argv := image.Entrypoint
	if len(c.Command) > 0 {
		argv = c.Command
	}
	for _, word := range slices.Concat(argv, c.Args) {
		identity.Argv = append(identity.Argv, expand(word, env))
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		identity.Env = append(identity.Env, name+"="+env[name])
	}
	if singleUser() {
		identity.SingleUser = true
		if identity.UID != 0 {
			identity.Capabilities = nil // as for any user but root
		}
	}
	identity.Dir = c.WorkingDir
	l.process = identity
	l.container = sandbox.Container{Root: filepath.Join(p.directory, "root")}
	if security := c.SecurityContext; security != nil && security.ReadOnlyRootFilesystem != nil {
		l.container.ReadOnlyRoot = *security.ReadOnlyRootFilesystem
	}
	l.container.Mounts, err = p.mounts(c, image, env)
	return l, err
}

func (p *Runner) mounts(c *corev1.Container, image Image, env map[string]string) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	for target, source := range image.Files {
		absolute, err := filepath.Abs(source)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, sandbox.Mount{Source: absolute, Target: filepath.Join("/", target), ReadOnly: true})
	}
	for _, m := range c.VolumeMounts {
		v, found := p.volumes[m.Name]
		if !found {
			return nil, fmt.Errorf("mount %s: no volume %q", m.MountPath, m.Name)
		}
		subPath := m.SubPath
		if m.SubPathExpr != "" {
			subPath = expand(m.SubPathExpr, env)
		}
		mounts = append(mounts, sandbox.Mount{
			Source: v.path, Target: filepath.Join("/", m.MountPath), SubPath: subPath, ReadOnly: m.ReadOnly || v.readOnly,
		})
	}
	// Parents first, as container runtimes do.
	slices.SortStableFunc(mounts, func(a, b sandbox.Mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return mounts, nil
}

// identity combines the security contexts of pod and container.
func (p *Runner) identity(c *corev1.Container, image Image) (sandbox.Process, error) {
	pod, own := p.pod.Spec.SecurityContext, c.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	id := sandbox.Process{UID: image.UID, GID: image.GID}
	first := func(values ...*int64) *int64 {
		for _, value := range values {
			if value != nil {
				return value
			}
		}
		return nil
	}
	if user := first(own.RunAsUser, pod.RunAsUser); user != nil {
		id.UID, id.GID = int(*user), 0
	}
	if group := first(own.RunAsGroup, pod.RunAsGroup); group != nil {
		id.GID = int(*group)
	}
	nonRoot := own.RunAsNonRoot
	if nonRoot == nil {
		nonRoot = pod.RunAsNonRoot
	}
	if nonRoot != nil && *nonRoot && id.UID == 0 {
		return id, errors.New("the container would run as root, but has runAsNonRoot")
	}
	for _, group := range pod.SupplementalGroups {
		id.Groups = append(id.Groups, int(group))
	}
	if pod.FSGroup != nil {
		id.Groups = append(id.Groups, int(*pod.FSGroup))
	}
	privileged := own.Privileged != nil && *own.Privileged
	id.NoNewPrivileges = own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation && !privileged
	names := map[string]bool{}
	if privileged {
		names = addCapability(names, "ALL")
	}
	for _, name := range defaultCapabilities {
		names[name] = true
	}
	if own.Capabilities != nil {
		for _, drop := range own.Capabilities.Drop {
			if drop == "ALL" {
				names = map[string]bool{}
			}
			delete(names, strings.TrimPrefix(string(drop), "CAP_"))
		}
		for _, add := range own.Capabilities.Add {
			names = addCapability(names, strings.TrimPrefix(string(add), "CAP_"))
		}
	}
	for name := range names {
		number, known := capabilities[name]
		if !known {
			return id, fmt.Errorf("capability %q is unknown", name)
		}
		id.Capabilities = append(id.Capabilities, number)
	}
	slices.Sort(id.Capabilities)
	return id, nil
}

func addCapability(names map[string]bool, name string) map[string]bool {
	if name != "ALL" {
		names[name] = true
		return names
	}
	for each := range capabilities {
		names[each] = true
	}
	return names
}
