package sandbox

import (
	"fmt"
	"os"
)

// init takes the program over where it has been started as a sandbox or a stage. It is here, and not
// in a function that main has to call, so that every test binary that uses the pod runner works
// without a TestMain of its own.
func init() {
	if len(os.Args) == 0 {
		return
	}
	var err error
	switch os.Args[0] {
	case SandboxName:
		err = serve()
	case StageName:
		err = stage()
	default:
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}
