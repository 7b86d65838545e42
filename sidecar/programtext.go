package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// releaseText takes the pages of the program's file out of this process's memory. They stay in the
// page cache, which all sidecars of the node share, and come back when they are used: from the disk
// only if the node has needed their memory for something else. So a quiet sidecar has no page that
// only the start or a list has used.
func releaseText() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer maps.Close()
	clean, err := cleanMappings(maps, program)
	for _, m := range clean {
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			err = errors.Join(err, fmt.Errorf("madvise %x-%x: %w", m.from, m.to, errno))
		}
	}
	return err
}

// mapping is a range of addresses, without the one at its end.
type mapping struct{ from, to uintptr }

// cleanMappings reads /proc/PID/smaps (proc(5)) and returns where a file is mapped that cannot be
// written there and has not been: MADV_DONTNEED loses what a process has written. The dynamic
// linker writes addresses into a part that it makes read-only afterwards.
func cleanMappings(smaps io.Reader, file string) (clean []mapping, err error) {
	lines := bufio.NewScanner(smaps)
	var m mapping
	candidate := false
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) == 0:
		case !strings.HasSuffix(fields[0], ":"): // the line that begins a mapping
			if m, err = parseRange(fields[0]); err != nil {
				return nil, err
			}
			candidate = len(fields) > 5 && strings.HasPrefix(fields[1], "r-") && strings.Join(fields[5:], " ") == file
		case fields[0] == "Anonymous:" && candidate && len(fields) > 1 && fields[1] == "0":
			clean = append(clean, m)
		}
	}
	return clean, lines.Err()
}

func parseRange(text string) (m mapping, err error) {
	first, last, _ := strings.Cut(text, "-")
	from, err := strconv.ParseUint(first, 16, strconv.IntSize)
	to, err2 := strconv.ParseUint(last, 16, strconv.IntSize)
	if err := errors.Join(err, err2); err != nil {
		return m, fmt.Errorf("smaps: %q is no range of addresses: %w", text, err)
	}
	return mapping{uintptr(from), uintptr(to)}, nil
}
