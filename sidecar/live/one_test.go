package live

import (
	"errors"
	"strings"
	"testing"

	"rockpool.dev/store"
)

func TestAListOfOneItemIsRead(t *testing.T) {
	const head = `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":`
	const item = `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}`
	for name, c := range map[string]struct {
		body    string
		version string // empty: it is refused
		objects int
		named   string
	}{
		"the first of more":           {head + `{"resourceVersion":"12","continue":"c","remainingItemCount":9},"items":[` + item + `]}`, "12", 10, "a"},
		"the first of nobody knows":   {head + `{"resourceVersion":"12","continue":"c"},"items":[` + item + `]}`, "12", -1, "a"},
		"the only one":                {head + `{"resourceVersion":"12"},"items":[` + item + `]}`, "12", 1, "a"},
		"none":                        {head + `{"resourceVersion":"12"},"items":[]}`, "12", 0, ""},
		"more than was asked for":     {head + `{"resourceVersion":"12"},"items":[` + item + `,` + item + `]}`, "", 0, ""},
		"a version that is no number": {head + `{"resourceVersion":"new"},"items":[]}`, "", 0, ""},
		"no version":                  {head + `{},"items":[]}`, "", 0, ""},
		"no list":                     {`{"kind":"Status","apiVersion":"v1","metadata":{}}`, "", 0, ""},
		"a body that broke off":       {head + `{"resourceVersion":"12"},"items":[` + item, "", 0, ""},
		"nothing":                     {"", "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOne(nil, strings.NewReader(c.body))
			switch {
			case c.version == "" && !errors.Is(err, errRefused):
				t.Errorf("%+v, %v; want it refused", o, err)
			case c.version == "":
			case err != nil || o.version != c.version || o.objects != c.objects || (o.item == nil) != (c.named == ""):
				t.Errorf("%+v, %v", o, err)
			case o.item != nil && (o.item.Name != c.named || o.item.UID != "u" || o.item.ResourceVersion != "5"):
				t.Errorf("%+v", o.item)
			}
		})
	}
}

func FuzzOne(f *testing.F) {
	f.Add(`{"kind":"PodList","metadata":{"resourceVersion":"12","remainingItemCount":9},"items":[{"metadata":{"name":"a"}}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		o, err := parseOne(nil, strings.NewReader(body))
		if _, ok := store.ParseVersion(o.version); err == nil && !ok {
			t.Errorf("accepted without a version: %+v", o)
		}
	})
}

func TestAListOfOneItemIsCompared(t *testing.T) {
	parsed := func(count string) one {
		o, err := parseOne(nil, strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12","continue":"c"`+count+
			`},"items":[{"metadata":{"name":"a","namespace":"shop","uid":"u","resourceVersion":"5"}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	for name, c := range map[string]struct {
		one          one
		changed      string
		objects      int
		uid, version string
		agrees       bool
	}{
		"the same":                                         {parsed(`,"remainingItemCount":2`), "11", 3, "u", "5", true},
		"the number is not known":                          {parsed(""), "11", 7, "u", "5", true},
		"another number":                                   {parsed(`,"remainingItemCount":2`), "11", 4, "u", "5", false},
		"the object is another one":                        {parsed(""), "11", 3, "v", "5", false},
		"the object has another version":                   {parsed(""), "11", 3, "u", "6", false},
		"the object is not recorded":                       {parsed(""), "11", 3, "", "", false},
		"it has changed since, so nobody can tell":         {parsed(""), "13", 9, "u", "13", true},
		"others have changed since":                        {parsed(`,"remainingItemCount":2`), "13", 9, "u", "5", true},
		"others have changed since, and it is another one": {parsed(""), "13", 9, "v", "4", false},
		"it was deleted since":                             {parsed(""), "13", 2, "", "", true},
		"it has changed at the same version":               {parsed(""), "12", 3, "u", "12", false},
	} {
		t.Run(name, func(t *testing.T) {
			collection := store.Collection{Changed: c.changed, ListVersion: "3"}
			err := c.one.agrees(&collection, c.objects, func(k store.Key) (string, string, error) {
				if k != (store.Key{Namespace: "shop", Name: "a"}) {
					t.Errorf("asked for %v", k)
				}
				return c.uid, c.version, nil
			})
			want := errContradiction
			if name == "another number" {
				want = errCount
			}
			if (err == nil) != c.agrees || err != nil && !errors.Is(err, want) {
				t.Error(err)
			}
		})
	}
}

func TestAnObjectThatTheAPIServerHasNotIsCompared(t *testing.T) {
	o, err := parseOne(nil, strings.NewReader(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"12"},"items":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	for version, agrees := range map[string]bool{"": true, "9": false, "13": true} {
		err := o.agreesAbout(store.Key{Name: "a"}, &store.Collection{Changed: "11"}, func(store.Key) (string, string, error) {
			if version == "" {
				return "", "", nil
			}
			return "u", version, nil
		})
		if (err == nil) != agrees {
			t.Errorf("recorded at %q: %v", version, err)
		}
	}
}
