package dispatch

import (
	"context"

	"rockpool.dev/sidecar/api/request"
)

// Route says which way a request went, for the log. It is written while the
// request is answered and to be read after that, by the same goroutine.
type Route struct {
	Info    request.Info
	Offline bool // answered without the API server
}

type routeKey struct{}

// WithRoute gives a request's context a Route to be filled in.
func WithRoute(ctx context.Context) context.Context {
	return context.WithValue(ctx, routeKey{}, &Route{})
}

// RouteOf gives the Route of a request's context, the zero one if it has none.
func RouteOf(ctx context.Context) Route { return *routeOf(ctx) }

func routeOf(ctx context.Context) *Route {
	if route, ok := ctx.Value(routeKey{}).(*Route); ok {
		return route
	}
	return &Route{}
}
