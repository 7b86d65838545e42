package e2e

import (
	"net/http"
	"slices"
)

// outcome is an answer, with all its pages.
type outcome struct {
	getResponse
	decoded
	problem string // with decoding it
	next    string // the continue of the first page
	pages   int
}

// answers sends requests and decodes the answers. It reads only a few paged lists at a time: a
// sidecar with many unfinished ones drops the oldest.
func (p *testPod) answers(asks []ask, send func([]getRequest) []getResponse) []outcome {
	p.site.t.Helper()
	out := make([]outcome, len(asks))
	var atOnce, paged []int
	for i, a := range asks {
		if a.limit > 0 {
			paged = append(paged, i)
		} else {
			atOnce = append(atOnce, i)
		}
	}
	p.pages(asks, atOnce, out, send)
	for few := range slices.Chunk(paged, 4) {
		p.pages(asks, few, out, send)
	}
	return out
}

// pages sends some requests and reads each list up to its last page.
func (p *testPod) pages(asks []ask, indexes []int, out []outcome, send func([]getRequest) []getResponse) {
	p.site.t.Helper()
	requests := make([]getRequest, len(indexes))
	for n, i := range indexes {
		requests[n] = asks[i].getRequest
	}
	for len(indexes) > 0 {
		var more []int
		var following []getRequest
		for n, f := range send(requests) {
			i := indexes[n]
			o := &out[i]
			o.add(asks[i], f)
			if o.problem == "" && o.decoded.next != "" {
				more, following = append(more, i), append(following, asks[i].page(o.decoded.next))
			}
		}
		indexes, requests = more, following
	}
}

// add adds an answer or its next page.
func (o *outcome) add(a ask, f getResponse) {
	o.pages++
	before := o.decoded
	o.getResponse = f
	if f.Error != "" {
		o.problem = f.Error
		return
	}
	if f.Status != http.StatusOK {
		return
	}
	decode := decodeList
	switch a.verb {
	case "get":
		decode = decodeObject
	case "watch":
		decode = decodeWatch
	}
	var err error
	if o.decoded, err = decode(f); err != nil {
		o.problem = err.Error() + ": " + f.text()
		return
	}
	if o.pages == 1 {
		o.next = o.decoded.next
		return
	}
	if o.version != before.version {
		o.problem = "a page is of another version: " + o.version + " behind " + before.version
	}
	for key, object := range before.objects {
		if again, twice := o.objects[key]; twice && again.version != object.version {
			o.problem = key + " is on two pages, at two versions"
		}
		o.objects[key] = object
	}
	// kube-apiserver repeats the first page where the field selector names the namespace.
	repeated := func(key string) bool { return slices.Contains(before.order, key) }
	o.order = append(before.order, slices.DeleteFunc(o.order, repeated)...)
}
