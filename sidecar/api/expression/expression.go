// Package expression has the expressions of the filter keep, in CEL (https://cel.dev). Whoever has
// none pays for the code alone: the language is made with the first expression.
package expression

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/interpreter"
)

const (
	// maxLength bounds an expression, in bytes.
	maxLength = 4 << 10
	// maxCost bounds the evaluation for one object, in CEL's units: about one for each operation.
	maxCost = 100_000
)

// shared has the variables of expressions, and no functions but those of the language.
var shared = sync.OnceValues(func() (*language, error) {
	return newLanguage(decls.NewVariable("object", types.DynType), decls.NewVariable("node", types.NewMapType(types.StringType, types.DynType)))
})

// Program is a compiled expression.
type Program struct{ planned interpreter.InterpretableV2 }

// Compile compiles an expression. Its error has one line for each problem, with its position as
// LINE:COLUMN in the expression.
func Compile(text string) (*Program, error) {
	if len(text) > maxLength {
		return nil, fmt.Errorf("the expression has %d bytes; %d are allowed", len(text), maxLength)
	}
	l, err := shared()
	if err != nil {
		return nil, fmt.Errorf("CEL environment: %w", err)
	}
	checked, errs := l.check(text)
	if len(errs) > 0 {
		var problems []string
		for _, one := range errs {
			problems = append(problems, fmt.Sprintf("%d:%d: %s", one.Location.Line(), one.Location.Column()+1, one.Message))
		}
		return nil, errors.New(strings.Join(problems, "; "))
	}
	if kind := checked.GetType(checked.Expr().ID()); kind != types.BoolType && kind != types.DynType {
		return nil, fmt.Errorf("1:1: the expression is of type %s; bool is allowed", kind)
	}
	planned, err := l.plan(checked, maxCost)
	if err != nil {
		return nil, fmt.Errorf("1:1: %w", err)
	}
	return &Program{planned}, nil
}

// Keep evaluates the expression for an object and the node. The values are those of package
// encoding/json.
func (p *Program) Keep(object any, node map[string]any) (bool, error) {
	result, err := evaluate(p.planned, map[string]any{"object": object, "node": node})
	if err != nil {
		return false, err
	}
	keep, ok := result.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the result is of type %s, not bool", result.Type().TypeName())
	}
	return bool(keep), nil
}
