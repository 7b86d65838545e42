package e2enode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount/"

// A token is valid for at least ten minutes, and the kubelet renews it after eight. It also renews
// it after a restart of its own, since it keeps tokens in memory only. The test restarts the
// kubelet: the new token reaches the app in the same way.
func TestARenewedTokenReachesTheApp(t *testing.T) {
	s := newSite(t, "token")
	s.kubectl("apply", "-f", "testdata/workloads.yaml", "-l", "app=web")
	web := s.pod("web")
	web.sees("app", "synced")
	before, ca := web.file("app", accountPath+"token"), web.file("app", accountPath+"ca.crt")

	testEnv.node.StopKubelet()
	s.try(testEnv.node.StartKubelet(s.ctx))
	var renewed string
	s.until("the kubelet renews the token", func(context.Context) error {
		volumes, err := testEnv.node.TokenVolumes(web.Pod)
		if err != nil || len(volumes) != 1 {
			return errors.Join(err, errors.New("not one volume with a token"))
		}
		token, err := os.ReadFile(filepath.Join(volumes[0], "token"))
		if renewed = string(token); err == nil && renewed == before {
			err = errors.New("it is the same")
		}
		return err
	})
	s.until("the app has the new token", func(context.Context) error {
		if now := web.file("app", accountPath+"token"); now != renewed {
			return errors.New("it sees another")
		}
		return nil
	})
	if now := web.file("app", accountPath+"ca.crt"); now != ca {
		t.Error("the CA has changed with the token, but programs read it only once")
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: renewed}}
	review, err := testEnv.Client().AuthenticationV1().TokenReviews().Create(s.ctx, review, metav1.CreateOptions{})
	s.try(err)
	if want := "system:serviceaccount:token:default"; review.Status.User.Username != want {
		t.Errorf("the token is that of %q, want %s", review.Status.User.Username, want)
	}
	s.configMap("hello again")
	web.seesAfter(time.Now(), "asker", "ConfigMap", "hello again")
	web.sees("app", "updated", "hello again")
}
