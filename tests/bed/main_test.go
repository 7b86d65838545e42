package bed

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"rockpool.dev/tests/bed/cluster"
)

// plane is the control plane that the tests of this package share; nil with -short.
var plane *cluster.ControlPlane

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	var err error
	plane, err = cluster.Start(context.Background(), cluster.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane:", err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

// controlPlane returns the shared control plane. It skips the test where there is none.
func controlPlane(t *testing.T) *cluster.ControlPlane {
	t.Helper()
	if plane == nil {
		t.Skip("needs a control plane, not started with -short")
	}
	return plane
}
