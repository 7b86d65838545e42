package lease

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"rockpool.dev/sidecar/write"
)

// recordAnnotation holds the lock of client-go's ConfigMapLock and EndpointsLock, and of the
// libraries for Java and Python that do the same: a LeaderElectionRecord in JSON.
// https://pkg.go.dev/k8s.io/client-go/tools/leaderelection/resourcelock#LeaderElectionRecord
const recordAnnotation = "control-plane.alpha.kubernetes.io/leader"

// Patroni holds its lock in annotations of their own.
// https://github.com/patroni/patroni/blob/master/patroni/dcs/kubernetes.py
const (
	patroniHolder  = "leader"
	patroniTTL     = "ttl"
	patroniRenewed = "renewTime"
)

// electionAnnotations are all annotations that a holder changes when it renews a lock. Patroni says
// beside it how far its log is, and which replication slots and members there are.
var electionAnnotations = []string{
	recordAnnotation,
	patroniHolder, patroniTTL, patroniRenewed, "acquireTime", "transitions", "optime", "slots", "retain_slots", "failsafe",
}

// readAnnotations gives the lock in the annotations of an object.
func readAnnotations(o write.Object) lockRecord {
	if raw := o.Text("metadata", "annotations", recordAnnotation); raw != "" {
		return parseRecord(raw)
	}
	text := func(name string) string { return o.Text("metadata", "annotations", name) }
	if text(patroniRenewed) == "" {
		return lockRecord{}
	}
	return lockRecord{holder: text(patroniHolder), duration: seconds(text(patroniTTL)), renewed: text(patroniRenewed)}
}

// parseRecord reads a LeaderElectionRecord. Python's library writes the duration as text, and
// fabric8's (Java) as a number of seconds or in ISO 8601, under a name of its own.
func parseRecord(raw string) lockRecord {
	o, err := write.Decode([]byte(raw))
	if err != nil {
		return lockRecord{}
	}
	r := lockRecord{holder: o.Text("holderIdentity")}
	for _, member := range []string{"leaseDurationSeconds", "leaseDuration"} {
		if value := o[member]; value != nil {
			r.duration = seconds(fmt.Sprint(value))
		}
	}
	if at := o["renewTime"]; at != nil {
		r.renewed = fmt.Sprint(at)
	}
	return r
}

// seconds reads a duration: a number of seconds, or ISO 8601 like PT1M30S; 0 if it is neither.
func seconds(text string) time.Duration {
	if iso, ok := strings.CutPrefix(text, "PT"); ok {
		if d, err := time.ParseDuration(strings.ToLower(iso)); err == nil && d > 0 {
			return d
		}
		return 0
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n > 0) || n > math.MaxInt32 {
		return 0
	}
	return time.Duration(n * float64(time.Second))
}

// serverOwned are the members of an object's metadata that an update does not change. Those that
// identify the object and its state are compared before.
var serverOwned = []string{"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "selfLink", "managedFields"}

// onlyElection reports whether two states of an object differ in annotations of leader election only.
func onlyElection(a, b write.Object) bool {
	return reflect.DeepEqual(withoutElection(a), withoutElection(b))
}

func withoutElection(o write.Object) map[string]any {
	rest := maps.Clone(map[string]any(o))
	metadata, _ := rest["metadata"].(map[string]any)
	metadata = maps.Clone(metadata)
	for _, member := range serverOwned {
		delete(metadata, member)
	}
	annotations, _ := metadata["annotations"].(map[string]any)
	annotations = maps.Clone(annotations)
	for _, name := range electionAnnotations {
		delete(annotations, name)
	}
	if metadata != nil {
		metadata["annotations"] = annotations
		rest["metadata"] = metadata
	}
	pruned, _ := prune(rest).(map[string]any)
	return pruned
}

// prune gives a value without members that are null or empty, which the API server leaves out.
func prune(value any) any {
	switch value := value.(type) {
	case map[string]any:
		var all map[string]any
		for name, member := range value {
			if member = prune(member); member != nil {
				if all == nil {
					all = map[string]any{}
				}
				all[name] = member
			}
		}
		if all == nil {
			return nil
		}
		return all
	case []any:
		if len(value) == 0 {
			return nil
		}
		all := make([]any, len(value))
		for i, item := range value {
			all[i] = prune(item)
		}
		return all
	}
	return value
}
