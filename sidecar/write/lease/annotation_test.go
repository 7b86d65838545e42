package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"rockpool.dev/sidecar/write"
)

const (
	configMap = "/api/v1/namespaces/shop/configmaps/web"
	endpoints = "/api/v1/namespaces/shop/endpoints/web"
	asBinary  = "application/vnd.kubernetes.protobuf"
)

// inConfigMap is a ConfigMap with client-go's lock, which lasts 15 seconds.
func inConfigMap(holder, version string, second int) string {
	return fmt.Sprintf(`{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"b"},"metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":%q,
		"creationTimestamp":"2024-01-01T00:00:00Z","managedFields":[{"manager":"x"}],"annotations":{"other":"stays",%q:%q}}}`,
		version, recordAnnotation, fmt.Sprintf(`{"holderIdentity":%q,"leaseDurationSeconds":15,"renewTime":"2024-01-01T00:00:%02dZ","leaderTransitions":0}`, holder, second))
}

// inEndpoints is an Endpoints object with Patroni's lock, which lasts 15 seconds.
func inEndpoints(holder, version string, second int) string {
	return fmt.Sprintf(`{"kind":"Endpoints","apiVersion":"v1","subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":5432}]}],
		"metadata":{"name":"web","namespace":"shop","uid":"u","resourceVersion":%q,"labels":{"cluster-name":"web"},"annotations":{"leader":%q,"ttl":"15",
		"renewTime":"2024-01-01T00:00:%02d.1+00:00","acquireTime":"2024-01-01T00:00:00.1+00:00","transitions":"1"}}}`, version, holder, second)
}

// patroni is the patch by which Patroni renews its lock.
func patroni(holder, version string, second int) string {
	return fmt.Sprintf(`{"metadata":{"namespace":"shop","name":"web","labels":{"cluster-name":"web"},"resourceVersion":%q,"annotations":{"leader":%q,"ttl":"15",
		"renewTime":"2024-01-01T00:00:%02d.1+00:00","acquireTime":"2024-01-01T00:00:00.1+00:00","transitions":"1","optime":"%d","slots":null}}}`, version, holder, second, 67108864+second)
}

// binary encodes an object of the core group in protobuf.
func binary(t *testing.T, raw string) string {
	t.Helper()
	o, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(raw), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func newAnnotationHolder(t *testing.T) *harness {
	g := newHarness(t)
	g.exchange("PUT", configMap, inConfigMap("a", "1", 1), 200, inConfigMap("a", "2", 1))
	g.exchangeAs("me", "PATCH", endpoints, strategic, patroni("a", "1", 1), 200, inEndpoints("a", "2", 1))
	return g
}

// locked returns the result of a write without the link: the holder, the resourceVersion and the
// second of the renewTime, or the reason of the refusal; "ordinary" if it is left to others.
func (g *harness) locked(method, url, contentType, body string) string {
	g.t.Helper()
	info := parse(method, url)
	resp, err := g.Accept(g.t.Context(), write.Request{Principal: "me", Info: info, ContentType: contentType, Body: []byte(body)})
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, write.ErrNeedsServer):
		return result(err)
	case errors.As(err, &status):
		return string(status.Status().Reason)
	case err != nil:
		g.t.Fatal(err)
	case resp == nil:
		return "ordinary"
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return lockIn(g.t, raw)
}

func lockIn(t *testing.T, raw []byte) string {
	t.Helper()
	o, err := write.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	r := readAnnotations(o)
	return r.holder + "@" + o.Text("metadata", "resourceVersion") + " " + r.renewed[17:19]
}

