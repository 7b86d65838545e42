package manifest

import (
	"strings"
	"testing"
)

// People forget the quotes. The decoder's own error would name a field of a Go type.
func TestAnAnnotationOrLabelThatIsNoTextIsNamed(t *testing.T) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop",META},"spec":{"containers":[{"name":"a"}]}}`
	const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"metadata":{META},"spec":{"containers":[{"name":"a"}]}}}}`
	for name, tt := range map[string]struct{ object, meta, want string }{
		"a boolean":               {pod, `"annotations":{"rockpool.dev/inject":true}`, "Pod shop/web: metadata.annotations: rockpool.dev/inject: must be a text, not true; put the value in quotes"},
		"a number of a template":  {deployment, `"annotations":{"rockpool.dev/port":20000}`, "Deployment web: spec.template.metadata.annotations: rockpool.dev/port: must be a text, not 20000"},
		"a label":                 {pod, `"labels":{"version":1.5}`, "metadata.labels: version: must be a text, not 1.5"},
		"a mapping":               {pod, `"annotations":{"a":{}}`, "metadata.annotations: a: must be a text"},
		"all of them":             {pod, `"annotations":{"a":1,"b":true}`, "b: must be a text, not true"},
		"null, which is no error": {pod, `"annotations":{"a":null},"labels":null`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pods, err := podsIn([]byte(strings.Replace(tt.object, "META", tt.meta, 1)))
			if tt.want == "" && (err != nil || len(pods) != 1) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%d pods, %v", len(pods), err)
			}
		})
	}
}

// kubectl get --raw gives typed lists, whose items have no kind.
func TestItemsOfATypedListHaveItsKind(t *testing.T) {
	const pod = `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"a"}]}}`
	for name, tt := range map[string]struct{ list, want string }{
		"a PodList":                      {`{"apiVersion":"v1","kind":"PodList","items":[` + pod + `]}`, "Pod web"},
		"a DeploymentList":               {`{"apiVersion":"apps/v1","kind":"DeploymentList","items":[{"metadata":{"name":"web"},"spec":{"template":` + pod + `}}]}`, "Deployment web"},
		"a DeploymentList of another":    {`{"apiVersion":"example.com/v1","kind":"DeploymentList","items":[{"metadata":{"name":"web"},"spec":{"template":` + pod + `}}]}`, ""},
		"an item with a kind of its own": {`{"apiVersion":"apps/v1","kind":"DeploymentList","items":[{"kind":"Pod","apiVersion":"v1",` + pod[1:] + `]}`, "Pod web"},
		"a List":                         {`{"apiVersion":"v1","kind":"List","items":[` + pod + `]}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pods, err := podsIn([]byte(tt.list))
			got := ""
			for _, p := range pods {
				got += p.String()
			}
			if err != nil || got != tt.want {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
