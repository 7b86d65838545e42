package live

import (
	"context"

	"golang.org/x/sync/errgroup"

	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// proof is what the API server has said on behalf of a read.
type proof struct {
	one         // the first item
	newest  one // the object of the recorded ones that has changed last
	witness store.Key
}

// agrees returns an error if what is recorded contradicts the proof.
func (p *proof) agrees(ctx context.Context, now *replay.Recorded) error {
	recorded := func(k store.Key) (uid, version string, err error) { return now.Object(ctx, k) }
	err := p.one.agrees(&now.Collection, now.Objects, recorded)
	if err == nil && p.witness != (store.Key{}) {
		err = p.newest.agreesAbout(p.witness, &now.Collection, recorded)
	}
	return err
}

// prove asks the API server what a verdict needs: whether the caller may list, what the present
// revision is, and, for Proven, what has changed until then. Nothing is followed, and nothing recorded,
// before the API server has let the caller in and agreed about the object that has changed last.
func (s *Collections) prove(ctx context.Context, verdict Verdict, read *Read) (p proof, err error) {
	whole, cancel := context.WithTimeout(ctx, longestPatience)
	defer cancel()
	most := min(max(patience, s.pace.list(read.Recorded.Bytes)/2), longestPatience)
	if verdict == Checked {
		limited, cancel := context.WithTimeout(whole, most)
		defer cancel()
		s.use(read.key())
		p.one, err = s.asked(limited, read, store.Key{})
		return p, err
	}
	p.witness = read.Recorded.Newest.Key()
	limited, cancel := context.WithTimeout(whole, most)
	defer cancel()
	group, asking := errgroup.WithContext(limited)
	group.Go(func() (err error) {
		p.one, err = s.asked(asking, read, store.Key{})
		return err
	})
	if p.witness != (store.Key{}) {
		group.Go(func() (err error) {
			p.newest, err = s.asked(asking, read, p.witness)
			return err
		})
	}
	err = group.Wait()
	if err == nil {
		err = p.newest.mayFollow(&read.Recorded)
	}
	if err != nil {
		return p, err
	}
	if isRecent(&read.Recorded, s.Clock.Now()) && !store.NewerVersion(p.version, read.Recorded.ResourceVersion) {
		return p, nil
	}
	c, err := s.join(read)
	if err != nil {
		return p, err
	}
	err = s.reach(whole, c, p.version, most)
	s.leave(c, err)
	return p, err
}

// asked is a list of one item, which must not be older than what is recorded.
func (s *Collections) asked(ctx context.Context, read *Read, named store.Key) (one, error) {
	answer, err := askOne(ctx, s.Upstream, read, named)
	if err == nil && store.NewerVersion(read.Recorded.ResourceVersion, answer.version) {
		s.drop(read.key(), errOlder)
		return answer, errOlder
	}
	return answer, err
}
