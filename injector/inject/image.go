package inject

import (
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// DefaultPullPolicy has the node keep the image: a container that ends while the registry cannot be
// reached must start again. The API server's own default for an image without a tag, or with the
// tag latest, is Always.
const DefaultPullPolicy = corev1.PullIfNotPresent

// imageReference is the grammar of OCI image references, with any host name before the first
// slash: [host[:port]/]path[:tag][@digest].
var imageReference = regexp.MustCompile(`^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$`)

// maxImageReference leaves room for a registry host, a path of 255 bytes, a tag and a digest.
const maxImageReference = 768

// ValidateImage accepts an OCI image reference.
func ValidateImage(image string) error {
	if image == "" {
		return errors.New("no image is named")
	}
	if len(image) > maxImageReference || !imageReference.MatchString(image) {
		return fmt.Errorf("%q is not an image reference, like registry.example.com/rockpool:v1", image)
	}
	return nil
}

const (
	// LabelChannel of a namespace, with the value ChannelCanary, gives its pods the canary image.
	LabelChannel  = AnnotationPrefix + "channel"
	ChannelCanary = "canary"
)

// ValidatePercent accepts the text of a whole number from 0 to 100.
func ValidatePercent(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 100 {
		return 0, fmt.Errorf("%q is not a whole number from 0 to 100", text)
	}
	return n, nil
}

// imageFor returns the image of a pod without the annotation. A pod falls among the percentage by
// its review, so the pods of one workload differ.
func (p *Params) imageFor(facts *Facts) string {
	if p.CanaryImage == "" {
		return p.Image
	}
	if facts.NamespaceLabels[LabelChannel] == ChannelCanary {
		return p.CanaryImage
	}
	if facts.Review != "" {
		h := fnv.New32a()
		h.Write([]byte("image of " + facts.Review))
		if int(h.Sum32()%100) < p.CanaryPercent {
			return p.CanaryImage
		}
	}
	return p.Image
}

// ValidatePullPolicy accepts the pull policies of the API.
func ValidatePullPolicy(policy corev1.PullPolicy) error {
	if _, err := oneOf(policy, corev1.PullIfNotPresent, corev1.PullAlways, corev1.PullNever); err != nil {
		return fmt.Errorf("%q is not %s, %s or %s", policy, corev1.PullIfNotPresent, corev1.PullAlways, corev1.PullNever)
	}
	return nil
}

// ValidatePullSecrets accepts names of Secrets.
func ValidatePullSecrets(names []string) error {
	for _, name := range names {
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return fmt.Errorf("%q is not the name of a Secret", name)
		}
	}
	return nil
}

// imageNotices warns of an image that nodes cannot tell from a newer one, or that an offline node
// cannot start again.
func imageNotices(image string, policy corev1.PullPolicy) []Notice {
	if policy == corev1.PullAlways {
		return []Notice{{Reason: ReasonPullAlways, Detail: image}}
	}
	if floatingImage(image) {
		return []Notice{{Reason: ReasonFloatingImage, Detail: image}}
	}
	return nil
}

// floatingImage reports whether the reference has neither a digest nor a tag other than latest.
func floatingImage(image string) bool {
	if strings.Contains(image, "@") {
		return false
	}
	_, tag, tagged := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return !tagged || tag == "latest"
}

// addPullSecrets adds the Secrets that the pod does not name itself, and returns their names.
func addPullSecrets(spec *corev1.PodSpec, names []string) (added []string) {
	for _, name := range names {
		secret := corev1.LocalObjectReference{Name: name}
		if !slices.Contains(spec.ImagePullSecrets, secret) {
			spec.ImagePullSecrets = append(spec.ImagePullSecrets, secret)
			added = append(added, name)
		}
	}
	return added
}

// removePullSecrets undoes addPullSecrets.
func removePullSecrets(spec *corev1.PodSpec, added []string) {
	spec.ImagePullSecrets = slices.DeleteFunc(spec.ImagePullSecrets, func(secret corev1.LocalObjectReference) bool {
		return slices.Contains(added, secret.Name)
	})
}
