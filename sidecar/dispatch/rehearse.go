package dispatch

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/replay"
)

// maxKept bounds the requests that are kept for a rehearsal.
const maxKept = 300

// kept are the distinct requests of the programs, without their tokens and bodies.
type kept struct {
	mu   sync.Mutex
	all  map[keptKey]*keptRequest
	next int64 // counts the calls of keep
}

// keptKey is what makes a request distinct. The path is without what differs each time.
type keptKey struct{ subject, agent, method, path, accept, impersonated, review string }

type keptRequest struct {
	keptKey
	uri    string // as it was asked last
	header http.Header
	review *sealedKey
	last   int64 // order of the last time
}

// keptHeaders are those that an answer depends on.
var keptHeaders = []string{"Accept", "User-Agent", "Impersonate-User"}

// keep notes a request that the dispatcher could answer offline. An acceptor decides about writes by
// their bodies, which are not kept.
func (k *kept) keep(x *exchange) {
	i := x.info
	if x.subject == "" || x.acceptor != nil || i.Continue != "" {
		return
	}
	r := x.request
	at := withoutProxied(r.URL, i)
	key := keptKey{x.subject, r.UserAgent(), r.Method, keptPath(at, i.ResourceVersion), i.RawAccept, r.Header.Get("Impersonate-User"), ""}
	if x.review != nil {
		key.review = x.review.name
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next++
	known := k.all[key]
	if known == nil {
		if len(k.all) >= maxKept {
			k.forgetOldest()
		}
		known = &keptRequest{keptKey: key, header: http.Header{}, review: x.review}
		for _, name := range keptHeaders {
			if v := r.Header.Values(name); len(v) > 0 {
				known.header[name] = slices.Clone(v)
			}
		}
		if k.all == nil {
			k.all = map[keptKey]*keptRequest{}
		}
		k.all[key] = known
	}
	known.uri, known.last = at.RequestURI(), k.next
}

// withoutProxied cuts what a request asks of something behind the API server's proxy, because that
// may be secret. It is never answered offline.
func withoutProxied(u *url.URL, i *request.Info) *url.URL {
	below, ok := strings.CutPrefix(i.Subresource, "proxy")
	switch {
	case ok && (below == "" || below[0] == '/'):
		return &url.URL{Path: strings.TrimSuffix(strings.TrimRight(u.Path, "/"), below)}
	case i.Legacy, i.Unclean:
		if before, _, ok := strings.Cut(u.Path, "/proxy/"); ok {
			return &url.URL{Path: before + "/proxy"}
		}
	}
	return u
}

// keptPath is the path and query of a request for an object or list at a version, without what
// differs each time.
func keptPath(u *url.URL, version string) string {
	if u.RawQuery == "" {
		return u.Path
	}
	query := u.Query()
	query.Del("timeoutSeconds")
	query.Del("timeout")
	if version != "" && version != "0" {
		query.Set("resourceVersion", "some")
	}
	return u.Path + "?" + query.Encode()
}

func (k *kept) forgetOldest() {
	var oldest *keptRequest
	for _, r := range k.all {
		if oldest == nil || r.last < oldest.last {
			oldest = r
		}
	}
	delete(k.all, oldest.keptKey)
}

// sorted returns copies of the requests.
func (k *kept) sorted() (all []keptRequest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.all {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b keptRequest) int {
		return cmp.Or(cmp.Compare(a.agent, b.agent), cmp.Compare(a.uri, b.uri), cmp.Compare(a.method, b.method), cmp.Compare(a.last, b.last))
	})
	return all
}

// Rehearsal is what a request of a program would get if the link went now.
type Rehearsal struct {
	Subject string `json:"account"`
	Agent   string `json:"agent"`
	Method  string `json:"method"`
	Path    string `json:"path"` // with its query
	Status  int    `json:"status"`
	// Age is how old the answer would be.
	Age time.Duration `json:"ageNanoseconds,omitempty"`
	// Reason is why there would be no answer; empty: there would be one.
	Reason string `json:"reason,omitempty"`
}

// Rehearse answers the distinct requests of the programs as if the link were down, and discards the
// answers. Nothing is sent. Writes that an acceptor decides about are left out.
func (d *Dispatcher) Rehearse(ctx context.Context) (all []Rehearsal, err error) {
	for _, r := range d.kept.sorted() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		all = append(all, d.rehearse(ctx, &r))
	}
	return all, nil
}

func (d *Dispatcher) rehearse(ctx context.Context, k *keptRequest) Rehearsal {
	out := Rehearsal{Subject: k.subject, Agent: k.agent, Method: k.method, Path: k.uri}
	resp, err := d.imagine(ctx, k)
	if err == nil && resp != nil {
		_, err = io.Copy(io.Discard, resp.Body)
		err = errors.Join(err, resp.Body.Close())
		seconds, _ := strconv.Atoi(resp.Header.Get("Age")) // 0: the answer has no age
		out.Status, out.Age = resp.StatusCode, time.Duration(seconds)*time.Second
	}
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return out
	case errors.As(err, &status):
		out.Status = int(status.Status().Code)
	default:
		out.Status = http.StatusServiceUnavailable
	}
	if out.Status == http.StatusUnauthorized || out.Status >= http.StatusInternalServerError {
		out.Reason = err.Error()
	}
	return out
}

// imagine answers a kept request without the API server.
func (d *Dispatcher) imagine(ctx context.Context, k *keptRequest) (*http.Response, error) {
	seen, _ := d.Credentials.Seen(k.subject)
	at, err := url.ParseRequestURI(k.uri)
	if err != nil {
		return nil, err
	}
	header := k.header.Clone()
	header.Set("Authorization", d.Credentials.Authorization(k.subject, seen))
	r := (&http.Request{Method: k.method, URL: at, Header: header, Body: http.NoBody}).WithContext(ctx)
	x := newExchange(r)
	x.subject, x.review, x.reviewed = k.subject, k.review, k.review != nil
	x.cache = d.Caches.Of(x.info)
	x.source.Path = at.RequestURI()
	subject, err := d.authenticate(x)
	if err != nil {
		return nil, err
	}
	if resp, err := d.accept(x, subject); err != nil || resp != nil {
		return resp, err
	}
	if x.info.Class != request.ClassWatch {
		resp, err := d.replay(x, subject)
		if err != nil {
			return nil, d.refusal(*x.info, err)
		}
		return resp, nil
	}
	d.flush(ctx, x.cache)
	err = d.wouldWatch(ctx, x, replay.Request{Principal: subject, Info: *x.info, Path: x.source.Path})
	if err != nil {
		return nil, d.refusal(*x.info, err)
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// wouldWatch returns the error with which watch.Watches would refuse a watch.
func (d *Dispatcher) wouldWatch(ctx context.Context, x *exchange, q replay.Request) error {
	if err := x.cache.Check(ctx, q); err != nil {
		return err
	}
	if version := x.info.ResourceVersion; !x.info.SendInitialEvents && version != "" && version != "0" {
		return nil // it opens, and waits for the link
	}
	_, err := x.cache.State(ctx, q)
	return err
}
