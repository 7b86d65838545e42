package main

import (
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

const smaps = `00400000-01bae000 r-xp 00001000 fe:00 10013326                           /opt/side car
Rss:               11256 kB
Anonymous:             0 kB
01bae000-01bb4000 r--p 017ad000 fe:00 10013326                           /opt/side car
Anonymous:             8 kB
01bb4000-01c4f000 rw-p 017b3000 fe:00 10013326                           /opt/side car
Anonymous:             0 kB
02000000-02001000 r--p 00000000 fe:00 10013326                           /opt/side car
Anonymous:             0 kB
7f000000-7f001000 r--p 00000000 fe:00 4711                               /lib/libc.so.6
Anonymous:             0 kB
7f446347000-7f4463a7000 rw-p 00000000 00:00 0
Anonymous:             0 kB
VmFlags: rd wr mr mw me ac
`

func TestOnlyCleanPagesOfTheProgramAreReleased(t *testing.T) {
	got, err := cleanMappings(strings.NewReader(smaps), "/opt/side car")
	if err != nil {
		t.Fatal(err)
	}
	if want := []mapping{{0x400000, 0x1bae000}, {0x2000000, 0x2001000}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if _, err := cleanMappings(strings.NewReader("nonsense r--p\n"), ""); err == nil {
		t.Error("no error for a line that is none of smaps")
	}
}

func TestAProgramRunsOnAfterItsTextWasReleased(t *testing.T) {
	before := fileMemory(t)
	if err := releaseText(); err != nil {
		t.Fatal(err)
	}
	if after := fileMemory(t); after > before*9/10 {
		t.Errorf("%d bytes of files are in memory, %d before", after, before)
	}
}

// fileMemory is how much of mapped files this process has in memory, in KiB.
func fileMemory(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nRssFile:")
	value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, err := strconv.Atoi(value)
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func FuzzCleanMappings(f *testing.F) {
	f.Add(smaps)
	f.Fuzz(func(t *testing.T, text string) {
		clean, err := cleanMappings(strings.NewReader(text), "/opt/side car")
		if err != nil {
			return
		}
		if len(clean) > strings.Count(text, "Anonymous:") {
			t.Errorf("%d mappings", len(clean))
		}
	})
}
