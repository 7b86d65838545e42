package model

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/record"
)

// program is a client with a principal of its own.
type program struct {
	principal string
	told      map[key][]observation
	flushed   map[key]int      // how many of told survive a crash
	ever      map[key]bool     // what it, or the sidecar for it, was ever told about
	lists     map[scope]listed // where a watch of a scope goes on
	listings  []listing
	refusals  []listing
	refused   int // how many of refusals, and of listings, survive a crash
	heard     int
	streams   [slots]*stream
	flights   [slots]*flight
}

// listing is an answer to a list or a watch: the state of a scope, or a refusal.
type listing struct {
	scope scope
	verb  verb
	at    int
	sent  int
	told  int
	// killed means that it may be lost, because the sidecar was killed.
	killed bool
}

// listed is the state of a scope that a program was told.
type listed struct {
	at   int
	form form
}

// slots is how many watches, and requests under way, a program can have.
const slots = 3

// flight is a request under way.
type flight struct {
	ask    ask
	source record.Source
	sent   int
	came   int    // when the answer began to come
	reply  *reply // nil: the server has not answered yet
	body   io.ReadCloser
}

func newProgram(principal string) *program {
	return &program{
		principal: principal, told: map[key][]observation{}, flushed: map[key]int{},
		ever: map[key]bool{}, lists: map[scope]listed{},
	}
}

// source names a request whose answer is recorded. It is made when the request is sent.
func (w *world) source(p *program, r *http.Request) record.Source {
	return record.Source{Principal: p.principal, Info: request.Parse(r), Path: r.URL.RequestURI(), Started: w.now(), Asked: w.cache.Ask()}
}

// send sends a request of a program.
func (w *world) send(p *program, a ask) *flight {
	return &flight{ask: a, sent: w.tick, source: w.source(p, a.http())}
}

// answer has the server answer a request, lag revisions ago if that is allowed.
func (w *world) answer(p *program, f *flight, lag int) {
	r := w.server.answer(p.principal, f.ask, w.server.lagging(lag))
	f.reply = &r
}

// arrive has an answer come to the program, which reads the first half of the body.
func (w *world) arrive(f *flight) {
	resp := f.reply.http(f.ask)
	w.cache.Record(&f.source, resp)
	f.body, f.came = resp.Body, w.tick
	_, _ = io.CopyN(io.Discard, f.body, int64(len(f.reply.body)/2))
}

func (r *reply) http(a ask) *http.Response {
	form := a.form
	if r.status != http.StatusOK && form == asTable {
		form = inJSON
	}
	return &http.Response{
		Status: http.StatusText(r.status), StatusCode: r.status, Header: http.Header{"Content-Type": {form.mediaType()}},
		Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: -1,
	}
}

// finish reads the rest of an answer: now the program was told. It gives the request for the next
// page of a list, or nil.
func (w *world) finish(p *program, f *flight) (next *ask, err error) {
	_, err = io.Copy(io.Discard, f.body)
	if err := errors.Join(err, f.body.Close()); err != nil {
		return nil, err
	}
	r, a := f.reply, f.ask
	for k, o := range r.told {
		o.sent, o.came = f.sent, f.came
		w.tell(p, k, o)
	}
	told := listing{scope: a.scope, verb: a.verb, at: r.at, sent: f.sent, told: w.tick}
	switch {
	case a.verb == get && r.status == http.StatusOK:
		p.lists[scope{a.key.kind, a.key.namespace, byName, a.key.name}] = listed{r.at, a.form}
	case a.verb != list && a.verb != watch:
	case r.status == http.StatusForbidden, r.status == http.StatusNotFound:
		p.refusals = append(p.refusals, told)
	case r.status != http.StatusOK:
	case a.verb == list && r.next != "":
		a.next, a.page, a.offset = r.next, r.at, r.offset
		return &a, nil
	case a.verb == list:
		p.lists[a.scope] = listed{r.at, a.form}
		p.listings = append(p.listings, told)
	}
	return nil, nil
}

// tell notes that a program was told something.
func (w *world) tell(p *program, k key, o observation) {
	o.told = w.tick
	p.told[k] = append(p.told[k], o)
	p.ever[k] = true
}

// do sends a request, and reads all of its answer. Of a list with a limit it reads a number of
// further pages, and then breaks off.
func (w *world) do(p *program, a ask, lag, pages int) error {
	f := w.send(p, a)
	for ; ; pages-- {
		w.answer(p, f, lag)
		w.arrive(f)
		next, err := w.finish(p, f)
		if err != nil || next == nil || pages == 0 {
			return err
		}
		sent := f.sent
		f = w.send(p, *next)
		f.sent = sent // the list is one answer
	}
}

// read has an answer come that was slow. Else it reads the rest of the answer; of a list, it then
// sends for the next page.
func (w *world) read(p *program, f **flight) error {
	switch {
	case *f == nil, (*f).reply == nil:
		return nil
	case (*f).body == nil:
		w.arrive(*f)
		return nil
	}
	next, err := w.finish(p, *f)
	sent := (*f).sent
	if *f = nil; next != nil {
		*f = w.send(p, *next)
		(*f).sent = sent
	}
	return err
}

// breakOff gives a request under way up.
func (w *world) breakOff(f **flight) {
	if *f != nil && (*f).body != nil {
		_ = (*f).body.Close()
	}
	*f = nil
}
