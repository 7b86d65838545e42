package record

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// writerEnv names the cache directory of a process that writes until it is killed.
const writerEnv = "ROCKPOOL_TEST_WRITER"

const otherConfigMaps = "/api/v1/namespaces/other/configmaps"

// history stands for a server whose state at each version can be computed. Each version changes one
// of ten objects, chosen by the number of the version.
type history struct{}

func (history) change(version int) (name string, deleted bool) {
	r := rand.New(rand.NewPCG(uint64(version), 11))
	return fmt.Sprintf("o%d", r.IntN(10)), r.IntN(4) == 0
}

// event is the type and the object of the event at a version.
func (h history) event(version int) (kind, name string) {
	name, deleted := h.change(version)
	if deleted {
		return wire.Deleted, name
	}
	return wire.Modified, name
}

// state returns the version of each object, indexed by its number; 0: it does not exist.
func (h history) state(version int) (objects [10]int) {
	var found [10]bool
	for left := 10; version > 0 && left > 0; version-- {
		name, deleted := h.change(version)
		i, _ := strconv.Atoi(name[1:])
		if found[i] {
			continue
		}
		found[i] = true
		if left--; !deleted {
			objects[i] = version
		}
	}
	return objects
}

func (h history) list(version int) string {
	var items []string
	for i, v := range h.state(version) {
		if v > 0 {
			items = append(items, configMap(fmt.Sprintf("o%d", i), v))
		}
	}
	return listOf(version, items...)
}

// writeUntilKilled records lists of two scopes and a watch of one of them. It continues from the
// recorded version and prints its progress.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, dir, store.Options{MaxSize: 16 << 20})
	if err != nil {
		return err
	}
	r := New(Options{DB: db, Logger: zap.NewNop(), MaxPending: 1 << 20})
	go r.Run(ctx)
	h := history{}
	list := func(url string, version int) error {
		body := r.teeList(sourceOf(url, time.Now()), wire.JSON, answer(strings.NewReader(h.list(version))))
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		return body.Close()
	}
	version := 1
	all, err := db.Collections(ctx, who, "", "v1", "configmaps")
	if err != nil {
		return err
	}
	for _, c := range all {
		if v, err := strconv.Atoi(c.ResourceVersion); err == nil {
			version = max(version, v)
		}
	}
	if err := errors.Join(list(configmaps, version), r.Flush(ctx)); err != nil {
		return err
	}
	w := r.Watch(sourceOf(fmt.Sprintf("%s?watch=true&resourceVersion=%d", configmaps, version), time.Now()), wire.JSON)
	for {
		version++
		kind, name := h.event(version)
		object := []byte(cm(name, version))
		m, err := wire.JSON.ParseMeta(object)
		if err != nil {
			return err
		}
		w.Event(wire.Event{Type: kind, Object: object}, m)
		switch {
		case version%601 == 0:
			err = list(otherConfigMaps, version)
		case version%307 == 0:
			err = list(configmaps, version)
		case version%1201 == 0:
			err = r.Flush(ctx)
		case version%50 == 0:
			_, err = fmt.Println(version)
		}
		if err != nil {
			return err
		}
	}
}

func TestAfterEveryKillACompleteCollectionIsTheServersState(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	reached := map[string]int{}
	for round := range 40 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + r.IntN(60) {
			if !lines.Scan() {
				t.Fatalf("the writer exited by itself: %v", cmd.Wait())
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its error says that it was killed

		db, err := store.Open(t.Context(), dir, store.Options{MaxSize: 16 << 20, Notice: func(what string) { t.Errorf("round %d: %s", round, what) }})
		if err != nil {
			t.Fatal(err)
		}
		h := &harness{t: t, db: db}
		all, err := db.Collections(t.Context(), who, "", "v1", "configmaps")
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range h.recorded("configmaps") {
			version, err := strconv.Atoi(all[i].ResourceVersion)
			if err != nil {
				t.Fatal(got, err)
			}
			want := fmt.Sprintf("complete %s/@%d:", all[i].Namespace, version)
			for i, v := range (history{}).state(version) {
				if v > 0 {
					want += fmt.Sprintf(" o%d@%d", i, v)
				}
			}
			if got != want {
				t.Errorf("round %d: recorded\n %s\nand the server had\n %s", round, got, want)
			}
			reached[all[i].Namespace] = max(reached[all[i].Namespace], version)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if reached["shop"] < 1000 || reached["other"] < 1000 {
		t.Errorf("the writers only reached %v", reached)
	}
	t.Log(reached)
}
