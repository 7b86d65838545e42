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

// Addresses on lo of the node's network namespace, besides loopback: from TEST-NET-3, as the
// bed's public address.
const (
	publicIP = "203.0.113.10"
	nodeIP   = "203.0.113.20"
)

// Name is the name of the node, and of its host.
const Name = "edge"

// argv[0] of the first process in the namespaces, and the variable by which what runs in them knows
// its directory.
const (
	initName          = "bed-node-init"
	directoryVariable = "BED_NODE_DIRECTORY"
)

const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// init takes the program over where Isolate has started it as the first process of the namespaces,
// before main, as in package sandbox.
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

// Directory is the directory of the node in whose namespaces this program runs, or "" outside.
func Directory() string { return os.Getenv(directoryVariable) }

// Isolate runs this program once more, with the same arguments, in namespaces made for a node
// whose files are in directory, and returns its exit code. There Directory says so. There is no
// network beyond the namespace: what has to be downloaded or built is made before.
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
	// The one who waits may be interrupted; the child is told, and ends in its own way.
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
				_ = cmd.Process.Signal(s) // it may have ended
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil // it has said why
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// programVariable carries argv[0] through the first process.
const programVariable = "BED_NODE_PROGRAM"

// firstProcess makes the namespaces ready, runs the program in them, and does what process 1 has to:
// it waits for orphans, of which containerd's shims leave many.
func firstProcess(directory string) (code int, err error) {
	if err := mountAll(directory); err != nil {
		return 1, err
	}
	if err := sandbox.SetupNetwork(sandbox.Setup{Hostname: Name, Addresses: []string{publicIP, nodeIP}}); err != nil {
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
			return 1, fmt.Errorf("the program was ended by a signal: %s", status.Signal())
		case pid == child.Pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// mountAll puts the node's directories in place of those of the host that kubelet and containerd
// write to. Mounts propagate among the node's own mount namespaces, and not to the host's.
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

// Unable says why this machine cannot run a node, or nil. It tries out what a node needs.
func Unable() error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root")
	}
	groups, err := makeControlGroup()
	if err != nil {
		return fmt.Errorf("a node needs control groups that it may make: %w", err)
	}
	if err := groups.remove(); err != nil {
		return err
	}
	trial := exec.Command("true")
	trial.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if err := trial.Run(); err != nil {
		return fmt.Errorf("a node needs namespaces of its own: %w", err)
	}
	return nil
}
