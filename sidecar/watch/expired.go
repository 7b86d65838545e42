package watch

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/sidecar/relist"
	"rockpool.dev/sidecar/tally"
)

// expired has the API server's word that it has forgotten the version.
type expired struct {
	wait   *waiting
	status []byte // the 410 Status
}

func (p *expired) leave(w *watch) { p.wait.leave(w) }

// step finds the changes that the client has missed. If they cannot be known, the client gets
// the API server's answer.
func (p *expired) step(w *watch) phase {
	ctx, cancel := w.lifetime()
	defer cancel()
	d, err := p.difference(ctx, w)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return p.wait.end(w, w.over())
	case unanswered(err):
		return p.wait // the API server is asked again when the link is back
	default:
		resumptions.WithLabelValues("gone").Inc()
		w.Repeated.Write(tally.Line{
			Level: zap.InfoLevel, Message: "the API server has forgotten the version of a watch; ending it, so that its client lists again",
			Fields: []zap.Field{zap.String("path", w.Info.Path), zap.String("resourceVersion", w.version)}, Err: err,
		})
		w.out = w.form.Format.AppendEvent(w.out, wire.Error, p.status)
		return p.wait.end(w, ended{io.EOF})
	}
	p.wait.leave(w)
	resumptions.WithLabelValues("compared").Inc()
	w.Repeated.Write(tally.Line{
		Level: zap.InfoLevel, Message: "the API server has forgotten the version of a watch; sending its client the changes that a list shows",
		Fields: []zap.Field{zap.String("path", w.Info.Path), zap.String("from", w.version), zap.String("to", d.Version), zap.Int("events", len(d.Changes))},
	})
	w.events.Difference(d.Changes, d.Version)
	w.version = d.Version
	return &catchingUp{diff: d, failures: p.wait.failures}
}

func (p *expired) difference(ctx context.Context, w *watch) (*relist.Difference, error) {
	if !w.comparable() {
		return nil, relist.ErrUnknown
	}
	cohort := p.wait.cohort
	return cohort.difference(ctx, func(ctx context.Context) (*relist.Difference, error) {
		c := relist.Client{Upstream: w.Upstream, Cache: w.Cache, Info: w.Info, At: cohort.position, List: w.list}
		return c.Difference(ctx)
	})
}

// comparable tells that the watch's reading is recorded, in the form that its position says, so
// that the state that the client was sent can be known. The position says too little of a
// client that acts as somebody else, or takes a Table.
func (w *watch) comparable() bool {
	if w.Source.Principal == "" || w.Info.Unrecorded || w.Info.Narrowed {
		return false
	}
	return w.accept != "" || !slices.ContainsFunc(w.Info.Accept, func(m request.MediaType) bool {
		_, cut := m.Representation()
		return !cut
	})
}

// catchingUp sends the changes that the client has missed.
type catchingUp struct {
	diff     *relist.Difference
	sent     int // of its changes
	failures int
}

func (*catchingUp) leave(*watch) {}

func (p *catchingUp) step(w *watch) phase {
	d, format := p.diff, w.form.Format
	for ; p.sent < len(d.Changes) && len(w.out) < batch; p.sent++ {
		c := d.Changes[p.sent]
		w.out = format.AppendEvent(w.out, c.Type, c.Object)
	}
	if p.sent < len(d.Changes) {
		return p
	}
	if w.Info.AllowWatchBookmarks {
		w.out = format.AppendEvent(w.out, wire.Bookmark, format.Bookmark(d.Kind, d.APIVersion, d.Version, false))
	}
	return w.wait(p.failures)
}

// isExpired tells that an object is a Status with the code 410, which the API server sends for a
// version that it has forgotten (metav1.Status).
func isExpired(format wire.Format, object []byte) bool {
	m, err := format.ParseMeta(object)
	if err != nil || m.Kind != "Status" {
		return false
	}
	bare, _ := format.Bare(object)
	code, err := format.Lookup(bare, wire.Field{Members: []string{"code"}, Numbers: []protowire.Number{6}, Type: wire.Integer})
	return err == nil && code == strconv.Itoa(http.StatusGone)
}
