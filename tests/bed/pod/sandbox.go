package pod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"rockpool.dev/tests/bed/internal/process"
	"rockpool.dev/tests/bed/internal/sandbox"
)

// A sandboxClient starts and controls the process that holds a pod's namespaces.
type sandboxClient struct {
	process *process.Process
	conn    *net.UnixConn
	reading sync.WaitGroup

	mu      sync.Mutex
	next    int
	pending map[int]chan answer
	exits   map[string]chan sandbox.Exit
	ended   bool
}

type answer struct {
	err   error
	pid   int
	files []*os.File
}

var errSandboxEnded = errors.New("the pod's sandbox has ended")

// singleUser reports whether pods run in a user namespace with one user, because this process is
// not root.
func singleUser() bool { return os.Geteuid() != 0 }

// HasIPv6 reports whether pods have ::1, and can have other IPv6 addresses: the kernel knows them.
func HasIPv6() bool { return sandbox.HasIPv6() }

// startSandbox starts a sandbox whose output goes to the file log.
func startSandbox(log string) (*sandboxClient, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "sandbox")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{sandbox.SandboxName},
		Env:        []string{},
		ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	}
	if singleUser() {
		attributes := cmd.SysProcAttr
		attributes.Cloneflags |= unix.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	child, err := process.Start("pod sandbox", log, cmd)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w (a pod needs root, or a kernel that lets users create namespaces)", err)
	}
	s := &sandboxClient{
		process: child, conn: conn.(*net.UnixConn),
		pending: map[int]chan answer{}, exits: map[string]chan sandbox.Exit{},
	}
	s.reading.Go(s.read)
	return s, nil
}

// read distributes the messages of the sandbox until it ends.
func (s *sandboxClient) read() {
	buffer := make([]byte, sandbox.MaxMessage)
	for {
		reply, files, err := sandbox.ReceiveReply(s.conn, buffer)
		s.mu.Lock()
		if err != nil {
			s.ended = true
			for _, waiting := range s.pending {
				waiting <- answer{err: errSandboxEnded}
			}
			for key, exit := range s.exits {
				exit <- sandbox.Exit{Key: key, Signal: syscall.SIGKILL}
			}
			s.mu.Unlock()
			return
		}
		if reply.Exit != nil {
			if exit, ok := s.exits[reply.Exit.Key]; ok {
				delete(s.exits, reply.Exit.Key)
				exit <- *reply.Exit
			}
		} else if waiting, ok := s.pending[reply.ID]; ok {
			delete(s.pending, reply.ID)
			var failure error
			if reply.Error != "" {
				failure = errors.New(reply.Error)
			}
			waiting <- answer{err: failure, pid: reply.PID, files: files}
		}
		s.mu.Unlock()
	}
}

// call sends a request and waits for the answer. The caller owns the files of the answer.
func (s *sandboxClient) call(ctx context.Context, request sandbox.Request, files ...*os.File) (answer, error) {
	waiting := make(chan answer, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return answer{}, errSandboxEnded
	}
	s.next++
	request.ID = s.next
	s.pending[request.ID] = waiting
	s.mu.Unlock()
	if err := sandbox.Send(s.conn, request, files...); err != nil {
		s.mu.Lock()
		delete(s.pending, request.ID)
		s.mu.Unlock()
		return answer{}, fmt.Errorf("send a request to the sandbox: %w", err)
	}
	select {
	case a := <-waiting:
		return a, a.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// start starts a process and returns its process id in the sandbox. The channel receives its Exit.
// There is no context: a start takes milliseconds, and one that is given up half-way would leave a
// process that nobody knows of.
func (s *sandboxClient) start(start sandbox.Start, files ...*os.File) (int, <-chan sandbox.Exit, error) {
	exit := make(chan sandbox.Exit, 1)
	s.mu.Lock()
	s.exits[start.Key] = exit
	s.mu.Unlock()
	started, err := s.call(context.Background(), sandbox.Request{Start: &start}, files...)
	if err != nil {
		s.mu.Lock()
		delete(s.exits, start.Key)
		s.mu.Unlock()
		return 0, nil, err
	}
	return started.pid, exit, nil
}

func (s *sandboxClient) signal(key string, signal syscall.Signal) error {
	_, err := s.call(context.Background(), sandbox.Request{Signal: &sandbox.Signal{Key: key, Number: signal}})
	return err
}

// listen opens a listening socket inside the pod's network namespace.
func (s *sandboxClient) listen(ctx context.Context, address string) (*net.TCPListener, error) {
	socket, err := s.call(ctx, sandbox.Request{Listen: &sandbox.Listen{Address: address}})
	if err != nil {
		return nil, err
	}
	if len(socket.files) != 1 {
		return nil, fmt.Errorf("the sandbox sent %d sockets, want 1", len(socket.files))
	}
	defer socket.files[0].Close()
	listener, err := net.FileListener(socket.files[0])
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// stop ends the sandbox, and with it every process of the pod.
func (s *sandboxClient) stop() {
	// The sandbox ends when the socket closes. On a busy machine that takes a moment.
	_ = s.conn.CloseWrite()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-s.process.Exited():
	case <-timer.C:
		s.process.Kill()
	}
	s.reading.Wait()
	s.conn.Close()
}
