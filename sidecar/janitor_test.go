package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func TestTheDaemonSetStartsTheJanitor(t *testing.T) {
	text, err := os.ReadFile("../manifests/overlays/janitor/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var set appsv1.DaemonSet
	if err := yaml.UnmarshalStrict(text, &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	container := pod.Containers[0]
	cmd := janitorCommand()
	if want := []string{"/rockpool-sidecar", cmd.Name()}; !slices.Equal(container.Command, want) {
		t.Errorf("command %q, want %q", container.Command, want)
	}
	flags := cmd.Flags()
	if err := flags.Parse(container.Args); err != nil {
		t.Fatal(err)
	}
	if interval, err := flags.GetDuration("interval"); err != nil || interval <= 0 {
		t.Errorf("interval %s, %v: a DaemonSet's pods must not end", interval, err)
	}
	if root := flags.Lookup("root").Value.String(); root != container.VolumeMounts[0].MountPath {
		t.Errorf("--root=%s is not the volume", root)
	}
	// janitor.TestWithOnlyTheDacOverrideCapability shows that this is enough.
	capabilities := container.SecurityContext.Capabilities
	if !slices.Equal(capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(capabilities.Add, []corev1.Capability{"DAC_OVERRIDE"}) {
		t.Errorf("capabilities %+v", capabilities)
	}
}

func TestTheJanitorRejectsInvalidFlags(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"no root":             {nil, "--root: "},
		"no age":              {[]string{"--root=/x", "--max-age=0s"}, "--max-age 0s: must be more than 0"},
		"a negative interval": {[]string{"--root=/x", "--interval=-1s"}, "--interval -1s: must not be negative"},
		"metrics of one scan": {[]string{"--root=/x", "--metrics-listen=:0"}, "--metrics-listen needs --interval"},
		"an invalid port":     {[]string{"--root=/tmp", "--interval=1h", "--metrics-listen=:x"}, "--metrics-listen: "},
		"a missing volume":    {[]string{"--root=/does-not-exist"}, "cache volume: "},
		"an invalid size":     {[]string{"--root=/tmp", "--max-size=much"}, "--max-size=\"much\": is not a size"},
		"an argument":         {[]string{"/cache"}, "unknown command"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := command(new(func(context.Context) error))
			cmd.SetArgs(append([]string{"janitor"}, test.args...))
			if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
