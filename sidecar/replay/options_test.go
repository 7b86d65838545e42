package replay

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"rockpool.dev/sidecar/api/request"
)

// What is refused offline is what the API server refuses (k8s.io/apiserver, handlers.ListResource).
// It sets no defaults here, as only newer ones do.
func TestTheParametersThatAreRefusedAreThoseOfTheAPIServer(t *testing.T) {
	none := []string{"\x00"} // not set
	for _, path := range []string{"/api/v1/namespaces/shop/pods", "/api/v1/watch/namespaces/shop/pods", "/api/v1/watch/namespaces/shop/pods/web"} {
		for _, watch := range append(none, "", "true", "false", "0", "1") {
			for _, version := range append(none, "", "0", "9") {
				for _, match := range append(none, "", "Exact", "NotOlderThan", "exact") {
					for _, initial := range append(none, "", "true", "false") {
						for _, next := range append(none, "", "x") {
							query := url.Values{}
							for name, value := range map[string]string{"watch": watch, "resourceVersion": version, "resourceVersionMatch": match, "sendInitialEvents": initial, "continue": next} {
								if value != none[0] {
									query.Set(name, value)
								}
							}
							compareOptions(t, path+"?"+query.Encode())
						}
					}
				}
			}
		}
	}
}

func compareOptions(t *testing.T, target string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	var theirs internalversion.ListOptions
	if err := scheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, &theirs); err != nil {
		t.Fatal(err)
	}
	want := ""
	if errs := validation.ValidateListOptions(&theirs, true); len(errs) > 0 {
		want = apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs).Error()
	}
	info := request.Parse(r)
	got := ""
	if err := checkOptions(&info); err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%s\ngot  %s\nwant %s", target, got, want)
	}
}
