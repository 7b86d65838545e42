package dispatch

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"rockpool.dev/sidecar/record"
)

// maxQuestion bounds, in bytes, the body of a request that is looked at before it is
// sent: reviews and the options of deletes are much smaller. Larger ones pass unrecorded.
const maxQuestion = 64 << 10

// buffered reads the body of a request up to maxQuestion. The request that it gives sends
// the same body; whole tells that body is all of it, and that again can be called.
func buffered(r *http.Request) (out *http.Request, body []byte, whole bool, err error) {
	if r.Body == nil || r.Body == http.NoBody {
		return r, nil, true, nil
	}
	body, err = io.ReadAll(io.LimitReader(r.Body, maxQuestion+1))
	if err != nil {
		return nil, nil, false, fmt.Errorf("read request body: %w", err)
	}
	if len(body) <= maxQuestion {
		_ = r.Body.Close() // all of it was read
		return again(r, body), body, true, nil
	}
	out = r.WithContext(r.Context())
	out.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	return out, nil, false, nil
}

// again is the request with a body that was read already.
func again(r *http.Request, body []byte) *http.Request {
	out := r.WithContext(r.Context())
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	return out
}

// questions are what reviews are found by, and kept under.
//
// A review has a small body, made of words that can be guessed: a plain digest of it
// would tell whoever reads the disk what was asked, and the answer repeats the question,
// a TokenReview even the token. So the digest is keyed, and the answer is encrypted
// with a key that is made from the question itself: to read it takes the question
// and this process's memory. The key is never written anywhere; a sidecar that starts
// anew has forgotten all reviews, which are only worth minutes.
type questions struct{ key [sha256.Size]byte }

func newQuestions() (q questions) {
	_, _ = rand.Read(q.key[:]) // it never fails, see its documentation
	return q
}

// question is one of them.
type question struct {
	name string
	seal cipher.AEAD
}

// of makes the question of a request: who asks, where, in which words and which form of
// answer is taken.
func (q *questions) of(source *record.Source, contentType string, body []byte) (question, error) {
	var said []byte
	for _, part := range [][]byte{[]byte(source.Principal), []byte(source.Path), []byte(source.Info.RawAccept), []byte(contentType), body} {
		said = binary.BigEndian.AppendUint32(said, uint32(len(part)))
		said = append(said, part...)
	}
	derive := func(purpose string) []byte {
		mac := hmac.New(sha256.New, q.key[:])
		mac.Write([]byte(purpose))
		mac.Write(said)
		return mac.Sum(nil)
	}
	block, err := aes.NewCipher(derive("seal"))
	if err != nil {
		return question{}, err
	}
	seal, err := cipher.NewGCMWithRandomNonce(block)
	return question{hex.EncodeToString(derive("name")), seal}, err
}

func (q question) close(answer []byte) []byte { return q.seal.Seal(nil, nil, answer, nil) } //nolint:gosec // nil: the cipher makes a nonce itself

var errSealed = errors.New("the answer was sealed with another key")

func (q question) open(sealed []byte) ([]byte, error) {
	answer, err := q.seal.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errSealed
	}
	return answer, nil
}
