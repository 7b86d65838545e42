package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"go.uber.org/zap"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/cache"
	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// Read is a list, or a watch with its initial state, that the cache may answer while the link is
// up.
type Read struct {
	HTTP      *http.Request
	Info      request.Info
	Cache     *cache.Cache
	Principal string // that the token claims
	Recorded  replay.Recorded
}

func (r *Read) key() key { return key{r.Cache, r.Recorded.Scope} }

func (r *Read) query() replay.Request {
	return replay.Request{Principal: r.Principal, Info: r.Info}
}

// selectors are the query of a request for the same objects.
func (r *Read) selectors() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{"labelSelector": r.Info.LabelSelector, "fieldSelector": r.Info.FieldSelector} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// List answers a list from the cache, as the API server would answer it now. It gives nil if the
// API server is to answer.
func (s *Collections) List(ctx context.Context, read Read) (resp *http.Response) {
	s.answer(ctx, &read, func(now *replay.Recorded, header http.Header) (err error) {
		resp, err = onDisk(ctx, s, func(context.Context) (*http.Response, error) { return now.List(ctx) }, closeBody)
		if err == nil {
			setHeader(resp, header)
		}
		return err
	})
	return resp
}

// Watch gives the state that a watch with sendInitialEvents begins with, and the API server's
// answer to a watch from there, for the same caller. It gives nil if the API server is to answer
// the client's own request.
func (s *Collections) Watch(ctx context.Context, read Read) (state *replay.State, resp *http.Response) {
	s.answer(ctx, &read, func(now *replay.Recorded, _ http.Header) error {
		follows, err := s.Upstream.RoundTrip(watchFrom(ctx, &read, now))
		if err != nil {
			return err
		}
		if follows.StatusCode != http.StatusOK || !origin.FromAPIServer(follows) {
			return errors.Join(fmt.Errorf("%w: %s", errEnded, follows.Status), follows.Body.Close())
		}
		begins, err := onDisk(ctx, s, func(context.Context) (*replay.State, error) { return now.State(ctx) }, (*replay.State).Close)
		if err != nil {
			_ = follows.Body.Close()
			return err
		}
		state, resp = begins, follows
		return nil
	})
	return state, resp
}

// watchFrom is the client's own watch, but from a recorded version and in the recorded form.
func watchFrom(ctx context.Context, read *Read, now *replay.Recorded) *http.Request {
	r := read.HTTP.Clone(ctx)
	query := r.URL.Query()
	query.Del("sendInitialEvents")
	query.Del("resourceVersionMatch")
	query.Set("resourceVersion", now.ResourceVersion)
	r.URL.RawQuery = query.Encode()
	r.Header.Set("Accept", now.Form.AcceptWatch())
	return r
}

// answer has a read answered by give, from what is recorded now, if that is the API server's
// present state. Otherwise give was not called, or has returned an error.
func (s *Collections) answer(ctx context.Context, read *Read, give func(*replay.Recorded, http.Header) error) {
	verdict, why := s.decide(ctx, read)
	switch {
	case !s.Save:
		return
	case verdict == Pass:
		readsTotal.WithLabelValues(why).Inc()
		return
	}
	begun := s.Clock.Now()
	if err := s.giveProven(ctx, verdict, read, give); err != nil {
		readsTotal.WithLabelValues("failed").Inc()
		s.Logger.Debug("a read cannot be answered from the cache; the API server answers it", zap.String("path", read.Info.Path), zap.Error(err))
		return
	}
	if verdict == Proven {
		s.pace.Load().proved(s.Clock.Since(begun))
	}
	readsTotal.WithLabelValues(string(verdict)).Inc()
}

// decide finds out the facts of a read, and decides. What the link carries may be shown by another
// read first.
func (s *Collections) decide(ctx context.Context, read *Read) (v Verdict, why string) {
	v, why = s.decideNow(ctx, read)
	if rate := why == "small" || why == "unmeasured"; rate && s.pace.Load().shown(ctx, s.Clock, read.Recorded.Bytes) {
		return s.decideNow(ctx, read)
	}
	return v, why
}

