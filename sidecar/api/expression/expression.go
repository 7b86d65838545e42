// Package expression has the expressions of the filter keep, in CEL (https://cel.dev). Whoever has
// none pays for the code alone: the environment is made with the first expression.
package expression

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

const (
	// maxLength bounds an expression, in bytes.
	maxLength = 4 << 10
	// maxCost bounds the evaluation for one object, in CEL's units: about one for each operation.
	maxCost = 100_000
)

// environment has the variables of expressions, and no functions but those of the language.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Variable("object", cel.DynType), cel.Variable("node", cel.MapType(cel.StringType, cel.DynType)))
})

// Program is a compiled expression.
type Program struct{ program cel.Program }

// Compile compiles an expression. Its error has one line for each problem, with its position as
// LINE:COLUMN in the expression.
func Compile(text string) (*Program, error) {
	if len(text) > maxLength {
		return nil, fmt.Errorf("the expression has %d bytes; %d are allowed", len(text), maxLength)
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("CEL environment: %w", err)
	}
	ast, issues := env.Compile(text)
	if err := issues.Err(); err != nil {
		var problems []string
		for _, one := range issues.Errors() {
			problems = append(problems, fmt.Sprintf("%d:%d: %s", one.Location.Line(), one.Location.Column()+1, one.Message))
		}
		return nil, errors.New(strings.Join(problems, "; "))
	}
	if kind := ast.OutputType(); kind != cel.BoolType && kind != cel.DynType {
		return nil, fmt.Errorf("1:1: the expression is of type %s; bool is allowed", kind)
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("1:1: %w", err)
	}
	return &Program{program}, nil
}

// Keep evaluates the expression for an object and the node. The values are those of package
// encoding/json.
func (p *Program) Keep(object any, node map[string]any) (bool, error) {
	result, _, err := p.program.Eval(map[string]any{"object": object, "node": node})
	if err != nil {
		return false, err
	}
	keep, ok := result.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the result is of type %s, not bool", result.Type().TypeName())
	}
	return bool(keep), nil
}
