package inject

import (
	gocmp "cmp"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestTheTolerationsOfAStay(t *testing.T) {
	const notReady, unreachable = corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable
	for name, test := range map[string]struct {
		stay      Stay
		byDefault int64
		given     []corev1.Toleration
		want      []corev1.Toleration
		notices   []string
	}{
		"a template gets both, since the API server adds its own later": {
			stay: "90s",
			want: []corev1.Toleration{lostToleration(notReady, ptr.To[int64](90)), lostToleration(unreachable, ptr.To[int64](90))},
		},
		"the cluster's default is replaced": {
			stay:  StayForever,
			given: []corev1.Toleration{lostToleration(unreachable, ptr.To[int64](300)), lostToleration(notReady, ptr.To[int64](300))},
			want:  []corev1.Toleration{lostToleration(unreachable, nil), lostToleration(notReady, nil)},
		},
		"another default of the cluster is replaced": {
			stay: StayForever, byDefault: 10,
			given: []corev1.Toleration{lostToleration(notReady, ptr.To[int64](10)), lostToleration(unreachable, ptr.To[int64](10))},
			want:  []corev1.Toleration{lostToleration(notReady, nil), lostToleration(unreachable, nil)},
		},
		"the author's shorter one stays, and says so": {
			stay:    "24h",
			given:   []corev1.Toleration{lostToleration(notReady, ptr.To[int64](60)), lostToleration(unreachable, ptr.To[int64](300))},
			want:    []corev1.Toleration{lostToleration(notReady, ptr.To[int64](60)), lostToleration(unreachable, ptr.To[int64](86400))},
			notices: []string{notReady + ": 60s"},
		},
		"the shortest of several is the one that counts": {
			stay: "24h",
			given: []corev1.Toleration{
				{Operator: corev1.TolerationOpExists}, {Key: notReady, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](5)},
			},
			want: []corev1.Toleration{
				{Operator: corev1.TolerationOpExists}, {Key: notReady, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To[int64](5)},
			},
			notices: []string{notReady + ": 5s"},
		},
		"a longer one stays": {
			stay:  "10m",
			given: []corev1.Toleration{lostToleration(notReady, ptr.To[int64](3600)), lostToleration(unreachable, nil)},
			want:  []corev1.Toleration{lostToleration(notReady, ptr.To[int64](3600)), lostToleration(unreachable, nil)},
		},
		"a stay below the cluster's default does not shorten it": {
			stay:  "1m",
			given: []corev1.Toleration{lostToleration(notReady, ptr.To[int64](300)), lostToleration(unreachable, ptr.To[int64](300))},
			want:  []corev1.Toleration{lostToleration(notReady, ptr.To[int64](300)), lostToleration(unreachable, ptr.To[int64](300))},
		},
		"tolerations of other effects, keys and values do not count": {
			stay: "1h",
			given: []corev1.Toleration{
				{Key: notReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
				{Key: unreachable, Operator: corev1.TolerationOpEqual, Value: "yes", Effect: corev1.TaintEffectNoExecute},
				{Key: "edge", Operator: corev1.TolerationOpExists},
			},
			want: []corev1.Toleration{
				{Key: notReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
				{Key: unreachable, Operator: corev1.TolerationOpEqual, Value: "yes", Effect: corev1.TaintEffectNoExecute},
				{Key: "edge", Operator: corev1.TolerationOpExists},
				lostToleration(notReady, ptr.To[int64](3600)), lostToleration(unreachable, ptr.To[int64](3600)),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := &corev1.PodSpec{Tolerations: append([]corev1.Toleration(nil), test.given...)}
			changes, notices := test.stay.apply(spec, gocmp.Or(test.byDefault, DefaultEvictionSeconds))
			if diff := cmp.Diff(test.want, spec.Tolerations); diff != "" {
				t.Errorf("tolerations (-want +got):\n%s", diff)
			}
			var details []string
			for _, n := range notices {
				details = append(details, n.Detail)
			}
			if diff := cmp.Diff(test.notices, details); diff != "" {
				t.Errorf("notices (-want +got):\n%s", diff)
			}
			changes.undo(spec)
			if diff := cmp.Diff(test.given, spec.Tolerations); diff != "" && len(test.given)+len(spec.Tolerations) > 0 {
				t.Errorf("undone (-before +after):\n%s", diff)
			}
		})
	}
}

func TestUninjectLeavesTolerationsThatOthersHaveChanged(t *testing.T) {
	spec := &corev1.PodSpec{}
	changes, _ := Stay("1h").apply(spec, DefaultEvictionSeconds)
	spec.Tolerations[0].TolerationSeconds = ptr.To[int64](7)
	changes.undo(spec)
	if len(spec.Tolerations) != 1 || *spec.Tolerations[0].TolerationSeconds != 7 {
		t.Errorf("left are %v", spec.Tolerations)
	}
}

func TestValuesOfStay(t *testing.T) {
	for _, stay := range []Stay{"24h", "forever", "default", "1s", "1h30m"} {
		if err := ValidateStay(stay); err != nil {
			t.Errorf("%s: %v", stay, err)
		}
	}
	for _, stay := range []Stay{"", "0s", "-1h", "24", "always", "500ms", "1d"} {
		if ValidateStay(stay) == nil {
			t.Errorf("%q is accepted", stay)
		}
	}
}
