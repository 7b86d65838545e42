package dispatch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// reviewSealer makes the keys that the answers to reviews are recorded under.
//
// A review has a small body, made of words that can be guessed. A plain digest of it would tell
// the question to everybody who reads the disk, and the answer repeats the question, a
// TokenReview even the token. So the digest is keyed, and the answer is encrypted with a key that
// is made from the question itself. To read the answer takes the question and this process's
// memory. The key is never written anywhere. A sidecar that starts again has forgotten all
// reviews, which are only worth minutes.
type reviewSealer struct{ key [sha256.Size]byte }

func newReviewSealer() (s reviewSealer) {
	_, _ = rand.Read(s.key[:]) // it never fails, see its documentation
	return s
}

// sealedKey names one review, and encrypts its answer.
type sealedKey struct {
	name   string
	cipher cipher.AEAD
}

// seal makes the key of a review. The review is all that its answer may depend on: who asks,
// where, in which form of answer, and the body.
func (s *reviewSealer) seal(x *exchange) (sealedKey, error) {
	var question []byte
	for _, part := range []string{x.subject, x.source.Path, x.info.RawAccept, x.request.Header.Get("Content-Type"), string(x.body.bytes)} {
		question = binary.BigEndian.AppendUint32(question, uint32(len(part)))
		question = append(question, part...)
	}
	derive := func(purpose string) []byte {
		mac := hmac.New(sha256.New, s.key[:])
		mac.Write([]byte(purpose))
		mac.Write(question)
		return mac.Sum(nil)
	}
	block, err := aes.NewCipher(derive("seal"))
	if err != nil {
		return sealedKey{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealedKey{hex.EncodeToString(derive("name")), aead}, err
}

func (k *sealedKey) close(answer []byte) []byte { return k.cipher.Seal(nil, nil, answer, nil) } //nolint:gosec // nil: the cipher makes a nonce itself

var errSealed = errors.New("the answer was sealed with another key")

func (k *sealedKey) open(sealed []byte) ([]byte, error) {
	answer, err := k.cipher.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errSealed
	}
	return answer, nil
}
