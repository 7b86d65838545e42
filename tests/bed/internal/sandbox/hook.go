package sandbox

import (
	"fmt"
	"os"
)

// init takes over a program that has been started as a sandbox or a stage. It is an init function,
// so that every test binary that runs pods works without a TestMain that calls it.
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
