package rule

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/filters"
)

// Filter is one filter: what it does to an object of a resource that it touches. A filter without
// Apply for a resource does not touch it.
type Filter struct {
	Name string
	// Touches has the resources, Drops those of them of which objects may be left out.
	Touches, Drops []schema.GroupResource
	// Needs says what a decision needs beside the object.
	Needs Needs
	// Apply returns the object as the client sees it, which is Raw itself if nothing changes, or
	// false if the client does not see it. It must not change Raw.
	Apply func(o *Object, c *Context) (edited []byte, keep bool, err error)
}

// Needs is what a filter knows beside the object.
type Needs struct {
	Services bool // what Services mean, see Context.Services
	Types    bool // the same for a Service that is there with its metadata alone
	Pool     bool // the name of this node's pool
	Node     bool // the labels of this node
}

// builtin has the filters without expressions, in the order of package filters.
var builtin = []Filter{
	{
		Name: filters.DiscardCloudService, Apply: discardCloudService, Needs: Needs{Services: true, Types: true},
		Touches: []schema.GroupResource{Services, EndpointSlices, Endpoints},
		Drops:   []schema.GroupResource{Services, EndpointSlices, Endpoints},
	},
	{
		Name: filters.NodePortIsolation, Apply: nodePortIsolation, Needs: Needs{Pool: true, Types: true},
		Touches: []schema.GroupResource{Services}, Drops: []schema.GroupResource{Services},
	},
	{Name: filters.MasterService, Apply: masterService, Touches: []schema.GroupResource{Services}},
	{Name: filters.ForwardKubeSvcTraffic, Apply: forwardKubeSvcTraffic, Touches: []schema.GroupResource{EndpointSlices, Endpoints}},
	{
		Name: filters.ServiceTopology, Apply: serviceTopology, Needs: Needs{Services: true},
		Touches: []schema.GroupResource{EndpointSlices, Endpoints},
	},
}

// Condition decides whether an object is kept.
type Condition func(o *Object, c *Context) (bool, error)

// keep makes the filter of that name of conditions by resource.
func keep(conditions map[schema.GroupResource]Condition) Filter {
	var resources []schema.GroupResource
	for r := range conditions {
		resources = append(resources, r)
	}
	return Filter{
		Name: filters.Keep, Touches: resources, Drops: resources, Needs: Needs{Pool: true, Node: true},
		Apply: func(o *Object, c *Context) ([]byte, bool, error) {
			ok, err := conditions[o.Resource](o, c)
			return o.Raw, ok, err
		},
	}
}

// Chain is what applies to the objects of one resource for one client. The zero value does nothing.
type Chain struct {
	Filters []Filter
	// Drops tells that objects may be left out.
	Drops bool
	Needs Needs
}

// NewChain returns the chain of those filters that touch a resource and are enabled.
func NewChain(resource schema.GroupResource, conditions map[schema.GroupResource]Condition, enabled func(name string) bool) Chain {
	var chain Chain
	for _, name := range filters.Names() {
		f := keep(conditions)
		if i := slices.IndexFunc(builtin, func(f Filter) bool { return f.Name == name }); i >= 0 {
			f = builtin[i]
		}
		if !slices.Contains(f.Touches, resource) || !enabled(name) {
			continue
		}
		chain.Filters = append(chain.Filters, f)
		chain.Drops = chain.Drops || slices.Contains(f.Drops, resource)
		// A Service shows itself what it means, unless it is there with its metadata alone.
		chain.Needs.Services = chain.Needs.Services || f.Needs.Services && resource != Services
		chain.Needs.Types = chain.Needs.Types || f.Needs.Types && resource == Services
		chain.Needs.Pool = chain.Needs.Pool || f.Needs.Pool
		chain.Needs.Node = chain.Needs.Node || f.Needs.Node
	}
	return chain
}

// Apply applies the filters in order, and returns o.Raw itself if nothing changes. A filter that
// fails leaves the object as it was; failed is called with its name and the error.
func (c *Chain) Apply(o *Object, ctx *Context, failed func(filter string, err error)) (edited []byte, kept bool) {
	original := o.Raw
	defer func() { o.Raw = original }()
	for i := range c.Filters {
		f := &c.Filters[i]
		raw, keep, err := f.Apply(o, ctx)
		switch {
		case err != nil:
			failed(f.Name, fmt.Errorf("%s: %w", f.Name, err))
		case !keep:
			return nil, false
		default:
			o.Raw = raw
		}
	}
	return o.Raw, true
}
