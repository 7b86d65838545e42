package dispatch

import (
	"bytes"
	"net/http"

	"rockpool.dev/sidecar/api/request"
	"rockpool.dev/sidecar/record"
	"rockpool.dev/sidecar/upstream"
)

// review answers a POST that only asks. It may be sent twice, and its answer is kept
// for a short while.
func (f *Dispatcher) review(r *http.Request, info request.Info) (*http.Response, error) {
	r, body, whole, err := buffered(r)
	if err != nil {
		return nil, err
	}
	source := f.source(r, info)
	for attempts := 0; attempts < 2 && f.Upstream.Online(); attempts++ {
		resp, err := f.Upstream.RoundTrip(r)
		switch {
		case err == nil:
			f.believe(r, source.Principal, resp)
			if asked, err := f.questions.of(&source, r.Header.Get("Content-Type"), body); whole && err == nil {
				source.Review = &record.Review{Question: asked.name, Seal: asked.close, Lifetime: f.ReviewLifetime}
			}
			f.record(source, resp)
			return resp, nil
		case !upstream.IsLinkError(err):
			return nil, err
		case !whole:
			return nil, unavailable("the question is too large to be asked again")
		}
		r = again(r, body) // of another address, perhaps
	}
	q, err := f.prove(r, info)
	if err != nil {
		return nil, err
	}
	replayer := f.cache(&info).Replayer
	if replayer == nil {
		return nil, noCache()
	}
	if !whole {
		return nil, unavailable("the question is too large to be recorded")
	}
	source.Principal = q.Principal
	asked, err := f.questions.of(&source, r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	resp, err := replayer.Review(r.Context(), q, asked.name, f.ReviewLifetime, asked.open)
	if err != nil {
		return nil, f.refusal(info, err)
	}
	return resp, nil
}

// onlyTried finds out whether the options in the body of a DELETE may say dryRun: All,
// which is the one value there is. In none of their encodings do other options have
// this word in them. It gives the request to go on with.
func onlyTried(r *http.Request) (out *http.Request, tried bool, err error) {
	out, body, whole, err := buffered(r)
	return out, !whole || bytes.Contains(body, []byte("All")), err
}
