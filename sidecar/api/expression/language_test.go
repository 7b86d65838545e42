package expression

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
)

// sample is what the expressions of these tests are evaluated for.
var sample = map[string]any{
	"object": map[string]any{
		"metadata": map[string]any{"name": "web-1", "labels": map[string]any{"site": "a", "n": "3"}, "creationTimestamp": "2026-01-01T10:00:00Z"},
		"spec":     map[string]any{"replicas": 2.0, "ports": []any{80.0, 443.0}, "on": true, "none": nil},
	},
	"node": map[string]any{"name": "edge-1", "labels": map[string]any{"site": "a"}, "pool": "p", "zone": ""},
}

// reference is package cel with its default options.
var reference = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Variable("object", cel.DynType), cel.Variable("node", cel.MapType(cel.StringType, cel.DynType)))
})

// difference compares our language with package cel: the problems of an expression, or its type and
// its value.
func difference(text string) error {
	ours, err := shared()
	if err != nil {
		return err
	}
	theirs, err := reference()
	if err != nil {
		return err
	}
	checked, got := ours.check(text)
	compiled, issues := theirs.Compile(text)
	if got, want := positions(got), positions(issues.Errors()); got != want {
		return fmt.Errorf("%s: problems %q, package cel has %q", text, got, want)
	}
	if issues.Err() != nil {
		return nil
	}
	if got, want := checked.GetType(checked.Expr().ID()), compiled.OutputType(); !got.IsExactType(want) {
		return fmt.Errorf("%s: type %s, package cel has %s", text, got, want)
	}
	planned, err := ours.plan(checked, maxCost)
	program, wantErr := theirs.Program(compiled, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil || wantErr != nil {
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			return fmt.Errorf("%s: planned with %v, package cel with %v", text, err, wantErr)
		}
		return nil
	}
	value, err := evaluate(planned, sample)
	want, _, wantErr := program.Eval(sample)
	if (err == nil) != (wantErr == nil) {
		return fmt.Errorf("%s: %v, package cel has %v", text, err, wantErr)
	}
	// A map is printed in any order, and NaN is not equal to itself.
	if err == nil && fmt.Sprint(value.Value()) != fmt.Sprint(want.Value()) {
		return fmt.Errorf("%s: %v, package cel has %v", text, value, want)
	}
	return nil
}

func positions(problems []*common.Error) string {
	var all []string
	for _, p := range problems {
		all = append(all, fmt.Sprintf("%d:%d: %s", p.Location.Line(), p.Location.Column(), p.Message))
	}
	return strings.Join(all, "; ")
}

// expressions use each part of the language: operators, macros, functions, types, and mistakes.
var expressions = []string{
	"object.metadata.labels['site'] == node.labels['site']",
	"object.spec.replicas > 1 && object.spec.replicas <= 2.0 || !object.spec.on",
	"object.spec.replicas == 2", "1 == 1.0", "1 < 2.5", "2u > 1u", "7 / 0", "7 % 2 == 1", "-object.spec.replicas", "9223372036854775807 + 1",
	"has(object.spec.gone)", "has(object.spec.on) ? 'yes' : 'no'", "object.spec.gone", "object.spec.none == null",
	"object.spec.ports.exists(p, p == 443.0)", "object.spec.ports.all(p, p > 100.0)", "object.spec.ports.exists_one(p, p == 80.0)",
	"object.spec.ports.existsOne(p, p == 80.0)", "object.spec.ports.map(p, p + 1.0)", "object.spec.ports.map(p, p > 80.0, p * 2.0)",
	"object.spec.ports.filter(p, p > 80.0)", "size(object.spec.ports) + size('äö') + size(b'ab') + size({'a': 1})",
	"'site' in object.metadata.labels", "80.0 in object.spec.ports", "[1, 2, 3][1]", "{'a': 1}.a", "{'a': 1}['b']", "[1][3]",
	"object.metadata.name.matches('^web-[0-9]+$')", "object.metadata.name.matches('(')", "object.metadata.name.matches(object.metadata.labels.site)",
	"'a'.contains('b')", "'ab'.startsWith('a') && 'ab'.endsWith('b')", "int('3') + int(object.metadata.labels.n)", "int('x')", "string(1.5)",
	"double('2.5')", "bytes('a') == b'a'", "bool('true')", "uint(1)", "dyn(1) == 1.0", "type(1) == int", "type(object.spec.on) == bool", "type(type(1))",
	"timestamp(object.metadata.creationTimestamp).getFullYear() == 2026", "timestamp('2026-01-01T23:00:00Z').getHours('Europe/Berlin')",
	"timestamp('2026-01-01T00:00:00Z') + duration('36h') > timestamp('2026-01-02T00:00:00Z')", "duration('90s').getMinutes()",
	"timestamp('2026-03-01T00:00:00Z').getDayOfYear()", "duration('1d')", "google.protobuf.Int64Value{value: 3} == 3", "google.protobuf.Struct{}",
	"google.protobuf.Nope{}", "nope", "object.", "1 +", "object.a(", "'a' + 1", "true ? 1 : 'a'", "object.metadata.?labels", "[?1]", "{", "a.b.c",
	"has(object)", "object.all(a)", "[].all(x, x > 1)", "node.name == 1", "node.labels == {'site': 'a'}", "node + 1", "__result__", "@result", "x.`y-z`", "true && (1 / 0 == 1)",
	"false && (1 / 0 == 1)", "(1 / 0 == 1) || true", "strings.quote('a')", "math.greatest(1, 2)", "optional.of(1)", "r'\\d' == '\\\\d'", "0x1F", "1e400", "'\\u00e4'",
	"object.spec.ports.all(a, object.spec.ports.all(b, a + b > 0.0))", "[[[[[[1]]]]]]", "\"\"\"a\nb\"\"\"", "true &&\nnope", "",
}

func TestTheLanguageIsThatOfPackageCEL(t *testing.T) {
	for _, text := range expressions {
		if err := difference(text); err != nil {
			t.Error(err)
		}
	}
}

func TestAnEvaluationEndsAtItsLimit(t *testing.T) {
	l, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	checked, problems := l.check("object.spec.ports.all(a, a > 0.0)")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for limit, want := range map[uint64]bool{1: false, 100: true} {
		planned, err := l.plan(checked, limit)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := evaluate(planned, sample); (err == nil) != want || err != nil && !strings.Contains(err.Error(), "limit") {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, text := range expressions {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Compile(text); err != nil && len(text) > maxLength {
			return
		}
		if err := difference(text); err != nil {
			t.Error(err)
		}
	})
}
