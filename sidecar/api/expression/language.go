package expression

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/containers"
	"github.com/google/cel-go/common/decls"
	"github.com/google/cel-go/common/functions"
	"github.com/google/cel-go/common/stdlib"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/interpreter"
	"github.com/google/cel-go/parser"
)

// macros are those that package cel has as its standard.
var macros = []parser.Macro{
	parser.HasMacro, parser.AllMacro, parser.ExistsMacro, parser.ExistsOneMacro, parser.MapMacro, parser.MapFilterMacro, parser.FilterMacro,
}

// language parses, checks and plans expressions, as the package cel of cel-go does with its default
// options. It is made of the parts of cel-go: package cel would add 0.5 MB to the binary and, by its
// initialisers, 0.2 MB to the heap of every sidecar, because it can read descriptors of protobuf.
type language struct {
	registry *types.Registry
	parser   *parser.Parser
	checker  *checker.Env
	bindings []*functions.Overload
}

// newLanguage makes the language with the functions and macros of the specification, and variables.
// https://github.com/google/cel-spec/blob/master/doc/langdef.md
func newLanguage(variables ...*decls.VariableDecl) (*language, error) {
	l := &language{}
	var err error
	if l.registry, err = types.NewProtoRegistry(); err != nil {
		return nil, err
	}
	if l.parser, err = parser.NewParser(parser.Macros(macros...)); err != nil {
		return nil, err
	}
	if l.checker, err = checker.NewEnv(containers.DefaultContainer, l.registry, checker.CrossTypeNumericComparisons(false)); err != nil {
		return nil, err
	}
	if err = l.checker.AddIdents(variables...); err != nil {
		return nil, err
	}
	for _, function := range stdlib.Functions() {
		if function.IsDeclarationDisabled() { // for the planner only
			continue
		}
		if err = l.checker.AddFunctions(function); err != nil {
			return nil, err
		}
	}
	for _, function := range stdlib.Functions() {
		bindings, err := function.Bindings()
		if err != nil {
			return nil, err
		}
		l.bindings = append(l.bindings, bindings...)
	}
	return l, nil
}

// check parses an expression and infers its types. There are problems, in the order of their
// positions, or a result.
func (l *language) check(text string) (*ast.AST, []*common.Error) {
	source := common.NewTextSource(text)
	parsed, problems := l.parser.Parse(source)
	if errs := problems.GetErrors(); len(errs) > 0 {
		return nil, sorted(errs)
	}
	checked, problems := checker.Check(parsed, source, l.checker)
	if errs := problems.GetErrors(); len(errs) > 0 {
		return nil, sorted(errs)
	}
	return checked, nil
}

func sorted(problems []*common.Error) []*common.Error {
	slices.SortStableFunc(problems, func(a, b *common.Error) int {
		return cmp.Or(a.Location.Line()-b.Location.Line(), a.Location.Column()-b.Location.Column())
	})
	return problems
}

// plan makes a checked expression evaluable. Its evaluation ends with a panic at the cost limit.
func (l *language) plan(checked *ast.AST, limit uint64) (interpreter.InterpretableV2, error) {
	dispatcher := interpreter.NewDispatcher()
	if err := dispatcher.Add(l.bindings...); err != nil {
		return nil, err
	}
	tracker, err := interpreter.NewCostTracker(nil, interpreter.CostTrackerLimit(limit))
	if err != nil {
		return nil, err
	}
	attributes := interpreter.NewAttributeFactory(containers.DefaultContainer, l.registry, l.registry)
	return interpreter.NewInterpreter(dispatcher, containers.DefaultContainer, l.registry, l.registry, attributes).NewInterpretable(checked,
		interpreter.Optimize(), interpreter.CompileRegexConstants(interpreter.MatchesRegexOptimization),
		// A new tracker would be more work than an evaluation.
		interpreter.CostObserver(interpreter.CostTrackerFactory(tracker.Clone)))
}

// evaluate gives the value of an expression. The error is that of the expression, or says that its
// limit is reached.
func evaluate(planned interpreter.InterpretableV2, variables map[string]any) (value ref.Val, err error) {
	defer func() { // cel-go ends an evaluation so, at the limit and after its own mistakes
		if r := recover(); r != nil {
			value, err = nil, fmt.Errorf("evaluation ended: %v", r)
		}
	}()
	frame, err := interpreter.NewExecutionFrame(variables)
	if err != nil {
		return nil, err
	}
	defer frame.Close()
	value = planned.Exec(frame)
	if failure, ok := value.(*types.Err); ok {
		return nil, failure
	}
	return value, nil
}
