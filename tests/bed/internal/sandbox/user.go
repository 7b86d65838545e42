package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// takeUser changes the user and groups of this thread. For any user but 0 the kernel also removes
// all capabilities (capabilities(7)).
func (p Process) takeUser() error {
	groups := make([]uint32, len(p.Groups)+1) // one more, so that &groups[0] exists
	for i, group := range p.Groups {
		groups[i] = uint32(group)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(p.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return fmt.Errorf("set groups %v: %w", p.Groups, errno)
	}
	gid, uid := uintptr(p.GID), uintptr(p.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("set group %d: %w", p.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("set user %d: %w", p.UID, errno)
	}
	return nil
}
