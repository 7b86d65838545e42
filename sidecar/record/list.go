package record

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/api/wire"
	"rockpool.dev/store"
)

// teeList records the body of a successful LIST while it is read. It becomes a collection or, if it
// cannot be split into objects, such as a Table, a verbatim response.
func (r *Recorder) teeList(source Source, format wire.Format, resp *http.Response) io.ReadCloser {
	if format == nil { // CBOR, YAML: it cannot be split
		r.doubtOf(&source)
		return r.teeDocument(source, format, resp)
	}
	l := &list{recorder: r, source: source}
	l.form.Format, l.split = format, format.NewList(l.item)
	body := r.documentBuffer(source, source.response(format.MediaType()))
	return newTee(resp, &listOrDocument{list: l, body: body})
}

type list struct {
	recorder *Recorder
	source   Source
	split    wire.ListSplitter
	form     request.Form
	parsed   bool   // the first item was parsed: of those that follow, the bytes may be enough
	kind     string // of the first item that has one
	api      string
	version  string // of the earlier pages; empty: this is the first
	snap     *snapshot
	failure  error
}

// write takes bytes of the body. If they cannot be split, the list is not recorded.
func (l *list) write(p []byte) {
	if l.failure == nil {
		_, l.failure = l.split.Write(p)
	}
	if l.snap != nil {
		l.snap.queueLate()
	}
}

func (l *list) item(raw []byte) error {
	if l.snap == nil {
		if err := l.begin(l.split.Peek()); err != nil {
			return err
		}
	}
	hash := itemHash(raw)
	if l.parsed && l.snap.same(hash, len(raw)) {
		return nil
	}
	m, err := l.form.Format.ParseItem(raw)
	if err != nil {
		return err
	}
	if m.Name == "" || m.Namespace == "" && l.source.Info.Namespace != "" {
		return errNotAnObject
	}
	if l.kind == "" {
		l.kind, l.api = m.Kind, m.APIVersion
	}
	if !l.parsed {
		l.parsed = true
		l.snap.sameKind, l.snap.sameAPI = l.itemKind(l.split.Peek())
		if l.snap.same(hash, len(raw)) {
			return nil
		}
	}
	kind, api := l.itemKind(l.split.Peek())
	o := itemRow(l.form, raw, m)
	o.Hash = hash
	l.snap.add(o, kind, api)
	return nil
}

// begin is called when the form of the items is known. Typed lists have their kind before their
// items; all other lists contain full objects.
func (l *list) begin(meta wire.ListMeta) error {
	rep, ok := representation(meta.Kind)
	if !ok {
		return errNotAnObject
	}
	// A list of objects that are not in etcd, such as metrics, has no resourceVersion.
	if read := meta.Metadata != nil || l.form.Format == wire.Protobuf; read && meta.ResourceVersion == "" {
		return errNoVersion
	}
	l.form.Representation = rep
	scope := l.source.scope(l.form)
	if token := l.source.Info.Continue; token != "" {
		before, ok := l.recorder.pages.take(scope, token)
		if !ok {
			return errNotFirst
		}
		l.snap, l.kind, l.api, l.version = before.snap, before.kind, before.api, before.version
		return nil
	}
	l.snap = newSnapshot(l.recorder, &l.source, l.form)
	l.snap.version, l.snap.tells = meta.ResourceVersion, !l.source.Background
	return nil
}

// end commits the list if its body was complete and was the last page.
func (l *list) end(complete bool) {
	meta, err := l.split.ListMeta()
	if complete && l.failure != nil && !errors.Is(l.failure, errNotFirst) && !l.source.Background {
		l.recorder.doubtOf(&l.source) // its client has read what is not recorded
	}
	complete = complete && err == nil && l.failure == nil && meta.HasItems && meta.ResourceVersion != ""
	if complete && l.snap == nil && l.begin(meta) != nil {
		return
	}
	// Pages of different versions do not make one state.
	if !complete || (l.version != "" && l.version != meta.ResourceVersion) {
		switch {
		case l.snap == nil:
		case l.version == "" || l.source.Background:
			l.recorder.enqueue(abort{l.snap})
		default:
			l.snap.queueSame()
			l.recorder.enqueue(giveUp{l.snap, l.kind, l.api})
		}
		return
	}
	kind, api := l.itemKind(meta)
	if meta.Continue != "" {
		l.snap.queueSame()
		l.recorder.pageRead(l.snap)
		paged := pagedList{snap: l.snap, kind: kind, api: api, version: meta.ResourceVersion, token: meta.Continue}
		l.recorder.giveUp(l.recorder.pages.put(paged, l.recorder.clock.Now()))
		return
	}
	c := store.CollectionMeta{
		Kind: kind, APIVersion: api, ResourceVersion: meta.ResourceVersion,
		Envelope: envelope(meta.Kind, meta.APIVersion, meta.Metadata),
	}
	l.snap.end(c)
}

// itemKind is the kind and apiVersion of the items. Those of a typed list have none of their own.
func (l *list) itemKind(meta wire.ListMeta) (kind, apiVersion string) {
	if l.kind == "" {
		return itemKind(meta.Kind), meta.APIVersion
	}
	return l.kind, l.api
}

// envelope is a list's own JSON without the fields that differ in each response.
func envelope(kind, apiVersion string, metadata []byte) string {
	var rest map[string]json.RawMessage
	if err := json.Unmarshal(metadata, &rest); err != nil || rest == nil { // or it is empty
		rest = map[string]json.RawMessage{}
	}
	for _, key := range []string{"resourceVersion", "continue", "remainingItemCount"} {
		delete(rest, key)
	}
	raw, err := json.Marshal(struct {
		Kind       string                     `json:"kind"`
		APIVersion string                     `json:"apiVersion"`
		Metadata   map[string]json.RawMessage `json:"metadata"`
	}{kind, apiVersion, rest})
	if err != nil { // the parts were JSON before
		return "{}"
	}
	return string(raw)
}

// listOrDocument records the response to a LIST. Whether it can be split into objects shows only
// while it is read. Until then, which is before the first item of a list, its bytes go both to the
// list and to the buffer.
type listOrDocument struct {
	list   *list
	body   *bodyBuffer
	choice sink
}

func (l *listOrDocument) write(p []byte) {
	if l.choice != nil {
		l.choice.write(p)
		return
	}
	l.list.write(p)
	l.body.write(p)
	failed := l.list.failure != nil
	switch kind := l.list.split.Peek().Kind; {
	case l.list.snap != nil, errors.Is(l.list.failure, errNotFirst), failed && kind == "":
		l.choose(l.list) // which may have failed, too: then nothing is recorded
	case failed, kind != "" && !isListKind(kind):
		l.choose(l.body)
	}
}

func (l *listOrDocument) choose(s sink) {
	if l.choice = s; s != l.body {
		l.body.drop()
	}
}

func (l *listOrDocument) end(complete bool) {
	if l.choice == nil {
		meta, err := l.list.split.ListMeta()
		if complete && err == nil && (!meta.HasItems || meta.ResourceVersion == "") {
			l.choose(l.body)
		} else {
			l.choose(l.list)
		}
	}
	l.choice.end(complete)
}
