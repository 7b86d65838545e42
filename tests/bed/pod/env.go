package pod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
)

// defaultPath is the PATH that container images commonly set.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A serviceEnvironment has the variables of the Service default/kubernetes, which a kubelet sets in
// every container (pkg/kubelet/envvars).
type serviceEnvironment map[string]string

func readServiceEnvironment(ctx context.Context, client kubernetes.Interface) (serviceEnvironment, error) {
	service, err := client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("service default/kubernetes: %w", err)
	}
	ip := service.Spec.ClusterIP
	env := serviceEnvironment{"KUBERNETES_SERVICE_HOST": ip}
	for i, servicePort := range service.Spec.Ports {
		port, protocol := strconv.Itoa(int(servicePort.Port)), strings.ToLower(string(servicePort.Protocol))
		url := protocol + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			env["KUBERNETES_SERVICE_PORT"] = port
			env["KUBERNETES_PORT"] = url
		}
		if servicePort.Name != "" {
			env["KUBERNETES_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(servicePort.Name, "-", "_"))] = port
		}
		prefix := "KUBERNETES_PORT_" + port + "_" + strings.ToUpper(protocol)
		env[prefix] = url
		env[prefix+"_PROTO"] = protocol
		env[prefix+"_PORT"] = port
		env[prefix+"_ADDR"] = ip
	}
	return env, nil
}

// environment returns the variables of a container, in the kubelet's order of precedence: image,
// services, envFrom, env.
func (p *Runner) environment(ctx context.Context, c *corev1.Container, uid int) (map[string]string, error) {
	result := map[string]string{"PATH": defaultPath, "HOSTNAME": hostname(p.pod), "HOME": home(uid)}
	for _, variable := range p.options.Images[c.Image].Env {
		name, value, _ := strings.Cut(variable, "=")
		result[name] = value
	}
	for name, value := range p.env {
		result[name] = value
	}
	for _, source := range c.EnvFrom {
		if err := p.environmentFrom(ctx, source, result); err != nil {
			return nil, err
		}
	}
	// A value may refer to earlier variables of `env`, and to those of services.
	visible := map[string]string{}
	for name, value := range p.env {
		visible[name] = value
	}
	for _, variable := range c.Env {
		value, found := expand(variable.Value, visible), true
		if variable.ValueFrom != nil {
			var err error
			if value, found, err = p.environmentValue(ctx, c, variable.ValueFrom); err != nil {
				return nil, fmt.Errorf("env %s: %w", variable.Name, err)
			}
		}
		if found {
			result[variable.Name], visible[variable.Name] = value, value
		}
	}
	return result, nil
}

func (p *Runner) environmentFrom(ctx context.Context, source corev1.EnvFromSource, into map[string]string) error {
	data := map[string]string{}
	switch {
	case source.ConfigMapRef != nil:
		content, err := p.configMap(ctx, source.ConfigMapRef.Name, source.ConfigMapRef.Optional)
		if err != nil {
			return fmt.Errorf("envFrom: %w", err)
		}
		for key, value := range content {
			data[key] = string(value)
		}
	case source.SecretRef != nil:
		content, err := p.secret(ctx, source.SecretRef.Name, source.SecretRef.Optional)
		if err != nil {
			return fmt.Errorf("envFrom: %w", err)
		}
		for key, value := range content {
			data[key] = string(value)
		}
	}
	for key, value := range data {
		name := source.Prefix + key
		if len(validation.IsEnvVarName(name)) == 0 {
			into[name] = value
		}
	}
	return nil
}

// environmentValue returns the value of a valueFrom. found is false for an optional reference whose
// object or key does not exist.
func (p *Runner) environmentValue(ctx context.Context, c *corev1.Container, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = p.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = p.resource(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		content, err := p.configMap(ctx, ref.Name, ref.Optional)
		return pick(content, "config map "+ref.Name, ref.Key, ref.Optional, err)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		content, err := p.secret(ctx, ref.Name, ref.Optional)
		return pick(content, "secret "+ref.Name, ref.Key, ref.Optional, err)
	}
	return "", false, errors.New("this kind of valueFrom is not supported")
}

func pick(content map[string][]byte, what, key string, optional *bool, err error) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, found := content[key]
	if !found && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("%s has no key %s", what, key)
	}
	return string(value), found, nil
}

// configMap returns the content of a ConfigMap, or nil if it is optional and does not exist.
func (p *Runner) configMap(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := p.client.CoreV1().ConfigMaps(p.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	content := map[string][]byte{}
	for key, value := range object.Data {
		content[key] = []byte(value)
	}
	for key, value := range object.BinaryData {
		content[key] = value
	}
	return content, nil
}

// secret is configMap for a Secret.
func (p *Runner) secret(ctx context.Context, name string, optional *bool) (map[string][]byte, error) {
	object, err := p.client.CoreV1().Secrets(p.pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return object.Data, nil
}

// expand replaces $(NAME) by the variable, if it exists. $$ stands for $, so $$(NAME) becomes
// $(NAME) (API reference, Container.command).
func expand(text string, variables map[string]string) string {
	var out strings.Builder
	for {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 || dollar+1 == len(text) {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:dollar])
		text = text[dollar:]
		end := strings.IndexByte(text, ')')
		switch {
		case text[1] == '$':
			out.WriteByte('$')
			text = text[2:]
			continue
		case text[1] == '(' && end > 0:
			value, found := variables[text[2:end]]
			if !found {
				value = text[:end+1]
			}
			out.WriteString(value)
			text = text[end+1:]
			continue
		}
		out.WriteByte('$')
		text = text[1:]
	}
}

// home returns a user's home directory from /etc/passwd, as a container runtime does.
func home(uid int) string {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(users)) {
		fields := strings.Split(line, ":")
		if len(fields) > 5 && fields[2] == strconv.Itoa(uid) {
			return fields[5]
		}
	}
	return "/"
}

func hostname(pod *corev1.Pod) string {
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	const limit = 63 // the kubelet truncates to the length of a DNS label; HOST_NAME_MAX is 64
	return strings.TrimRight(name[:min(len(name), limit)], "-.")
}

func hostOf(address string) (string, error) {
	host, _, err := net.SplitHostPort(address)
	return host, err
}

func unique(items []string) []string {
	slices.Sort(items)
	return slices.Compact(items)
}