// decideNow decides by what is known now. What passes does not wait for what is still to be
// recorded.
func (s *Collections) decideNow(ctx context.Context, read *Read) (v Verdict, why string) {
	f := Facts{Save: s.Save, Info: &read.Info, Principal: read.Principal}
	if v, why = Decide(f); why != "unrecorded" {
		return v, why
	}
	for _, look := range []func(context.Context, *Read) (replay.Recorded, error){s.found, s.recorded} {
		var err error
		if read.Recorded, err = look(ctx, read); err != nil {
			f.Recorded = false
		} else {
			f.Recorded, f.Version, f.Objects = true, read.Recorded.ResourceVersion, read.Recorded.Objects
			f.Live, f.Slow = s.isLive(read.key()), s.isSlow(read.key())
			f.Overtaken = f.Live && s.overtaken(ctx, &read.Recorded) != nil
			pace := s.pace.Load()
			list, measured := pace.list(read.Recorded.Bytes)
			f.List, f.Unmeasured, f.Proof = list, !measured, pace.proofTime()
		}
		if v, why = Decide(f); v == Pass {
			break
		}
	}
	return v, why
}

// attempts is how often a collection may have changed, or been overtaken, while a read was
// answered.
const attempts = 3

// giveProven gives what is recorded, once all is known that the verdict needs. Where a client was
// told something newer meanwhile, all of it begins again.
func (s *Collections) giveProven(ctx context.Context, verdict Verdict, read *Read, give func(*replay.Recorded, http.Header) error) (err error) {
	for range attempts {
		proof, failure := s.prove(ctx, verdict, read)
		if failure == nil {
			s.Credentials.Observe(read.HTTP.Header, read.Principal, true, http.StatusOK)
			failure = s.giveAs(ctx, verdict, read, &proof, give)
		}
		if errors.Is(failure, errContradiction) {
			s.contradicted(read, failure)
		}
		if err = failure; !errors.Is(err, errOvertaken) {
			return err
		}
		verdict = Proven
	}
	return err
}

// giveAs gives what is recorded, if that is as the proof says.
func (s *Collections) giveAs(ctx context.Context, verdict Verdict, read *Read, proof *proof, give func(*replay.Recorded, http.Header) error) (err error) {
	atLeast := AtLeast(verdict, &read.Info, proof.version)
	for range attempts {
		if read.Recorded, err = s.recorded(ctx, read); err != nil {
			return err
		}
		now := &read.Recorded
		_, err = onDisk(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, proof.agrees(ctx, now) }, nil)
		switch {
		case errors.Is(err, errCount) && s.isEstimate(read.key(), &now.Collection):
			err = nil
		case err == nil && proof.counted && proof.counts(&now.Collection):
			s.countsRight(read.key())
		}
		if err == nil {
			switch {
			case atLeast != "" && store.NewerVersion(atLeast, now.ResourceVersion):
				return errBehind
			case exceedsPage(&read.Info, now.Objects):
				return errPage
			}
			err = s.overtaken(ctx, now)
		}
		if err == nil {
			now.BrokenOff = func() { s.brokenOff(read.key()) }
			err = give(now, proof.header)
		}
		if !errors.Is(err, store.ErrChanged) {
			return err
		}
	}
	return err
}

var (
	errBehind    = errors.New("not all that has come is recorded")
	errOvertaken = errors.New("a client was told something newer")
	errPage      = errors.New("there are more objects by now than the client asks for")
)

// closeBody closes an answer that nobody waits for any more.
func closeBody(resp *http.Response) { _ = resp.Body.Close() }

// contradicted forgets a collection, which is not to be answered offline either.
func (s *Collections) contradicted(read *Read, err error) {
	s.drop(read.key(), err)
	read.Cache.Contradicted(read.Recorded.Scope)
}

// setHeader gives an answer the header of an answer of the API server to the same caller.
func setHeader(resp *http.Response, header http.Header) {
	for name, values := range header {
		switch name {
		case "Content-Type", "Content-Length", "Content-Encoding", "Etag", "Vary":
		default:
			if len(resp.Header.Values(name)) == 0 {
				resp.Header[name] = values
			}
		}
	}
	resp.Header.Set("Age", "0") // it equals the API server's state
}
