package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation"

	"rockpool.dev/sidecar/principal"
)

var web = principal.Pod{Namespace: "shop", Name: "web-5d9c7b6f4-x2x8p", UID: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}

func TestAnEventIsTheKubernetesOne(t *testing.T) {
	f := fact{LinkLost, "the link was lost: \"refused\"", true, at(0), at(time.Minute), 3}
	var e corev1.Event
	d := json.NewDecoder(strings.NewReader(string(eventBody(web, f))))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.InvolvedObject.Kind != "Pod" || e.InvolvedObject.Name != web.Name || e.InvolvedObject.Namespace != web.Namespace || string(e.InvolvedObject.UID) != web.UID ||
		e.Reason != LinkLost || e.Type != corev1.EventTypeWarning || e.Message != f.message || e.Count != 3 ||
		!e.FirstTimestamp.Time.Equal(f.first) || !e.LastTimestamp.Time.Equal(f.last) || e.Source.Component != "rockpool-sidecar" {
		t.Errorf("%+v", e)
	}
}

func TestTheSameFactMakesOneEvent(t *testing.T) {
	name := func(p principal.Pod, f fact) string {
		var e corev1.Event
		if err := json.Unmarshal(eventBody(p, f), &e); err != nil {
			t.Fatal(err)
		}
		if problems := validation.IsDNS1123Subdomain(e.Name); len(problems) > 0 {
			t.Errorf("%s: %v", e.Name, problems)
		}
		return e.Name
	}
	lost := fact{LinkLost, "a", true, at(0), at(0), 1}
	again, later, restored, other := lost, lost, lost, web
	again.message, again.count = "b", 2
	later.first, restored.reason, other.UID = at(time.Second), LinkRestored, "another"
	if name(web, lost) != name(web, again) {
		t.Error("a fact has two names")
	}
	names := map[string]bool{name(web, lost): true, name(web, later): true, name(web, restored): true, name(other, lost): true}
	if len(names) != 4 {
		t.Errorf("four facts have the names %v", names)
	}
	long := principal.Pod{Namespace: "shop", Name: strings.Repeat("a", 229) + ".b" + strings.Repeat("c", 22), UID: "u"}
	if got := name(long, lost); strings.Contains(got, "..") || len(got) > 253 {
		t.Errorf("%s", got)
	}
}

func TestTheConditionLeavesThoseOfOthers(t *testing.T) {
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	before := corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{ready, {Type: Condition, Message: "cut for 1s"}}}}
	before.UID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
	raw, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = strategicpatch.StrategicMergePatch(raw, conditionBody(web, "cut for 2h3m0s", at(0)), corev1.Pod{}); err != nil {
		t.Fatal(err)
	}
	var after corev1.Pod
	if err := json.Unmarshal(raw, &after); err != nil {
		t.Fatal(err)
	}
	if after.UID != before.UID || after.Status.Phase != corev1.PodRunning || len(after.Status.Conditions) != 2 {
		t.Errorf("%+v", after)
	}
	for _, c := range after.Status.Conditions {
		if c.Type == Condition && (c.Message != "cut for 2h3m0s" || c.Status != corev1.ConditionTrue || c.Reason != LinkRestored || !c.LastTransitionTime.Time.Equal(at(0))) {
			t.Errorf("%+v", c)
		}
	}
}

func TestAChangeOfTheLinkIsAKilobyteAtMost(t *testing.T) {
	p := principal.Pod{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("p", 63), UID: web.UID}
	for name, text := range map[string]string{
		"short": "refused", "long": strings.Repeat("no route to host; ", 100), "that JSON escapes": strings.Repeat(`"<&>`, 500), "of long letters": strings.Repeat("ü€", 500),
	} {
		t.Run("with a message "+name, func(t *testing.T) {
			event, condition := eventBody(p, fact{LinkRestored, text, true, at(0), at(0), 1000}), conditionBody(p, text, at(0))
			if n := len(event) + len(condition); n > 1024 {
				t.Errorf("%d bytes", n)
			}
			for _, body := range [][]byte{event, condition} {
				if !json.Valid(body) || !utf8.Valid(body) {
					t.Errorf("%s", body)
				}
			}
		})
	}
	t.Logf("an Event %d bytes, a condition %d", len(eventBody(web, fact{LinkLost, "the link to the API server was lost: connection refused", true, at(0), at(0), 1})),
		len(conditionBody(web, "cut for 2h3m0s until 2026-11-30T10:03:00Z, oldest answer 2h5m0s", at(0))))
}
