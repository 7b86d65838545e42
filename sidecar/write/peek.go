package write

import (
	"bytes"
	"io"
	"net/http"
)

// maxAnswer bounds, in bytes, how much is read of an answer of the API server.
const maxAnswer = 64 << 10

// Peek reads the body of an answer, up to maxAnswer, and leaves it to be read again.
func Peek(resp *http.Response) []byte {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = broken{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), rest), resp.Body}
	return raw
}

// broken is the rest of a body that broke off.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
