package cluster

import (
	"fmt"
	"os/exec"

	"rockpool.dev/tests/bed/internal/process"
)

// StartControllers starts kube-controller-manager and kube-scheduler, which end with the control
// plane. They reach the API server directly, not over a link. managerArgs are appended to the
// arguments of kube-controller-manager.
func (c *ControlPlane) StartControllers(tools NodeTools, managerArgs ...string) error {
	for _, controllers := range []struct {
		name string
		args []string
	}{
		{"kube-controller-manager", append([]string{
			"--use-service-account-credentials", // one role per controller
			"--service-account-private-key-file=" + c.file("serviceaccount.key"),
			"--root-ca-file=" + c.file("ca.crt"),
		}, managerArgs...)},
		{"kube-scheduler", nil},
	} {
		kubeconfig := c.file(controllers.name + ".kubeconfig")
		if err := c.WriteKubeconfig(kubeconfig, c.config.Host, "system:"+controllers.name); err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", controllers.name, err)
		}
		args := append([]string{
			"--kubeconfig=" + kubeconfig,
			"--leader-elect=false",
			"--secure-port=0", // no client needs their endpoints
		}, controllers.args...)
		child, err := process.Start(controllers.name, c.file(controllers.name+".log"), exec.Command(tools[controllers.name], args...))
		if err != nil {
			return err
		}
		c.running = append(c.running, child)
	}
	return nil
}

func (c *ControlPlane) stopControllers() {
	for _, child := range c.running {
		child.Stop(stopGrace)
	}
	c.running = nil
}
