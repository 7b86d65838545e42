package zoo

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// prints asks a program that prints the ConfigMap greeting once a second. format has %s for the
// value.
func prints(format string) func(context.Context, *running, question) error {
	return func(_ context.Context, r *running, q question) error {
		return r.printed(q.after, strings.ReplaceAll(format, "%s", q.value))
	}
}

// resolves asks CoreDNS for the addresses of the Service pool.
func resolves(ctx context.Context, r *running, q question) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.address("53"))
	}}
	got, err := resolver.LookupHost(ctx, "pool."+namespace+".svc.cluster.local.")
	if err != nil {
		return err
	}
	if want := addresses[q.value]; !slices.Equal(got, []string{want}) {
		return fmt.Errorf("the addresses are %v, want %s", got, want)
	}
	return nil
}

// countsIngress asks kube-state-metrics for the metric of the Ingress shop.
func countsIngress(ctx context.Context, r *running, q question) error {
	_, body, err := r.get(ctx, "8080", "/metrics", "")
	if err != nil {
		return err
	}
	found := ""
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "kube_ingress_path{") {
			found += line
		}
	}
	if want := fmt.Sprintf("host=%q", q.value+".zoo.example"); !strings.Contains(found, want) {
		return fmt.Errorf("no kube_ingress_path with %s in %q", want, found)
	}
	return nil
}
