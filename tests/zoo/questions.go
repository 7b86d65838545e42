package zoo

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"rockpool.dev/tests/bed/node"
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

// scrapes asks Prometheus, or a program with the same API, for a target that has the Service's label
// and has answered.
func scrapes(port string) func(context.Context, *running, question) error {
	return func(ctx context.Context, r *running, q question) error {
		_, body, err := r.get(ctx, port, "/api/v1/targets?state=active", "")
		if err != nil {
			return err
		}
		var got struct {
			Data struct {
				ActiveTargets []struct {
					Labels     map[string]string
					Health     string
					LastScrape time.Time
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		for _, target := range got.Data.ActiveTargets {
			if target.Labels["zoo"] == q.value && target.Health == "up" && target.LastScrape.After(q.after) {
				return nil
			}
		}
		return fmt.Errorf("no target with zoo=%s is up since %s: %s", q.value, q.after.Format(time.TimeOnly), body)
	}
}

// measures asks metrics-server, as the API server does, for a new measurement of the node that has
// the label.
func measures(ctx context.Context, r *running, q question) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	config, err := rest.TLSConfigFor(r.bed.Config())
	if err != nil {
		return err
	}
	// Its certificate is one that it has made for itself.
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: config.Certificates, GetClientCertificate: config.GetClientCertificate},
	}}
	url := "https://" + r.address("10250") + "/apis/metrics.k8s.io/v1beta1/nodes?labelSelector=zoo%3D" + q.value
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct {
		Message string
		Items   []struct{ Timestamp metav1.Time }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	if len(got.Items) != 1 || !got.Items[0].Timestamp.After(q.after) {
		return fmt.Errorf("%s, want a measurement of one node with zoo=%s since %s: %+v", resp.Status, q.value, q.after.Format(time.TimeOnly), got)
	}
	return nil
}

// routes sends Traefik a request for the host of the Ingress shop, which the Service's pod answers.
func routes(ctx context.Context, r *running, q question) error {
	status, body, err := r.get(ctx, "8000", "/metrics", q.value+".zoo.example")
	if err != nil {
		return err
	}
	if status != http.StatusOK || !strings.Contains(body, "shop_open 1") {
		return fmt.Errorf("status %d: %s", status, body)
	}
	return nil
}

// labels asks the API server for the label that Node Feature Discovery gives to the node, and the
// program whether it has compared the node with its NodeFeature since its start. The label does not
// change while the link is cut.
func labels(ctx context.Context, r *running, q question) error {
	const label = "feature.node.kubernetes.io/zoo"
	found, err := r.bed.Client().CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got := found.Labels[label]; got != q.value {
		return fmt.Errorf("the node has %s=%q, want %q", label, got, q.value)
	}
	_, body, err := r.get(ctx, "8080", "/metrics", "")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(strings.Split(body, "\n"), func(line string) bool {
		count, ok := strings.CutPrefix(line, "nfd_master_node_update_requests_total ")
		return ok && count != "0"
	}) {
		return fmt.Errorf("it has not processed the node: %s", body)
	}
	if r.printed(q.after, "retrying node update") == nil {
		return errors.New("it could not process the node: see its log")
	}
	return nil
}
