package relist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"rockpool.dev/sidecar/api/origin"
	"rockpool.dev/sidecar/api/wire"
)

// pageSize is how many objects are asked for at once.
const pageSize = 500

// errNotServed is the error for a list of a resource that the API server does not serve, such as one
// whose CustomResourceDefinition is deleted. A list of a missing namespace is empty instead.
var errNotServed = errors.New("the API server does not serve the resource")

// pages reads a list page by page, with limit and continue
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks).
type pages struct {
	// request makes a request for the list as a whole. It is called for each page, because a
	// token may expire during a long list.
	request func(context.Context) *http.Request
	// send sends the request for one page.
	send func(*http.Request) (*http.Response, error)
	// item is called with each item, and with as much of the list's metadata as came before
	// it. raw is only valid during the call. Nil: the items are only read.
	item func(list wire.ListMeta, raw []byte) error
	// ended is called at the end of each page.
	ended func(context.Context, wire.ListMeta) error
}

// read reads the list to its end.
func (p *pages) read(ctx context.Context) error {
	next := ""
	for {
		page := p.request(ctx)
		query := page.URL.Query()
		query.Set("limit", strconv.Itoa(pageSize))
		if next != "" {
			query.Set("continue", next)
		}
		page.URL.RawQuery = query.Encode()
		resp, err := p.send(page)
		if err != nil {
			return err
		}
		list, err := p.readPage(resp)
		if err == nil {
			err = p.ended(ctx, list)
		}
		if err != nil || list.Continue == "" {
			return err
		}
		next = list.Continue
	}
}

// readPage reads a page to its end. The error is origin.ErrForeign if it is not the API server's, and
// errNotServed if it is a 404.
func (p *pages) readPage(resp *http.Response) (wire.ListMeta, error) {
	defer resp.Body.Close()
	if !origin.FromAPIServer(resp) {
		return wire.ListMeta{}, fmt.Errorf("%w: status %d", origin.ErrForeign, resp.StatusCode)
	}
	if resp.StatusCode == http.StatusNotFound {
		return wire.ListMeta{}, errNotServed
	}
	format := wire.FormatOf(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || format == nil || resp.Header.Get("Content-Encoding") != "" {
		return wire.ListMeta{}, fmt.Errorf("the API server answers %s", resp.Status)
	}
	var split wire.ListSplitter
	split = format.NewList(func(raw []byte) error {
		if p.item == nil {
			return nil
		}
		return p.item(split.Peek(), raw)
	})
	if _, err := io.Copy(split, resp.Body); err != nil {
		return wire.ListMeta{}, err
	}
	return split.ListMeta()
}
