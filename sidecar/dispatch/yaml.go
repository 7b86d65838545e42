package dispatch

import (
	"bytes"
	"io"
	"net/http"

	"sigs.k8s.io/yaml"
)

// maxYAML bounds, in bytes, a JSON answer that is converted to YAML. The conversion takes about 15
// times as much memory, and only people ask for YAML.
const maxYAML = 1 << 20

// yaml converts a JSON answer of the cache to YAML, as the API server does it, one at a time.
func (d *Dispatcher) yaml(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, unavailable("the recorded answer is no object")
	}
	d.yamlMu.Lock()
	defer d.yamlMu.Unlock()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxYAML+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxYAML {
		return nil, unavailable("the answer is too large to be converted to YAML; ask for JSON")
	}
	if raw, err = yaml.JSONToYAML(raw); err != nil {
		return nil, err
	}
	resp.Header.Set("Content-Type", "application/yaml")
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(raw)), int64(len(raw))
	return resp, nil
}
