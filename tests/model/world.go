package model

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/utils/clock"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// epoch is when a history begins.
var epoch = time.UnixMilli(1_700_000_000_000).UTC()

// world is a server, a sidecar's cache, and the programs between which the cache stands.
type world struct {
	history  *history
	server   *server
	programs []*program
	dir      string
	file     int // counts the directories of the database: a crash begins a new one
	db       *store.DB
	cache    *cache.Cache
	stop     func() error // stops the cache and closes the database
	resume   func()       // lets a store go on that is held up; nil: it is not
	wall     atomic.Int64 // the wall clock, in milliseconds after the epoch
	tick     int          // counts the steps of the history
	misled   bool         // a saved read has not noticed a restore: what follows is not judged; see unnoticed
	counts   counts
	answerer answerer
}

// counts says how questions were answered.
type counts struct{ known, absent, unknown, saved int }

func newWorld(h *history, offline answerer) (*world, error) {
	dir, err := os.MkdirTemp(memoryDir(), "rockpool-model-")
	if err != nil {
		return nil, err
	}
	w := &world{history: h, dir: dir, server: newServer(h.Opaque, h.Padding), answerer: offline}
	for i := range h.Programs {
		w.programs = append(w.programs, newProgram(fmt.Sprintf("system:serviceaccount:app:%d", i)))
	}
	return w, w.open()
}

// memoryDir is a directory in memory, if there is one; empty: that of temporary files.
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (w *world) directory() string { return filepath.Join(w.dir, fmt.Sprint(w.file)) }

// open opens the cache in the present directory.
func (w *world) open() error {
	if err := os.MkdirAll(w.directory(), 0o700); err != nil {
		return err
	}
	db, err := store.Open(context.Background(), w.directory(), store.Options{MaxSize: w.history.DiskSize, Now: w.now})
	if err != nil {
		return err
	}
	w.db = db
	w.cache = cache.NewOf(record.Options{DB: db, Name: "model", Logger: zap.NewNop(), MaxPending: w.history.QueueSize, Clock: wallClock{world: w}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(c *cache.Cache) { done <- c.Run(ctx) }(w.cache)
	w.stop = func() error {
		cancel()
		return errors.Join(<-done, db.Close())
	}
	return nil
}

func (w *world) close() error {
	w.release()
	return errors.Join(w.stop(), os.RemoveAll(w.dir))
}

// crash ends the sidecar as a kill does: what was not written is lost, and every stream breaks.
func (w *world) crash() error {
	w.release()
	from := w.directory()
	w.file++
	if err := os.MkdirAll(w.directory(), 0o700); err != nil {
		return err
	}
	// Nothing else is written meanwhile.
	err := w.db.Update(context.Background(), func(*store.Tx) error { return copyFiles(from, w.directory()) })
	if err := errors.Join(err, w.stop()); err != nil {
		return err
	}
	for _, p := range w.programs {
		p.streams, p.flights = [slots]*stream{}, [slots]*flight{}
		for k, n := range p.flushed {
			p.told[k] = p.told[k][:n]
			for i := range p.told[k] {
				p.told[k][i].killed = p.told[k][i].killed || !p.told[k][i].settled
			}
		}
		for k := range p.told {
			if _, ok := p.flushed[k]; !ok {
				delete(p.told, k)
			}
		}
		p.refusals = p.refusals[:p.refused]
		for i := p.heard; i < len(p.listings); i++ {
			p.listings[i].killed = true
		}
	}
	return w.open()
}

func copyFiles(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "-shm") {
			continue // SQLite makes it again
		}
		raw, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, f.Name()), raw, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hold keeps the recorder from writing until release, as a hanging disk does.
func (w *world) hold() {
	if w.resume != nil {
		return
	}
	held, let, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- w.db.Update(context.Background(), func(*store.Tx) error {
			close(held)
			<-let
			return nil
		})
	}()
	<-held
	w.resume = func() {
		close(let)
		<-done
	}
}

func (w *world) release() {
	if w.resume != nil {
		w.resume()
		w.resume = nil
	}
}

// flush waits until the recorder has written all.
func (w *world) flush() error {
	w.release()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.cache.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	for _, p := range w.programs {
		for k, told := range p.told {
			p.flushed[k] = len(told)
		}
		p.refused, p.heard = len(p.refusals), len(p.listings)
	}
	return nil
}

// now is the time of the wall clock, which advances by the ticks of the history.
func (w *world) now() time.Time { return epoch.Add(time.Duration(w.wall.Load()) * time.Millisecond) }

// question is a request that the cache answers.
func (w *world) question(p *program, a ask) replay.Request {
	r := a.http()
	return replay.Request{Principal: p.principal, Info: request.Parse(r), Path: r.URL.RequestURI()}
}

// wallClock has the time of a world, and real timers.
type wallClock struct {
	clock.RealClock
	world *world
}

func (c wallClock) Now() time.Time { return c.world.now() }