func TestALockInAnnotationsIsRenewedAndNothingElse(t *testing.T) {
	for _, tt := range []struct{ name, method, path, contentType, body, want string }{
		{"an update of a ConfigMap", "PUT", configMap, asJSON, inConfigMap("a", "2", 9), "a@2 09"},
		{"an update without a version", "PUT", configMap, asJSON, inConfigMap("a", "", 9), "a@2 09"},
		{"an update without what the server adds", "PUT", configMap, asJSON,
			strings.Replace(inConfigMap("a", "2", 9), `"creationTimestamp":"2024-01-01T00:00:00Z","managedFields":[{"manager":"x"}]`, `"creationTimestamp":null`, 1), "a@2 09"},
		{"an update in protobuf", "PUT", configMap, asBinary, binary(t, strings.Replace(inConfigMap("a", "2", 9), `"managedFields":[{"manager":"x"}],`, "", 1)), "a@2 09"},
		{"an update of Endpoints", "PUT", endpoints, asJSON, inEndpoints("a", "2", 9), "a@2 09"},
		{"an update of Endpoints in protobuf", "PUT", endpoints, asBinary, binary(t, strings.Replace(inEndpoints("a", "2", 9), `"port":5432`, `"port":5432,"protocol":""`, 1)), "a@2 09"},
		{"Patroni's patch", "PATCH", endpoints, strategic, patroni("a", "2", 9), "a@2 09"},
		{"Patroni's patch of the optime", "PATCH", endpoints, strategic, `{"metadata":{"annotations":{"optime":"1"}}}`, "a@2 01"},

		{"by another holder", "PUT", configMap, asJSON, inConfigMap("b", "2", 9), "taken"},
		{"by another Patroni", "PATCH", endpoints, strategic, patroni("b", "2", 9), "taken"},
		{"a release", "PUT", configMap, asJSON, inConfigMap("", "2", 9), "released"},
		{"Patroni's release", "PATCH", endpoints, strategic, `{"metadata":{"annotations":{"leader":null},"resourceVersion":"2"}}`, "released"},
		{"without the annotation", "PUT", configMap, asJSON, strings.Replace(inConfigMap("a", "2", 9), recordAnnotation, "x", 1), "more"},
		{"with an annotation that is no record", "PATCH", configMap, strategic, `{"metadata":{"annotations":{"` + recordAnnotation + `":"{"}}}`, "released"},
		{"of another version", "PUT", configMap, asJSON, inConfigMap("a", "1", 9), "Conflict"},
		{"of another uid", "PUT", configMap, asJSON, strings.Replace(inConfigMap("a", "2", 9), `"u"`, `"v"`, 1), "Conflict"},
		{"of data, too", "PUT", configMap, asJSON, strings.Replace(inConfigMap("a", "2", 9), `"b"`, `"c"`, 1), "more"},
		{"with more data", "PATCH", configMap, strategic, `{"data":{"x":"y"}}`, "more"},
		{"of another annotation, too", "PUT", configMap, asJSON, strings.Replace(inConfigMap("a", "2", 9), `"stays"`, `"goes"`, 1), "more"},
		{"with a finalizer", "PUT", configMap, asJSON, strings.Replace(inConfigMap("a", "2", 9), `"uid"`, `"finalizers":["x"],"uid"`, 1), "more"},
		{"of a label", "PATCH", endpoints, strategic, `{"metadata":{"labels":{"cluster-name":"other"}}}`, "more"},
		{"of the addresses", "PUT", endpoints, asJSON, strings.Replace(inEndpoints("a", "2", 9), "10.0.0.1", "10.0.0.2", 1), "more"},
		{"of the addresses, as Patroni does", "PATCH", endpoints, strategic, strings.TrimSuffix(patroni("a", "2", 9), "}") + `,"subsets":[]}`, "invalid"},
		{"as a deletion", "DELETE", configMap, asJSON, "", "other"},
		{"as a creation", "POST", strings.TrimSuffix(configMap, "/web"), asJSON, inConfigMap("a", "2", 9), "ordinary"},
		{"of an object without a lock", "PUT", strings.Replace(configMap, "web", "plain", 1), asJSON, `{}`, "ordinary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newAnnotationHolder(t)
			g.exchange("GET", strings.Replace(configMap, "web", "plain", 1), "", 200, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"plain","namespace":"shop","annotations":{"leader":"x"}}}`)
			g.want(g.locked(tt.method, tt.path, tt.contentType, tt.body), tt.want)
		})
	}
}

func TestALockInAnnotationsExpires(t *testing.T) {
	g := newAnnotationHolder(t)
	renew := func(second int) string { return g.locked("PATCH", endpoints, strategic, patroni("a", "2", second)) }
	answers := func() bool { return g.Answers(write.Request{Principal: "me", Info: parse("PATCH", endpoints)}) }
	g.advance(14 * time.Second)
	g.want(renew(20), "a@2 20")
	g.advance(14 * time.Second)
	// That the log has grown renews nothing.
	g.want(g.locked("PATCH", endpoints, strategic, `{"metadata":{"annotations":{"optime":"9"}}}`), "a@2 20")
	g.want(g.locked("PUT", configMap, asJSON, inConfigMap("a", "2", 20)), "expired")
	if !answers() {
		t.Error("a write of a held lock waits for the link")
	}
	g.advance(time.Second)
	if answers() {
		t.Error("a write of an expired lock does not wait for the link")
	}
	g.want(renew(30), "expired")
	g.want(renew(31), "unheld")
}

func TestAReaderDoesNotHoldALockInAnnotations(t *testing.T) {
	for name, do := range map[string]func(g *harness){
		"a GET": func(g *harness) { g.exchange("GET", configMap, "", 200, inConfigMap("a", "2", 1)) },
		"a patch of data": func(g *harness) {
			g.exchange("GET", configMap, "", 200, inConfigMap("a", "1", 1))
			g.exchangeAs("me", "PATCH", configMap, strategic, `{"data":{"x":"y"}}`, 200, inConfigMap("a", "2", 1))
		},
		"an update of data that carries the lock along": func(g *harness) {
			g.exchange("GET", configMap, "", 200, inConfigMap("a", "1", 1))
			g.exchange("PUT", configMap, inConfigMap("a", "1", 1), 200, inConfigMap("a", "2", 1))
		},
		"a lock that is gone": func(g *harness) {
			g.exchange("PUT", configMap, inConfigMap("a", "1", 1), 200, inConfigMap("a", "2", 1))
			g.exchange("GET", configMap, "", 200, strings.Replace(inConfigMap("a", "2", 1), recordAnnotation, "x", 1))
		},
	} {
		g := newHarness(t)
		do(g)
		if got := g.locked("PUT", configMap, asJSON, inConfigMap("a", "2", 9)); got != "unheld" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestALockIsNotRenewedBehindWhatAWatchHasShown(t *testing.T) {
	for _, tt := range []struct {
		name, recorded string
		err            error
		version, want  string
	}{
		{"the same state", inConfigMap("a", "2", 1), nil, "2", "a@2 09"},
		{"an older state", inConfigMap("b", "1", 1), nil, "2", "a@2 09"},
		{"nothing is recorded", "", errors.New("not recorded"), "2", "a@2 09"},
		{"another holder", inConfigMap("b", "3", 5), nil, "3", "unheld"},
		{"other data, at the former version", inConfigMap("a", "3", 1), nil, "2", "Conflict"},
		{"other data, at its version", inConfigMap("a", "3", 1), nil, "3", "a@3 09"},
		{"it was deleted", "", apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, "web"), "2", "unheld"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newAnnotationHolder(t)
			q := write.Request{
				Principal: "me", Info: parse("PUT", configMap), ContentType: asJSON, Body: []byte(inConfigMap("a", tt.version, 9)),
				Recorded: func(context.Context) ([]byte, error) { return []byte(tt.recorded), tt.err },
			}
			resp, err := g.Accept(t.Context(), q)
			var got string
			switch {
			case apierrors.IsConflict(err):
				got = "Conflict"
			case err != nil:
				got = result(err)
			default:
				raw, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				got = lockIn(t, raw)
			}
			g.want(got, tt.want)
		})
	}
}

func TestRecordsOfEveryLibraryAreRead(t *testing.T) {
	for _, tt := range []struct {
		name, record string
		want         lockRecord
	}{
		{"client-go", `{"holderIdentity":"a","leaseDurationSeconds":15,"acquireTime":"x","renewTime":"2024-01-01T00:00:00Z","leaderTransitions":1}`, lockRecord{"a", 15 * time.Second, "2024-01-01T00:00:00Z"}},
		{"Python", `{"holderIdentity":"a","leaseDurationSeconds":"17","acquireTime":"2024-01-01 00:00:00.5","renewTime":"2024-01-01 00:00:01.5"}`, lockRecord{"a", 17 * time.Second, "2024-01-01 00:00:01.5"}},
		{"fabric8", `{"holderIdentity":"a","leaseDuration":15.000000000,"renewTime":"2024-01-01T00:00:00.000000Z"}`, lockRecord{"a", 15 * time.Second, "2024-01-01T00:00:00.000000Z"}},
		{"fabric8 in ISO 8601", `{"holderIdentity":"a","leaseDuration":"PT1M0.5S","renewTime":1704067200}`, lockRecord{"a", 60500 * time.Millisecond, "1704067200"}},
		{"released", `{"holderIdentity":"","leaseDurationSeconds":1,"renewTime":"x"}`, lockRecord{"", time.Second, "x"}},
		{"a negative duration", `{"holderIdentity":"a","leaseDurationSeconds":-1,"renewTime":"x"}`, lockRecord{"a", 0, "x"}},
		{"a negative ISO duration", `{"holderIdentity":"a","leaseDuration":"PT-1S","renewTime":"x"}`, lockRecord{"a", 0, "x"}},
		{"an endless duration", `{"holderIdentity":"a","leaseDurationSeconds":"Inf","renewTime":"x"}`, lockRecord{"a", 0, "x"}},
		{"no duration", `{"holderIdentity":"a","leaseDurationSeconds":"NaN","renewTime":"x"}`, lockRecord{"a", 0, "x"}},
		{"no JSON", `x`, lockRecord{}},
		{"a list", `[]`, lockRecord{}},
	} {
		if got := parseRecord(tt.record); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// FuzzParseRecord looks for a record that breaks the reader, or lasts a negative time.
func FuzzParseRecord(f *testing.F) {
	f.Add(`{"holderIdentity":"a","leaseDurationSeconds":15,"renewTime":"2024-01-01T00:00:00Z"}`)
	f.Add(`{"holderIdentity":"a","leaseDuration":"PT9999999999999H","renewTime":1}`)
	f.Add(`{"leaseDuration":{"a":[1e999]}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		if r := parseRecord(raw); r.duration < 0 {
			t.Fatalf("%q lasts %v", raw, r.duration)
		}
	})
}

