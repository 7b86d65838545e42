package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/bed/freeport"
)

// admissionRate is the rate of pods, per second, that one replica of the injector must sustain.
const admissionRate = 200

// admissionRounds are enough for an interval of 95 %: each has 800 pods. Reviews are far from their
// target, and get half as many.
const admissionRounds = 6

// injector is a running rockpool-injector.
type injector struct {
	cmd    *exec.Cmd
	url    string
	ca     []byte
	client *http.Client // like an API server: HTTP/1.1, with keep-alive
	exited chan struct{}
}

// admission measures one replica at a steady rate: first reviews, sent as an API server does, and
// then complete creations of pods by an API server that calls the injector (in dry runs, without
// etcd).
func (b *bench) admission(ctx context.Context) error {
	i, err := b.startInjector(ctx)
	if err != nil {
		return err
	}
	defer i.stop()
	plain := pod(0)
	asking := pod(0)
	asking.Annotations["rockpool.dev/inject"] = "true"
	seen, err := b.dryRun(ctx, plain) // with the volume of the service account, as the injector sees it
	if err != nil {
		return err
	}
	seen.Annotations = asking.Annotations
	review, err := reviewOf(seen)
	if err != nil {
		return err
	}
	last := 4 * time.Second
	if b.short {
		last = 2 * time.Second
	}

	p50, p99, cpu := series{}, series{}, series{}
	for range min(b.rounds, admissionRounds/2) {
		before, err := cpuOf(i.cmd.Process.Pid)
		if err != nil {
			return err
		}
		took, err := steady(ctx, last, func(ctx context.Context) error { return i.review(ctx, review) })
		if err != nil {
			return err
		}
		after, err := cpuOf(i.cmd.Process.Pid)
		if err != nil {
			return err
		}
		p50.add("on", percentile(took, 50))
		p99.add("on", percentile(took, 99))
		cpu.add("on", ms(after-before)/float64(len(took)))
	}
	what := fmt.Sprintf("admission, %d pods/s, review sent to one injector", admissionRate)
	b.report.medians(what, "p50", "ms", p50)
	b.report.medians(what, "p99", "ms", p99).atMost(50, ofOn)
	b.report.medians(what, "own CPU a review", "ms", cpu)

	if err := b.register(ctx, i); err != nil {
		return err
	}
	p50, p99 = series{}, series{}
	for round := range min(b.rounds, admissionRounds) {
		turns := []struct {
			name string
			pod  *corev1.Pod
		}{{"direct", plain}, {"on", asking}}
		for n := range turns {
			turn := turns[(round+n)%len(turns)]
			took, err := steady(ctx, last, func(ctx context.Context) error {
				created, err := b.dryRun(ctx, turn.pod)
				if err == nil && (len(created.Spec.InitContainers) > 0) != (turn.name == "on") {
					b.report.wrong("a pod created with %d init containers, %s", len(created.Spec.InitContainers), turn.name)
				}
				return err
			})
			if err != nil {
				return err
			}
			p50.add(turn.name, percentile(took, 50))
			p99.add(turn.name, percentile(took, 99))
		}
	}
	what = fmt.Sprintf("admission, %d pods/s, dry-run create at the API server", admissionRate)
	b.report.compare(what, "p50", "ms", p50)
	b.report.compare(what, "p99", "ms", p99).atMost(50, ofOn)
	return b.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, "rockpool", metav1.DeleteOptions{})
}

// steady calls at the given rate, whether or not the calls before have ended, and returns the times
// in ms from when each was due. The first second, in which connections are made, does not count.
func steady(ctx context.Context, last time.Duration, call func(context.Context) error) ([]float64, error) {
	const warm = admissionRate
	took := make([]float64, warm+int(last.Seconds()*admissionRate))
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for i := range took {
		due := start.Add(time.Duration(i) * time.Second / admissionRate)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, group.Wait()
		}
		group.Go(func() error {
			err := call(ctx)
			took[i] = ms(time.Since(due))
			return err
		})
	}
	err := group.Wait()
	return took[warm:], err
}

func (s *stage) dryRun(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return s.admin.CoreV1().Pods(smallNamespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// reviewOf is the review of a pod that an API server sends.
func reviewOf(pod *corev1.Pod) ([]byte, error) {
	raw, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Create, Namespace: smallNamespace,
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, Object: runtime.RawExtension{Raw: raw},
		},
	})
}

// review sends a review and reads the patch.
func (i *injector) review(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url+"/inject", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := i.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer admissionv1.AdmissionReview
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Response == nil || !answer.Response.Allowed || len(answer.Response.Patch) == 0 {
		return fmt.Errorf("a review without a patch: %+v", answer.Response)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// startInjector builds and starts the injector, and returns once it is ready.
func (s *stage) startInjector(ctx context.Context) (*injector, error) {
	binary := filepath.Join(s.directory, "rockpool-injector")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "rockpool.dev/injector")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the injector: %w", err)
	}
	address, err := freeport.Address()
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return nil, err
	}
	certFile, keyFile := filepath.Join(s.directory, "webhook.crt"), filepath.Join(s.directory, "webhook.key")
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600)); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.directory, "injector.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	i := &injector{url: "https://" + address, ca: certPEM, exited: make(chan struct{}), client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: admissionRate,
	}}}
	i.cmd = exec.Command(binary, "serve", "--listen", address, "--metrics-listen", "", "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--sidecar-image", "rockpool:dev", "--upstream", "https://203.0.113.10:6443", "--shutdown-delay", "0s")
	i.cmd.Stdout, i.cmd.Stderr = log, log
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = i.cmd.Wait() // the reason is in its log
		close(i.exited)
	}()
	err = wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) {
		response, err := i.client.Get(i.url + "/readyz")
		if err != nil {
			return false, nil
		}
		return response.StatusCode == http.StatusOK, response.Body.Close()
	})
	if err != nil {
		i.stop()
		text, _ := os.ReadFile(log.Name()) // for the error message
		return nil, fmt.Errorf("injector not ready: %w\n%s", err, text)
	}
	return i, nil
}

func (i *injector) stop() {
	_ = i.cmd.Process.Kill() // fails if it has ended
	<-i.exited
	i.client.CloseIdleConnections()
}

// register registers the injector from manifests/, and returns when the API server calls it.
func (s *stage) register(ctx context.Context, i *injector) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "rockpool.dev").Output()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "manifests/base/webhook.yaml"))
	if err != nil {
		return err
	}
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return err
	}
	for n := range config.Webhooks {
		url := i.url + *config.Webhooks[n].ClientConfig.Service.Path
		config.Webhooks[n].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: i.ca}
	}
	if _, err := s.admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &config, metav1.CreateOptions{}); err != nil {
		return err
	}
	asking := pod(0)
	asking.Annotations["rockpool.dev/inject"] = "true"
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		created, err := s.dryRun(ctx, asking)
		return err == nil && len(created.Spec.InitContainers) > 0, nil
	})
}
