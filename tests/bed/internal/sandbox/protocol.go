// Package sandbox is the part of the pod runner that runs inside a pod's namespaces.
//
// Importing it gives a program two hidden personalities, chosen by argv[0] before main starts
// (see hook.go): the sandbox, one for each pod, which owns the network, IPC, UTS and process-id
// namespaces and obeys requests on a Unix socket; and the stage, one for each container or command, which
// sets up what that process sees and may do, and then becomes it by execve(2).
//
// It knows processes, mounts and sockets; nothing of Kubernetes.
package sandbox

import "syscall"

// argv[0] of the two personalities.
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

// A Reply answers the Request with the same ID, or, with ID zero, tells that a process ended.
type Reply struct {
	ID    int
	Error string `json:",omitempty"`
	PID   int    `json:",omitempty"` // of a started process, in the sandbox's namespace
	Exit  *Exit  `json:",omitempty"`
}

// Setup is the first request: it makes the network ready.
type Setup struct {
	Hostname  string
	Addresses []string // IPv4, put on lo
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

// Start starts a container, or with Join a command in one. The reply comes once its execve(2) has
// succeeded or something has failed; Exit follows when the process ends.
type Start struct {
	Key       string     // names the process in Signal and Exit
	Join      string     // Key of the container to join
	Container *Container `json:",omitempty"` // nil with Join
	Process   Process
}

// Signal sends a signal to a process. A process that has ended already is no error.
type Signal struct {
	Key    string
	Number syscall.Signal
}

// Exit tells how a process ended.
type Exit struct {
	Key    string
	Code   int            // exit code; 0 if a signal ended it
	Signal syscall.Signal // 0 if it exited by itself
}

// A Container is what a process sees: the host's programs, read-only, on a fresh root.
type Container struct {
	Root         string // an empty directory to mount the root on
	ReadOnlyRoot bool
	Mounts       []Mount // parents before children
}

// A Mount makes Source, a path of the host, visible at Target, a path in the container.
type Mount struct {
	Source, Target string
	// SubPath is mounted instead of all of Source. If there is nothing, a directory is made with the
	// mode and group of Source.
	SubPath  string
	ReadOnly bool
}

// A Process is what is run, and what it may do.
type Process struct {
	Argv []string
	Env  []string
	Dir  string

	// SingleUser leaves user and groups as they are: in a user namespace there is only one.
	SingleUser      bool
	UID, GID        int
	Groups          []int
	Capabilities    []int // numbers of linux/capability.h: the bounding set, and what root gets
	NoNewPrivileges bool
}
