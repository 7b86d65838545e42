package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Send sends one message with descriptors. Several goroutines may send at once.
func Send(conn *net.UnixConn, message any, files ...*os.File) error {
	data, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > MaxMessage {
		return fmt.Errorf("message of %d bytes is larger than %d", len(data), MaxMessage)
	}
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, file := range files {
			fd := int(file.Fd())
			// The receiver may be any program, and few expect a non-blocking pipe.
			if err := unix.SetNonblock(fd, false); err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(data, rights, nil)
	return err
}

// ReceiveReply receives one message from a sandbox. It returns io.EOF when the sandbox has ended.
func ReceiveReply(conn *net.UnixConn, buffer []byte) (Reply, []*os.File, error) {
	return receive[Reply](conn, buffer)
}

func receive[T any](conn *net.UnixConn, buffer []byte) (message T, files []*os.File, err error) {
	rights := make([]byte, unix.CmsgSpace(4*4))
	n, m, _, _, err := conn.ReadMsgUnix(buffer, rights)
	if err != nil {
		return message, nil, err
	}
	if n == 0 {
		return message, nil, io.EOF
	}
	controls, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil {
		return message, nil, err
	}
	for _, control := range controls {
		fds, err := unix.ParseUnixRights(&control)
		if err != nil {
			return message, nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	if err := json.Unmarshal(buffer[:n], &message); err != nil {
		closeAll(files)
		return message, nil, err
	}
	return message, files, nil
}
