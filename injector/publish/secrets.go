package publish

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// CopyInterval is how often the pull secrets are read, and copied where they have changed.
const CopyInterval = 30 * time.Second

// PullSecrets copies image pull secrets from the injector's namespace to the namespaces with injected
// pods, because a pod can only name Secrets of its own namespace. A copy that somebody else changes
// stays so until its source changes, or another replica takes over.
type PullSecrets struct {
	Client    rest.Interface // of v1
	Namespace string         // of the sources
	// Names of the Secrets; nil if they are unknown now.
	Names func() []string
	// Namespaces that get copies.
	Namespaces func() []string
	Clock      clock.WithTicker
	Log        *zap.Logger

	copied    map[string][sha256.Size]byte // by namespace and name
	lastError string
}

// Run copies until ctx ends. One replica runs it at a time.
func (s *PullSecrets) Run(ctx context.Context) {
	s.copied = map[string][sha256.Size]byte{} // another replica may have copied meanwhile
	ticker := s.Clock.NewTicker(CopyInterval)
	defer ticker.Stop()
	for {
		err := s.copyAll(ctx)
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != s.lastError {
			s.lastError = text
			s.Log.Warn("cannot copy image pull secrets", zap.Error(err))
		}
		if err == nil {
			s.lastError = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C():
		}
	}
}

func (s *PullSecrets) copyAll(ctx context.Context) error {
	var errs []error
	for _, name := range s.Names() {
		var source corev1.Secret
		if err := s.Client.Get().Namespace(s.Namespace).Resource("secrets").Name(name).Do(ctx).Into(&source); err != nil {
			errs = append(errs, err)
			continue
		}
		// Any other Secret could be read by all who read Secrets in those namespaces.
		if source.Type != corev1.SecretTypeDockerConfigJson {
			errs = append(errs, fmt.Errorf("pull secret %s/%s: its type is %q, want %s", s.Namespace, name, source.Type, corev1.SecretTypeDockerConfigJson))
			continue
		}
		content := sha256.Sum256(source.Data[corev1.DockerConfigJsonKey])
		for _, namespace := range s.Namespaces() {
			if namespace == s.Namespace || s.copied[namespace+"/"+name] == content {
				continue
			}
			if err := s.apply(ctx, namespace, &source); err != nil && !namespaceGone(err) {
				errs = append(errs, fmt.Errorf("namespace %s: %w", namespace, err))
				continue
			}
			s.copied[namespace+"/"+name] = content
		}
	}
	return errors.Join(errs...)
}

func (s *PullSecrets) apply(ctx context.Context, namespace string, source *corev1.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := json.Marshal(&corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Name: source.Name, Namespace: namespace,
			Labels: map[string]string{
				"app.kubernetes.io/name": "rockpool-sidecar", "app.kubernetes.io/component": "image-pull-secret",
				"app.kubernetes.io/part-of": "rockpool", "app.kubernetes.io/managed-by": FieldManager,
			},
		},
		Type: source.Type, Data: map[string][]byte{corev1.DockerConfigJsonKey: source.Data[corev1.DockerConfigJsonKey]},
	})
	if err != nil {
		return err
	}
	// Not by force: a Secret of this name that somebody else has made stays, and the error says so.
	return s.Client.Verb(http.MethodPatch).SetHeader("Content-Type", string(types.ApplyPatchType)).
		Namespace(namespace).Resource("secrets").Name(source.Name).
		VersionedParams(&metav1.PatchOptions{FieldManager: FieldManager}, metav1.ParameterCodec).
		Body(body).Do(ctx).Error()
}

// PullSecrets returns a copier of Secrets to the publisher's namespaces; see [PullSecrets].
func (p *Publisher) PullSecrets(namespace string, names func() []string) *PullSecrets {
	return &PullSecrets{
		Client: p.client, Namespace: namespace, Names: names, Namespaces: p.Namespaces,
		Clock: cmp.Or[clock.WithTicker](p.options.Clock, clock.RealClock{}), Log: p.options.Log,
	}
}

// Namespaces returns those that have the ConfigMap.
func (p *Publisher) Namespaces() []string {
	var all []string
	for _, object := range p.informer.GetStore().List() {
		all = append(all, object.(*corev1.ConfigMap).Namespace)
	}
	return all
}
