package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestSettingsNameTheirSources(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		FileName:            "log: {level: warn}\ncache: {agents: one, max-size: 1Gi}\nshutdown: {grace: soon}\n",
		AnnotationsFileName: "rockpool.dev/cache-agents=\"two\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ROCKPOOL_NODE_NAME", "edge-1")
	t.Setenv("ROCKPOOL_DEFAULT_CLUSTER_DOMAIN", "example.local")
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Register(flags)
	if err := flags.Parse([]string{"--config=" + dir, "--log.format=console", "--upstream.servers=https://a"}); err != nil {
		t.Fatal(err)
	}
	started, err := Load(flags)
	if err != nil {
		t.Fatal(err)
	}
	started.Cache.MaxSize++ // it was another one at the start
	all, problems, err := Describe(flags, started)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Setting{}
	for _, s := range all {
		got[s.Name] = s
	}
	for _, want := range []Setting{
		{"log.format", "console", "flag --log.format", false},
		{"node.name", "edge-1", "environment variable ROCKPOOL_NODE_NAME", false},
		{"cluster.domain", "example.local", "cluster's settings when the pod was created", false},
		{"log.level", "warn", "file " + filepath.Join(dir, FileName), false},
		{"cache.agents", "two", "annotation", false},
		{"cache.max-size", "1Gi", "file " + filepath.Join(dir, FileName), true},
		{"listen.address", "127.0.0.1:10268", "default", false},
	} {
		if got[want.Name] != want {
			t.Errorf("%+v, want %+v", got[want.Name], want)
		}
	}
	if len(all) != len(Keys()) || len(problems) != 1 || !strings.Contains(problems[0].Error(), "shutdown.grace") {
		t.Errorf("%d settings, problems %v", len(all), problems)
	}
}
