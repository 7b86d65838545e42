package live

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"rockpool.dev/sidecar/replay"
	"rockpool.dev/store"
)

// proof is what the API server has said on behalf of a read.
type proof struct {
	one       // the first item
	witnesses []witness
}

// witness is what the API server has said of one of the recorded objects.
type witness struct {
	one
	key store.Key
}

// changed reports whether the object has changed since a version, so that it proves nothing about
// the states before.
func (w *witness) changed(since string) bool {
	return w.item == nil || store.NewerVersion(w.item.ResourceVersion, since)
}

// agrees returns an error if what is recorded contradicts the proof.
func (p *proof) agrees(ctx context.Context, now *replay.Recorded) error {
	recorded := func(k store.Key) (uid, version string, err error) { return now.Object(ctx, k) }
	for _, w := range p.witnesses {
		if err := w.agreesAbout(w.key, &now.Collection, recorded); err != nil {
			return err
		}
	}
	return p.one.agrees(&now.Collection, now.Objects, recorded)
}

// prove asks the API server what a verdict needs: whether the caller may list, what the present
// revision is, and, for Proven, what has changed until then. Nothing is followed, and nothing recorded,
// before the API server has let the caller in and agreed about the object that has changed last.
func (s *Collections) prove(ctx context.Context, verdict Verdict, read *Read) (p proof, err error) {
	whole, cancel := context.WithTimeout(ctx, longestPatience)
	defer cancel()
	list, _ := s.pace.Load().list(read.Recorded.Bytes)
	most := min(max(patience, list/2), longestPatience)
	if verdict == Checked {
		limited, cancel := context.WithTimeout(whole, most)
		defer cancel()
		s.use(read.key())
		p.one, err = s.asked(limited, read, store.Key{})
		return p, err
	}
	if err := s.findNewest(whole, read); err != nil {
		return p, err
	}
	limited, cancel := context.WithTimeout(whole, most)
	defer cancel()
	group, asking := errgroup.WithContext(limited)
	group.Go(func() (err error) {
		p.one, err = s.asked(asking, read, store.Key{})
		return err
	})
	if newest := read.Recorded.Newest.Key(); newest != (store.Key{}) {
		p.witnesses = []witness{{key: newest}}
		group.Go(func() (err error) {
			p.witnesses[0].one, err = s.asked(asking, read, newest)
			return err
		})
	}
	err = group.Wait()
	if err == nil && len(p.witnesses) > 0 {
		err = p.witnesses[0].mayFollow(&read.Recorded)
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
	if err == nil {
		err = s.findWitness(whole, read, &p)
	}
	return p, err
}

// findWitness asks for further objects as long as the witnesses have changed since the recorded
// version: for the one that has changed last of those that have not.
func (s *Collections) findWitness(ctx context.Context, read *Read, p *proof) error {
	since := read.Recorded.ResourceVersion
	for tries := 0; len(p.witnesses) > 0 && p.witnesses[len(p.witnesses)-1].changed(since); tries++ {
		if tries == attempts {
			return errHot
		}
		now, err := s.recorded(ctx, read)
		if err != nil {
			return err
		}
		asked := func(k store.Key) bool {
			return slices.ContainsFunc(p.witnesses, func(w witness) bool { return w.key == k })
		}
		next, err := onDisk(ctx, s, func(ctx context.Context) (store.Key, error) { return now.Unchanged(ctx, since, asked) }, nil)
		switch {
		case errors.Is(err, store.ErrChanged):
			continue
		case err != nil || next == (store.Key{}):
			return err
		}
		answer, err := s.asked(ctx, read, next)
		if err != nil {
			return err
		}
		p.witnesses = append(p.witnesses, witness{answer, next})
	}
	return nil
}

var errHot = errors.New("the objects that could prove that no others have changed keep changing")

// asked is a list of one item, which must not be older than what is recorded.
func (s *Collections) asked(ctx context.Context, read *Read, named store.Key) (one, error) {
	answer, err := askOne(ctx, s.Upstream, read, named)
	if err == nil && store.NewerVersion(read.Recorded.ResourceVersion, answer.version) {
		s.drop(read.key(), errOlder)
		return answer, errOlder
	}
	return answer, err
}
