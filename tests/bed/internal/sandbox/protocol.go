// Package sandbox is the part of the pod runner that runs inside a pod's namespaces.
//
// A program that imports it has two hidden modes, which argv[0] selects before main starts (see
// hook.go). The sandbox, one for each pod, owns the network, IPC, UTS and process-id namespaces and
// serves requests on a Unix socket. The stage, one for each container or command, sets up the
// mounts and privileges of that process, and then becomes it by execve(2).
//
// It knows processes, mounts and sockets, and nothing of Kubernetes.
package sandbox

import "syscall"

// argv[0] of the two modes.
const (
	SandboxName = "bed-sandbox"
	StageName   = "bed-stage"
)

// SocketFD is the descriptor on which a sandbox finds its socket (SOCK_SEQPACKET).
const SocketFD = 3

// MaxMessage is the largest message in bytes, without descriptors.
const MaxMessage = 190 << 10

// A Request is one message to the sandbox. Exactly one of the pointers is set.
type Request struct {
	ID     int
	Setup  *Setup  `json:",omitempty"`
	Listen *Listen `json:",omitempty"` // the reply carries the listening socket
	Tmpfs  *Tmpfs  `json:",omitempty"`
	Start  *Start  `json:",omitempty"` // carries stdin, stdout and stderr
	Signal *Signal `json:",omitempty"`
}

// A Reply answers the Request with the same ID. With ID zero it reports the end of a process.
type Reply struct {
	ID    int
	Error string `json:",omitempty"`
	PID   int    `json:",omitempty"` // of a started process, in the sandbox's namespace
	Exit  *Exit  `json:",omitempty"`
}

// Setup is the first request. It sets up the network.
type Setup struct {
	Hostname  string
	Addresses []string // put on lo
}

// Listen asks for a listening TCP socket in the pod's network namespace.
type Listen struct{ Address string }

// Tmpfs mounts a memory file system that all containers of the pod see.
type Tmpfs struct {
	Path  string
	Bytes int64  // 0: the kernel's default
	Mode  uint32 // of its root, with set-group-ID
	Group int    // of its root
}

// Start starts a container, or with Join a command in one. The reply comes after its execve(2) has
// succeeded or a step has failed. Exit follows when the process ends.
type Start struct {
	Key       string     // names the process in Signal and Exit
	Join      string     // Key of the container to join
	Container *Container `json:",omitempty"` // nil with Join
	Process   Process
}

// Signal sends a signal to a process. It succeeds also if the process has ended.
type Signal struct {
	Key    string
	Number syscall.Signal
}

// Exit is the result of a process.
type Exit struct {
	Key    string
	Code   int            // exit code; 0 if a signal ended it
	Signal syscall.Signal // 0 if it exited by itself
}

// A Container is the file system of a process: the host's programs, read-only, on a new root.
type Container struct {
	Root         string // an empty directory to mount the root on
	ReadOnlyRoot bool
	Mounts       []Mount // parents before children
}

// A Mount makes Source, a path of the host, visible at Target, a path in the container.
type Mount struct {
	Source, Target string
	// SubPath of Source is mounted instead of all of it. If it does not exist, a directory is
	// created with the mode and group of Source.
	SubPath  string
	ReadOnly bool
}

// A Process is a command and its privileges.
type Process struct {
	Argv []string
	Env  []string
	Dir  string

	// SingleUser keeps user and groups as they are: a user namespace here has one user only.
	SingleUser      bool
	UID, GID        int
	Groups          []int
	Capabilities    []int // numbers of linux/capability.h: the bounding set, and what root gets
	NoNewPrivileges bool
}
