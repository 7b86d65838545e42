package cache

import (
	"io/fs"
	"os"
	"strconv"
	"strings"
)

const (
	// memoryShare is the part of the container's memory limit that the recordings in memory may
	// take. Their file may have twice as much while a list replaces another.
	memoryShare = 4
	// minMemory and maxMemory bound them, in bytes. maxMemory counts without a limit, too.
	minMemory = 8 << 20
	maxMemory = 64 << 20
)

// MemorySize is the size of the cache in memory, in bytes, by the container's memory limit.
func MemorySize() int64 { return memorySize(os.DirFS("/sys/fs/cgroup")) }

// memorySize reads the limit of the container's cgroup, of version 2 or 1.
func memorySize(cgroup fs.FS) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		raw, err := fs.ReadFile(cgroup, name)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err == nil { // else it is "max"
			return min(max(limit/memoryShare, minMemory), maxMemory)
		}
	}
	return maxMemory
}
