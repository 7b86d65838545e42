package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/bed/pod"
	"rockpool.dev/tests/browser"
)

// bridge connects its standard streams with the port of the sidecar's metrics and status page.
const bridge = `
import os, socket, threading
s = socket.create_connection(("127.0.0.1", 10269))
def send():
    while data := os.read(0, 65536):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := s.recv(65536):
    while data:
        data = data[os.write(1, data):]
`

// forward is kubectl port-forward: it returns an address that leads to the status page in the pod.
func (p *testPod) forward() (address string) {
	p.site.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(p.site.ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		p.site.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(p.site.ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				_, _ = p.ExecStream(ctx, "shell", pod.ExecOptions{Argv: []string{"/usr/bin/python3", "-c", bridge}, Stdin: conn, Stdout: conn}) // stop kills it
			})
		}
	})
	p.site.t.Cleanup(func() {
		_ = l.Close()
		stop()
		running.Wait()
	})
	return l.Addr().String()
}

// A person looks at the page while the link is up, reloads it during a cut, and again afterwards. With
// SCREENSHOTS it writes what a person sees to that directory.
func TestAPersonLooksAtTheStatusPageThroughACut(t *testing.T) {
	const password = "correct-horse-battery-staple"
	s := newSiteNamed(t, cluster, "shop")
	s.configMap("greeting", "hello")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login"}, StringData: map[string]string{"password": password}}
	if _, err := s.cluster.Client().CoreV1().Secrets(s.namespace).Create(s.ctx, secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := s.pod()
	p.sees("synced")
	p.kubectl("get", "secrets", "-o", "name")
	p.kubectl("create", "configmap", "by-kubectl")
	p.linkIs("online")
	token := strings.TrimSpace(p.run("/bin/cat", "/var/run/secrets/kubernetes.io/serviceaccount/token").Stdout)

	url := "http://" + p.forward()
	page := browser.Start(t).Open(url, browser.Window{Width: 1280, Height: 900})
	sees := func(name string, words ...string) {
		t.Helper()
		var text, json string
		defer func() {
			if t.Failed() {
				t.Logf("the page %s: %s", name, text)
			}
		}()
		s.until("the page "+name+" has "+strings.Join(words, ", "), func() bool {
			page.Go(url + "/status.json")
			page.Evaluate("document.body.innerText", &json)
			page.Go(url)
			page.Evaluate("document.body.innerText", &text)
			for _, word := range words {
				if !strings.Contains(text, word) {
					return false
				}
			}
			return true
		})
		for _, hidden := range []string{password, "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ", token, token[strings.LastIndex(token, ".")+1:]} {
			if strings.Contains(text, hidden) || strings.Contains(json, hidden) {
				t.Errorf("%s: the page shows %q", name, hidden)
			}
		}
		if dir := os.Getenv("SCREENSHOTS"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name+".png"), page.Screenshot(), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	sees("online", "The link to the API server is up", "in step, by a watch", "(in memory)", "1 would fail", "/namespaces/"+s.namespace+"/configmaps?", "upstream.servers")
	p.offline()
	sees("cut", "The link to the API server is down. It was up", "waits for the link", "Down once", "would fail", "/namespaces/"+s.namespace+"/configmaps?")
	p.online()
	sees("back", "The link to the API server is up", "in step, by a watch", "Down once")
}
