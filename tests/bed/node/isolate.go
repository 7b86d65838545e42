package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"rockpool.dev/tests/bed/internal/sandbox"
)

// Further addresses on lo of the node's network namespace, from TEST-NET-3. publicIP is the host of
// cluster.DefaultPublicAddress. publicIPv6, from the range for documentation (RFC 3849), is the same
// for pods that have only IPv6, where the kernel knows it.
const (
	publicIP   = "203.0.113.10"
	nodeIP     = "203.0.113.20"
	publicIPv6 = "2001:db8::10"
)

// PublicAddressIPv6 is the address (host:port) at which pods of IPv6Handler reach the API server.
const PublicAddressIPv6 = "[" + publicIPv6 + "]:6443"

// IPv6Handler is the handler for a RuntimeClass whose pods have only an IPv6 address.
const IPv6Handler = "ipv6"

// HasIPv6 reports whether the node can run such pods: the kernel knows IPv6.
func HasIPv6() bool { return sandbox.HasIPv6() }

// Name is the name of the node and its host name.
const Name = "edge"

// argv[0] of the first process in the namespaces, and the variable that passes the directory to the
// processes in them.
const (
	initName          = "bed-node-init"
	directoryVariable = "BED_NODE_DIRECTORY"
)

const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// init takes over a program that Isolate has started as the first process of the namespaces. It
// runs before main, as in package sandbox.
func init() {
	if len(os.Args) == 0 || os.Args[0] != initName {
		return
	}
	code, err := firstProcess(os.Getenv(directoryVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		code = 1
	}
	os.Exit(code)
}

// Directory is the node's directory if this program runs in a node's namespaces, and "" otherwise.
func Directory() string { return os.Getenv(directoryVariable) }

// Isolate runs this program again, with the same arguments, in new namespaces for a node whose
// files are in directory, and returns its exit code. In that process, Directory returns directory.
// It has no network beyond the namespace, so call Isolate after all downloads and builds.
func Isolate(directory string) (code int, err error) {
	for _, name := range []string{"lib", "log", "run", "bin"} {
		if err := os.MkdirAll(filepath.Join(directory, name), 0o755); err != nil {
			return 1, err
		}
	}
	groups, err := makeControlGroup()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, groups.remove()) }()
	// Pass interrupts on to the child, which then ends as it wants.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	// The parent-death signal comes when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe",
		Args: append([]string{initName}, os.Args[1:]...),
		Env: append(os.Environ(), directoryVariable+"="+directory, groupVariable+"="+groups.name,
			programVariable+"="+os.Args[0]),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: namespaces,
			Pdeathsig:  syscall.SIGKILL,
			Setpgid:    true,
		},
	}
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("namespaces for a node: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // fails if it has ended
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil // the child has printed the reason
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// programVariable passes argv[0] through the first process.
const programVariable = "BED_NODE_PROGRAM"

// firstProcess sets up the namespaces and runs the program in them. As process 1 it waits for
// orphans, of which containerd's shims leave many.
func firstProcess(directory string) (code int, err error) {
	if err := mountAll(directory); err != nil {
		return 1, err
	}
	addresses := []string{publicIP, nodeIP}
	if HasIPv6() {
		addresses = append(addresses, publicIPv6)
	}
	if err := sandbox.SetupNetwork(sandbox.Setup{Hostname: Name, Addresses: addresses}); err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	runtime.LockOSThread()
	child, err := os.StartProcess("/proc/self/exe", append([]string{os.Getenv(programVariable)}, os.Args[1:]...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			_ = child.Signal(s)
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the program: %w", err)
		case pid == child.Pid && status.Signaled():
			return 1, fmt.Errorf("a signal ended the program: %s", status.Signal())
		case pid == child.Pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// mountAll mounts the node's directories over the host's directories that kubelet and containerd
// write to. Mounts propagate among the node's own mount namespaces, but not to the host's.
func mountAll(directory string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for name, target := range map[string]string{"lib": "/var/lib", "log": "/var/log", "run": "/run"} {
		if err := unix.Mount(filepath.Join(directory, name), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// Unable returns the reason why this machine cannot run a node, or nil. It tries what a node needs.
func Unable() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	groups, err := makeControlGroup()
	if err != nil {
		return fmt.Errorf("a node needs to create control groups: %w", err)
	}
	if err := groups.remove(); err != nil {
		return err
	}
	trial := exec.Command("true")
	trial.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := trial.Run(); err != nil {
		return fmt.Errorf("a node needs its own namespaces: %w", err)
	}
	return nil
}
