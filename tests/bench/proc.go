package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ, 100 on all Linux that Go runs on.
const tick = 10 * time.Millisecond

// stat returns the fields of /proc/PID/stat after the name, from the state on.
func stat(pid string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return nil, err
	}
	i := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text[i+1:]))
	if i < 0 || len(fields) < 15 {
		return nil, fmt.Errorf("/proc/%s/stat: unexpected format", pid)
	}
	return fields, nil
}

// cpuOf returns the CPU time of a process and its children, in user and kernel mode. It reads the
// nanoseconds of the scheduler, because a tick is as long as many requests.
func cpuOf(pid int) (cpu time.Duration, err error) {
	processes, err := familyOf(pid)
	if err != nil {
		return 0, err
	}
	for _, process := range processes {
		threads, err := filepath.Glob(filepath.Join("/proc", process, "task", "*", "schedstat"))
		if err != nil {
			return 0, err
		}
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if err != nil {
				continue // it has ended
			}
			ran, _, _ := strings.Cut(string(text), " ")
			n, err := strconv.ParseInt(ran, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", thread, err)
			}
			cpu += time.Duration(n)
		}
	}
	return cpu, nil
}

// familyOf returns a process and its children.
func familyOf(pid int) (family []string, err error) {
	family = []string{strconv.Itoa(pid)}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		family = append(family, strings.Fields(string(text))...)
	}
	return family, nil
}

// memory is the memory of a process in bytes.
type memory struct{ rss, anon, file, peak int64 }

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	into := map[string]*int64{"VmRSS:": &m.rss, "RssAnon:": &m.anon, "RssFile:": &m.file, "VmHWM:": &m.peak}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || into[fields[0]] == nil {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return m, err
		}
		*into[fields[0]] = kib << 10
	}
	return m, nil
}

// writtenBy returns the bytes that a process has written to the disk. It counts dirty pages, so
// writes to sockets do not count.
func writtenBy(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/io has no write_bytes", pid)
}

// load is the load of the machine during a case.
type load struct {
	Case    string  `json:"case"`
	Seconds float64 `json:"seconds"`
	Average string  `json:"loadAverage"` // at the end
	Busy    float64 `json:"busyCPUs"`
	Others  float64 `json:"busyCPUsOfOthers"` // neither this process nor its children
}

func (l load) String() string {
	return fmt.Sprintf("%-10s %5.0f s, load average %s, %.2f of %d CPUs busy, %.2f of them for other programs", l.Case, l.Seconds, l.Average, l.Busy, runtime.NumCPU(), l.Others)
}

// machine measures the load of the CPUs.
type machine struct {
	start      time.Time
	busy, ours time.Duration
}

func watchMachine() machine {
	return machine{time.Now(), busyTime(), familyTime()}
}

func (m machine) load(name string) load {
	took := time.Since(m.start)
	busy, ours := busyTime()-m.busy, familyTime()-m.ours
	l := load{Case: name, Seconds: took.Seconds(), Busy: float64(busy) / float64(took), Others: max(0, float64(busy-ours)/float64(took))}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		l.Average = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	return l
}

// busyTime returns the busy time of all CPUs since boot.
func busyTime() (busy time.Duration) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // cpu, idle, iowait; guest is part of user
			continue
		}
		n, _ := strconv.ParseInt(field, 10, 64) // 0 if it is not a number
		busy += time.Duration(n) * tick
	}
	return busy
}

// familyTime returns the CPU time of this process and its descendants, including ended ones.
func familyTime() (total time.Duration) {
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is valid
	parents, used := map[string]string{}, map[string]time.Duration{}
	for _, path := range paths {
		pid := filepath.Base(path)
		fields, err := stat(pid)
		if err != nil {
			continue // it has ended
		}
		parents[pid] = fields[1]
		for _, field := range fields[11:15] {
			n, _ := strconv.ParseInt(field, 10, 64) // 0 if it is not a number
			used[pid] += time.Duration(n) * tick
		}
	}
	self := strconv.Itoa(os.Getpid())
	for pid, time := range used {
		for at := pid; at != "" && at != "0"; at = parents[at] {
			if at == self {
				total += time
				break
			}
		}
	}
	return total
}