// FuzzRenewAnnotations looks for a write that changes the holder of a lock, or more of its object.
func FuzzRenewAnnotations(f *testing.F) {
	f.Add("PUT", asJSON, []byte(inConfigMap("a", "2", 9)))
	f.Add("PUT", asJSON, []byte(strings.Replace(inConfigMap("a", "2", 9), `"b"`, `null`, 1)))
	f.Add("PATCH", strategic, []byte(`{"metadata":{"annotations":{"leader":"b","ttl":"1","renewTime":"x"}}}`))
	f.Add("PATCH", "application/merge-patch+json", []byte(`{"data":{"a":null},"metadata":{"labels":{}}}`))
	f.Add("PUT", asBinary, []byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, method, contentType string, body []byte) {
		if method != "PUT" && method != "PATCH" {
			return
		}
		g := newAnnotationHolder(t)
		resp, err := g.Accept(t.Context(), write.Request{Principal: "me", Info: parse(method, configMap), ContentType: contentType, Body: body})
		if err != nil {
			return
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var cm corev1.ConfigMap
		if err := json.Unmarshal(raw, &cm); err != nil {
			t.Fatal(err)
		}
		if cm.Data["a"] != "b" || len(cm.Data) != 1 || len(cm.BinaryData)+len(cm.Labels)+len(cm.Finalizers)+len(cm.OwnerReferences) > 0 || cm.Immutable != nil ||
			cm.Name != "web" || cm.Namespace != "shop" || cm.UID != "u" || cm.ResourceVersion != "2" || cm.Annotations["other"] != "stays" || parseRecord(cm.Annotations[recordAnnotation]).holder != "a" {
			t.Fatalf("%s %s gives %s", method, body, raw)
		}
	})
}
