package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors of a stage, after the standard ones.
const (
	executableFD = 3 + iota
	specificationFD
	failureFD
)

// stage prepares this process by its specification, and becomes the program in that. It writes the
// reason of a failure to failureFD.
func stage() error {
	runtime.LockOSThread() // each thread has its own credentials, and execve(2) keeps those of this one
	for fd := executableFD; fd <= failureFD; fd++ {
		unix.CloseOnExec(fd)
	}
	err := become()
	fmt.Fprint(os.NewFile(failureFD, "failure"), err)
	return err
}

func become() error {
	var start Start
	if err := json.NewDecoder(os.NewFile(specificationFD, "specification")).Decode(&start); err != nil {
		return fmt.Errorf("read specification: %w", err)
	}
	if start.Container != nil {
		if err := enterRoot(*start.Container); err != nil {
			return err
		}
	}
	p := start.Process
	if err := p.takeIdentity(); err != nil {
		return err
	}
	unix.Umask(0o022)
	directory := p.Dir
	if directory == "" {
		directory = "/"
	}
	if err := unix.Chdir(directory); err != nil {
		return fmt.Errorf("working directory %s: %w", directory, err)
	}
	if len(p.Argv) == 0 {
		return errors.New("no command: neither the container nor its image has one")
	}
	path, err := lookPath(p.Argv[0], p.Env)
	if err != nil {
		return err
	}
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, p.Argv, p.Env))
}

// lookPath finds a program by the PATH of its future environment.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, variable := range env {
		list, found := strings.CutPrefix(variable, "PATH=")
		if !found {
			continue
		}
		for _, directory := range filepath.SplitList(list) {
			path := filepath.Join(directory, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path, nil
			}
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// takeIdentity takes the user, groups and capabilities of the process. It uses raw system calls:
// those of package syscall change all threads, some of which wait for this one.
func (p Process) takeIdentity() error {
	wanted := map[int]bool{}
	var permitted [2]uint32
	for _, capability := range p.Capabilities {
		wanted[capability] = true
		permitted[capability/32] |= 1 << (capability % 32)
	}
	for capability := 0; capability <= 63; capability++ {
		if wanted[capability] {
			continue
		}
		// EINVAL: the kernel knows fewer capabilities.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if !p.SingleUser {
		if err := p.takeUser(); err != nil {
			return err
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var now [2]unix.CapUserData
	if err := unix.Capget(&header, &now[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range now {
		now[i].Permitted &= permitted[i]
		now[i].Effective = now[i].Permitted
		now[i].Inheritable = 0
	}
	if err := unix.Capset(&header, &now[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if p.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	return nil
}
