package inject

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// Stay is how long a pod stays on a node that the control plane cannot reach: "forever", a duration
// like "24h", or "default" for what the cluster does without Rockpool. Empty means that nobody has
// chosen.
//
// The node lifecycle controller taints such a node with NoExecute, and evicts the pods whose
// tolerations have ended. The kubelet deletes them when the link is back. By default that is five
// minutes after the taint, see
// https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions.
type Stay string

// Values of Stay that are not durations.
const (
	StayForever Stay = "forever"
	StayDefault Stay = "default"
)

// DefaultEvictionSeconds is the time that the admission plugin DefaultTolerationSeconds gives to a
// pod, unless the API server's --default-not-ready-toleration-seconds and
// --default-unreachable-toleration-seconds have another.
const DefaultEvictionSeconds = 300

// lostTaints are the taints of a node that the control plane cannot reach.
var lostTaints = []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}

// Tolerations says what a [Stay] has changed, for [Uninject].
type Tolerations struct {
	// Seconds of our tolerations. Nil: for ever.
	Seconds *int64 `json:"seconds,omitempty"`
	// Replaced are the taints whose toleration of the cluster's default was changed, and Default are
	// the seconds that it had.
	Replaced []string `json:"replaced,omitempty"`
	Default  int64    `json:"default,omitempty"`
	// Added are the taints that the pod did not tolerate.
	Added []string `json:"added,omitempty"`
}

// ValidateStay accepts the values of Stay, except the empty one.
func ValidateStay(stay Stay) error {
	_, err := stay.seconds()
	return err
}

// seconds returns the tolerationSeconds. Nil means for ever.
func (s Stay) seconds() (*int64, error) {
	if s == StayForever || s == StayDefault {
		return nil, nil
	}
	d, err := time.ParseDuration(string(s))
	if err != nil || d < time.Second {
		return nil, fmt.Errorf("%q is not a duration like 24h, %s or %s", string(s), StayForever, StayDefault)
	}
	return ptr.To(int64(math.Ceil(d.Seconds()))), nil
}

// ValidateEvictionSeconds accepts the text of a number of seconds above zero.
func ValidateEvictionSeconds(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is not a number of seconds above zero, like %d", text, DefaultEvictionSeconds)
	}
	return n, nil
}

// apply gives the pod the tolerations of s. It replaces those of the cluster's default, which has
// byDefault seconds, and keeps the author's own. It returns what it has changed, or nil, and a
// notice if the author's own tolerations are shorter. s is valid.
func (s Stay) apply(spec *corev1.PodSpec, byDefault int64) (*Tolerations, []Notice) {
	if s == "" || s == StayDefault {
		return nil, nil
	}
	seconds, err := s.seconds()
	if err != nil {
		panic(errors.Join(errors.New("the caller has not validated it"), err))
	}
	t := &Tolerations{Seconds: seconds}
	var notices []Notice
	for _, taint := range lostTaints {
		i, shortest := toleration(spec.Tolerations, taint)
		switch {
		case i < 0:
			spec.Tolerations = append(spec.Tolerations, lostToleration(taint, seconds))
			t.Added = append(t.Added, taint)
		case shortest == nil || seconds != nil && *shortest >= *seconds:
			// It stays at least as long already.
		case isLostToleration(&spec.Tolerations[i], taint, &byDefault):
			spec.Tolerations[i].TolerationSeconds = seconds
			t.Replaced, t.Default = append(t.Replaced, taint), byDefault
		default:
			notices = append(notices, Notice{Reason: ReasonOwnToleration, Detail: fmt.Sprintf("%s: %ds", taint, *shortest)})
		}
	}
	if len(t.Added)+len(t.Replaced) == 0 {
		t = nil
	}
	return t, notices
}

// undo removes what apply has added, and restores the cluster's default.
func (t *Tolerations) undo(spec *corev1.PodSpec) {
	if t == nil {
		return
	}
	ours := func(taint string) int {
		for i := range spec.Tolerations {
			if isLostToleration(&spec.Tolerations[i], taint, t.Seconds) {
				return i
			}
		}
		return -1
	}
	for _, taint := range t.Replaced {
		if i := ours(taint); i >= 0 {
			spec.Tolerations[i].TolerationSeconds = ptr.To(t.Default)
		}
	}
	for _, taint := range t.Added {
		if i := ours(taint); i >= 0 {
			spec.Tolerations = append(spec.Tolerations[:i:i], spec.Tolerations[i+1:]...)
		}
	}
}

// toleration returns the index of the toleration that ends first of those for the taint, and its
// seconds; nil means never. The index is -1 if there is none.
func toleration(all []corev1.Toleration, taint string) (int, *int64) {
	first := -1
	for i := range all {
		t := &all[i]
		exists := t.Operator == corev1.TolerationOpExists
		equal := t.Operator == "" || t.Operator == corev1.TolerationOpEqual
		if (t.Effect != "" && t.Effect != corev1.TaintEffectNoExecute) ||
			(t.Key != taint && (t.Key != "" || !exists)) || (!exists && (!equal || t.Value != "")) {
			continue
		}
		if first < 0 || t.TolerationSeconds != nil && (all[first].TolerationSeconds == nil || *t.TolerationSeconds < *all[first].TolerationSeconds) {
			first = i
		}
	}
	if first < 0 {
		return -1, nil
	}
	return first, all[first].TolerationSeconds
}

func lostToleration(taint string, seconds *int64) corev1.Toleration {
	return corev1.Toleration{Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: seconds}
}

func isLostToleration(t *corev1.Toleration, taint string, seconds *int64) bool {
	want := lostToleration(taint, seconds)
	return t.Key == want.Key && t.Operator == want.Operator && t.Effect == want.Effect && t.Value == "" &&
		ptr.Equal(t.TolerationSeconds, want.TolerationSeconds)
}
