package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/sidecar/upstream"
	controlplane "rockpool.dev/tests/bed/cluster"
)

// An API server that sheds load ends connections at random, and says which requests it has not
// begun. Those are sent again, and no other. The API server is one of its own: its GOAWAYs would
// disturb all other tests.
func TestWritesPassWhileTheAPIServerSendsGOAWAY(t *testing.T) {
	t.Parallel()
	const writers, patches, posts, namespace = 8, 150, 80, "goaway"
	plane, err := controlplane.Start(t.Context(), controlplane.Options{APIServerArgs: []string{"--goaway-chance=0.02"}, Progress: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Error(err)
		}
	})
	token := adminToken(t, plane, namespace)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, plane.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	server := upstream.Server{URL: &url.URL{Scheme: "https", Host: plane.Address()}}
	link, err := upstream.New(upstream.Options{Settings: upstream.Settings{Servers: []upstream.Server{server}}, CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	send := func(method, path, contentType, body string, want int) error {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://kubernetes"+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {contentType}}
		resp, err := link.RoundTrip(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != want {
			err = fmt.Errorf("%d %s", resp.StatusCode, text)
		}
		return err
	}
	const path = "/api/v1/namespaces/" + namespace + "/configmaps"
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			name := fmt.Sprintf("writer-%d", w)
			if err := send("POST", path, "application/json", `{"metadata":{"name":"`+name+`"}}`, http.StatusCreated); err != nil {
				t.Errorf("create %s: %v", name, err)
			}
			for i := range patches {
				body := fmt.Sprintf(`{"data":{"n":"%d"}}`, i)
				if err := send("PATCH", path+"/"+name, "application/merge-patch+json", body, http.StatusOK); err != nil {
					t.Errorf("patch %d of %s: %v", i, name, err)
				}
			}
			for i := range posts {
				if err := send("POST", path, "application/json", `{"metadata":{"generateName":"made-","labels":{"made":""}}}`, http.StatusCreated); err != nil {
					t.Errorf("post %d of %s: %v", i, name, err)
				}
			}
		})
	}
	group.Wait()
	made, err := plane.Client().CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "made"})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(made.Items); n != writers*posts {
		t.Errorf("%d objects were made with %d requests", n, writers*posts)
	}
}

// adminToken makes a namespace and a token that may do everything.
func adminToken(t *testing.T, plane *controlplane.ControlPlane, namespace string) string {
	t.Helper()
	if err := plane.CreateNamespace(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "default"}},
	}
	if _, err := plane.Client().RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	seconds := int64(time.Hour / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	got, err := plane.Client().CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), "default", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.Token
}
