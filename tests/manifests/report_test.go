package manifests

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"sigs.k8s.io/yaml"
)

// The policy about reports of outages is evaluated here for what a strategic merge patch cannot
// ask; tests/e2e has the rest, with a real API server.
func TestAPodCannotFillItsStatusWithReports(t *testing.T) {
	text, err := os.ReadFile("../../manifests/components/report/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Spec struct {
			Validations []struct{ Expression string }
		}
	}
	if err := yaml.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	env, err := cel.NewEnv(cel.Variable("variables", cel.DynType), cel.Variable("request", cel.DynType), cel.OptionalTypes())
	if err != nil {
		t.Fatal(err)
	}
	report := func(reason string) any {
		return map[string]any{"type": "rockpool.dev/LinkToCloud", "status": "True", "reason": reason, "message": "cut for 1s"}
	}
	for name, test := range map[string]struct {
		after []any
		want  bool
	}{
		"one condition":                  {[]any{report("LinkRestored")}, true},
		"the condition a thousand times": {slices.Repeat([]any{report("LinkRestored")}, 1000), false},
		"a long reason":                  {[]any{report(strings.Repeat("x", 65))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			metadata := map[string]any{"name": "web", "uid": "u"}
			allowed := true
			for _, v := range policy.Spec.Validations {
				ast, issues := env.Compile(v.Expression)
				if issues.Err() != nil {
					t.Fatal(issues.Err())
				}
				program, err := env.Program(ast)
				if err != nil {
					t.Fatal(err)
				}
				out, _, err := program.Eval(map[string]any{
					"variables": map[string]any{
						"before":           map[string]any{"metadata": metadata, "status": map[string]any{}},
						"after":            map[string]any{"metadata": metadata, "status": map[string]any{"conditions": test.after}},
						"conditionsBefore": []any{}, "conditionsAfter": test.after,
					},
					"request": map[string]any{"name": "web", "userInfo": map[string]any{"extra": map[string]any{
						"authentication.kubernetes.io/pod-name": []string{"web"}, "authentication.kubernetes.io/pod-uid": []string{"u"},
					}}},
				})
				if err != nil {
					t.Fatal(err)
				}
				allowed = allowed && out.Value() == true
			}
			if allowed != test.want {
				t.Errorf("allowed: %v, want %v", allowed, test.want)
			}
		})
	}
}
