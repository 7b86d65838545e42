package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"rockpool.dev/sidecar/principal"
)

// Condition is the type of the pod's condition. Its status is always True, because only a site that
// has its link again can write it. The message says how long the site was cut.
const Condition = "rockpool.dev/LinkToCloud"

const (
	// component names the sidecar in Events.
	component = "rockpool-sidecar"
	// maxEvent and maxCondition bound the bodies of requests, in bytes. Together they are 1 KiB. Only
	// names of more than 63 bytes make a body longer.
	maxEvent     = 704
	maxCondition = 320
	// maxName bounds what the name of an Event has of the pod's; a name has 253 bytes at most.
	maxName = 230
)

// event is a core/v1 Event. These are the fields that kubectl shows.
type event struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	InvolvedObject reference `json:"involvedObject"`
	Reason         string    `json:"reason"`
	Message        string    `json:"message"`
	Type           string    `json:"type"`
	Source         struct {
		Component string `json:"component"`
	} `json:"source"`
	First     string `json:"firstTimestamp"`
	Last      string `json:"lastTimestamp"`
	Count     int    `json:"count"`
	Component string `json:"reportingComponent"`
}

type reference struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// eventBody is the body of a POST for an Event about the pod. The same fact always makes the same name,
// so that sending it twice makes one Event.
func eventBody(pod principal.Pod, f fact) []byte {
	e := event{
		Kind: "Event", APIVersion: "v1", InvolvedObject: reference{"Pod", "v1", pod.Namespace, pod.Name, pod.UID},
		Reason: f.reason, Message: f.message, Type: "Normal", First: stamp(f.first), Last: stamp(f.last), Count: f.count, Component: component,
	}
	if f.warning {
		e.Type = "Warning"
	}
	e.Source.Component = component
	sum := sha256.Sum256([]byte(pod.UID + "\x00" + f.reason + "\x00" + f.first.UTC().Format(time.RFC3339Nano)))
	e.Metadata.Name = strings.TrimRight(cutAt(pod.Name, maxName), ".-") + "." + hex.EncodeToString(sum[:8])
	return fit(maxEvent, &e.Message, func() any { return e })
}

// conditionBody is the body of a strategic merge patch for the status of the pod. Conditions are
// merged by their type, so those of others stay. The uid keeps it from a later pod of the name.
func conditionBody(pod principal.Pod, message string, changed time.Time) []byte {
	return fit(maxCondition, &message, func() any {
		return map[string]any{
			"metadata": map[string]string{"uid": pod.UID},
			"status": map[string]any{"conditions": []map[string]string{{
				"type": Condition, "status": "True", "reason": LinkRestored, "message": message, "lastTransitionTime": stamp(changed),
			}}},
		}
	})
}

func eventsPath(pod principal.Pod) string {
	return "/api/v1/namespaces/" + url.PathEscape(pod.Namespace) + "/events"
}

func statusPath(pod principal.Pod) string {
	return "/api/v1/namespaces/" + url.PathEscape(pod.Namespace) + "/pods/" + url.PathEscape(pod.Name) + "/status"
}

// stamp is a time as a metav1.Time has it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// fit encodes what object gives, and shortens the message until the result has no more than limit
// bytes, or the message is short.
func fit(limit int, message *string, object func() any) []byte {
	for {
		raw, err := json.Marshal(object())
		if err != nil {
			panic("report: " + err.Error()) // there are only strings and numbers in it
		}
		over := len(raw) - limit
		if over <= 0 || len(*message) < 40 {
			return raw
		}
		*message = cut(*message, len(*message)-over-len("…"))
	}
}

// cut shortens a text to a number of bytes, with a mark.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(cutAt(s, max(0, n-len("…"))), "") + "…"
}

func cutAt(s string, n int) string { return s[:min(n, len(s))] }
