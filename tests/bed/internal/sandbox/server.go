package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A server is the state of a sandbox process.
type server struct {
	conn       *net.UnixConn
	executable *os.File // this program, still reachable in mount namespaces without it

	mu      sync.Mutex
	running map[string]*exec.Cmd
	pidfds  map[string]int // for Join
}

// serve serves requests until the parent closes the socket or ends. The sandbox is the first
// process of its process-id namespace, so the kernel then kills all processes that it has started.
func serve() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	executable, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	socket := os.NewFile(SocketFD, "requests")
	conn, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	socket.Close()
	s := &server{
		conn: conn.(*net.UnixConn), executable: executable,
		running: map[string]*exec.Cmd{}, pidfds: map[string]int{},
	}
	buffer := make([]byte, MaxMessage)
	for {
		request, files, err := receive[Request](s.conn, buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// One goroutine per request. That of Start runs as long as the process.
		go s.handle(request, files)
	}
}

func (s *server) handle(request Request, files []*os.File) {
	defer closeAll(files)
	var err error
	switch {
	case request.Setup != nil:
		err = SetupNetwork(*request.Setup)
	case request.Listen != nil:
		err = s.listen(request.ID, *request.Listen)
		if err == nil {
			return // listen has replied
		}
	case request.Tmpfs != nil:
		err = mountTmpfs(*request.Tmpfs)
	case request.Signal != nil:
		err = s.signal(*request.Signal)
	case request.Start != nil:
		s.start(request.ID, *request.Start, files)
		return // start has replied
	default:
		err = errors.New("empty request")
	}
	s.reply(request.ID, err)
}

func (s *server) reply(id int, err error, files ...*os.File) {
	reply := Reply{ID: id}
	if err != nil {
		reply.Error = err.Error()
	}
	s.send(reply, files...)
}

// send sends one message. If that fails, the parent has ended, and serve ends too.
func (s *server) send(reply Reply, files ...*os.File) {
	_ = Send(s.conn, reply, files...)
}

func (s *server) listen(id int, l Listen) error {
	listener, err := listenTCP(l.Address)
	if err != nil {
		return err
	}
	defer listener.Close()
	file, err := listener.File()
	if err != nil {
		return err
	}
	defer file.Close()
	s.reply(id, nil, file)
	return nil
}

func (s *server) signal(signal Signal) error {
	s.mu.Lock()
	cmd := s.running[signal.Key]
	s.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal.Number); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// start starts a process by its stage and waits for its end.
func (s *server) start(id int, start Start, files []*os.File) {
	cmd, failure, err := s.launch(start, files)
	if err != nil {
		s.reply(id, err)
		return
	}
	// The stage closes this pipe by its execve(2), or writes the reason of a failure.
	reason, err := io.ReadAll(failure)
	failure.Close()
	if err == nil && len(reason) > 0 {
		err = errors.New(string(reason))
	}
	if err != nil {
		s.reply(id, err)
	} else {
		s.send(Reply{ID: id, PID: cmd.Process.Pid})
	}
	_ = cmd.Wait() // the result is in cmd.ProcessState
	s.mu.Lock()
	delete(s.running, start.Key)
	if fd, ok := s.pidfds[start.Key]; ok {
		unix.Close(fd)
		delete(s.pidfds, start.Key)
	}
	s.mu.Unlock()
	if err != nil {
		return // it has not run, so it has no Exit
	}
	exit := &Exit{Key: start.Key}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = status.Signal()
	} else {
		exit.Code = cmd.ProcessState.ExitCode()
	}
	s.send(Reply{Exit: exit})
}

// launch starts the stage of a process. failure is the reading end of its error pipe.
func (s *server) launch(start Start, files []*os.File) (cmd *exec.Cmd, failure *os.File, err error) {
	if len(files) != 3 {
		return nil, nil, fmt.Errorf("%d descriptors, want 3", len(files))
	}
	specification, err := memoryFile(start)
	if err != nil {
		return nil, nil, err
	}
	defer specification.Close()
	failure, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer writer.Close()
	pidfd := -1
	cmd = &exec.Cmd{
		// The child's descriptor of this program: in the namespace of a container to join, the
		// program has no path.
		Path:       fmt.Sprintf("/proc/self/fd/%d", executableFD),
		Args:       []string{StageName},
		Env:        []string{},
		Stdin:      files[0],
		Stdout:     files[1],
		Stderr:     files[2],
		ExtraFiles: []*os.File{s.executable, specification, writer},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid: true,
			PidFD:  &pidfd,
		},
	}
	if start.Join == "" {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID
	} else {
		// The thread that enters the namespaces cannot be used again: it stays locked, and the
		// runtime ends it with this goroutine.
		runtime.LockOSThread()
		if err := s.join(start.Join); err != nil {
			failure.Close()
			return nil, nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		failure.Close()
		return nil, nil, err
	}
	s.mu.Lock()
	s.running[start.Key] = cmd
	if pidfd >= 0 {
		s.pidfds[start.Key] = pidfd
	}
	s.mu.Unlock()
	return cmd, failure, nil
}

// join enters the mount and process-id namespaces of a container with this thread.
func (s *server) join(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd, ok := s.pidfds[key]
	if !ok {
		return errors.New("container is not running")
	}
	// setns(2): a thread that shares its root with others cannot enter a mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare root: %w", err)
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("enter namespaces of the container: %w", err)
	}
	return nil
}

// memoryFile returns an anonymous file with v as JSON, positioned at its beginning.
func memoryFile(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("specification", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "specification")
	if err := json.NewEncoder(file).Encode(v); err != nil {
		file.Close()
		return nil, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func closeAll(files []*os.File) {
	for _, file := range files {
		file.Close()
	}
}
