package dispatch

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"

	"rockpool.dev/sidecar/api/convert"
)

// maxEncoded bounds, in bytes, a JSON answer that is converted to YAML or CBOR. The conversion takes
// about 15 times as much memory. Only people ask for YAML, and clients of CBOR accept JSON.
const maxEncoded = 1 << 20

// encode converts a JSON answer of the cache to YAML or CBOR, as the API server does it, one at a
// time.
func (d *Dispatcher) encode(mediaType string, resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, unavailable("the recorded answer is no object")
	}
	d.encoding.Lock()
	defer d.encoding.Unlock()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxEncoded+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxEncoded {
		name := strings.ToUpper(strings.TrimPrefix(mediaType, "application/"))
		return nil, unavailable(fmt.Sprintf("the answer is too large to be converted to %s; ask for JSON", name))
	}
	if raw, err = convert.FromJSON(mediaType, raw); err != nil {
		return nil, err
	}
	resp.Header.Set("Content-Type", mediaType)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return resp, nil
}
