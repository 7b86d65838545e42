package record

import (
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// isUnreadable reports whether an event is one that cannot be recorded in a collection: its object
// is a Table, or has no name.
func (w *Watch) isUnreadable(e wire.Event, m wire.Meta) bool {
	if e.Type == wire.Bookmark {
		return m.Kind == "Table"
	}
	return m.Kind == "Table" || m.Name == "" || m.Namespace == "" && w.scope.Namespace != ""
}

// unread records an event that cannot be recorded in a collection. The client was told
// nevertheless. The rows of a Table say which objects changed. Of another event nobody knows, so
// nothing from before counts in the watch's scope.
func (w *Watch) unread(e wire.Event, m wire.Meta) {
	if e.Type == wire.Bookmark {
		return
	}
	w.goAlone()
	w.begins = w.begins && e.Type == wire.Added
	says := store.Evidence{Says: store.Unknown, Told: w.recorder.db.Next(), Read: store.Latest}
	says.Asked = says.Told
	var rows []wire.Meta
	if m.Kind == "Table" {
		rows, _ = wire.Objects(w.form.Format, e.Object) // none if one of them has no name
	}
	if len(rows) == 0 {
		w.recorder.observe(&w.source, w.source.key(), says)
		return
	}
	if e.Type == wire.Deleted {
		for _, row := range rows {
			key := store.Key{Namespace: row.Namespace, Name: row.Name}
			op := eventAlone{event: &event{stream: w.stream, version: row.ResourceVersion, told: says.Told, kind: e.Type, key: key, uid: row.UID}}
			if !w.recorder.enqueue(op) {
				op.lost()
			}
		}
		return
	}
	says.Says, says.Version, says.Read = store.Exists, m.ResourceVersion, store.Stream
	if w.begins { // it may be of the initial state
		says.Asked = w.source.Asked
	}
	w.recorder.observeRows(observeObjects{
		observe: observe{recorder: w.recorder, resource: w.source.resource(), key: w.source.key(), evidence: says}, scope: w.scope,
	}, rows)
}

// goAlone makes the next events those of an unknown part of a collection.
func (w *Watch) goAlone() {
	if w.phase == alone {
		return
	}
	begins := w.phase == initial || w.phase == listing
	w.Close()
	w.phase, w.begins = alone, begins
}

// Unread records that a client reads a stream of events that nobody here can read. With each part
// of it nothing from before counts in its scope, provided that the client is selected by then.
func (r *Recorder) Unread(source Source, selected func() bool, resp *http.Response) {
	resp.Body = &unreadStream{resp.Body, r, source, selected}
}

type unreadStream struct {
	io.ReadCloser
	recorder *Recorder
	source   Source
	selected func() bool
}

func (s *unreadStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 && s.selected() {
		now := s.recorder.db.Next()
		s.recorder.observe(&s.source, s.source.key(), store.Evidence{Says: store.Unknown, Asked: now, Told: now, Read: store.Latest})
	}
	return n, err
}
