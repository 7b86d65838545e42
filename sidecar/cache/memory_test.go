package cache

import (
	"testing"
	"testing/fstest"
)

func TestTheSizeOfTheCacheInMemoryFollowsTheMemoryLimit(t *testing.T) {
	const v1, v2 = "memory/memory.limit_in_bytes", "memory.max"
	for _, tt := range []struct {
		name, file, content string
		want                int64
	}{
		{"a quarter of the limit of cgroup v2", v2, "201326592\n", 48 << 20},
		{"a quarter of the limit of cgroup v1", v1, "134217728\n", 32 << 20},
		{"a small limit", v2, "16777216\n", minMemory},
		{"a large limit", v2, "8589934592\n", maxMemory},
		{"no limit in cgroup v2", v2, "max\n", maxMemory},
		{"no limit in cgroup v1", v1, "9223372036854771712\n", maxMemory},
		{"no cgroup", "other", "", maxMemory},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := memorySize(fstest.MapFS{tt.file: {Data: []byte(tt.content)}}); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
