package store

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestSpansOfNamespacesAreInTheOrderOfTheAPIServer(t *testing.T) {
	for _, tt := range []struct {
		name       string
		namespaces string
		want       []span
	}{
		{"none", "", nil},
		{"one", "shop", []span{{"shop", "shop"}}},
		{"in the order of the index", "a default kube-system", []span{{"a", "kube-system"}}},
		{"one begins with another one and a hyphen", "a shop shop-a z", []span{{"a", "a"}, {"shop-a", "shop-a"}, {"shop", "shop"}, {"z", "z"}}},
		{"one begins with another one and a digit", "shop shop1", []span{{"shop", "shop1"}}},
		{
			"one in the other", "s s-a s-a-b s-b s0",
			[]span{{"s-a-b", "s-a-b"}, {"s-a", "s-a"}, {"s-b", "s-b"}, {"s", "s"}, {"s0", "s0"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := spans(strings.Fields(tt.namespaces)); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestAListOfSeveralNamespacesIsInTheOrderOfTheAPIServer(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		var objects []Object
		for range 1 + random.IntN(12) {
			namespace := "s"
			for range random.IntN(3) {
				namespace += []string{"-a", "-0", "a", "0", "-"}[random.IntN(5)]
			}
			for i := range 1 + random.IntN(400) {
				o := object(fmt.Sprintf("o%d", i), 1)
				if o.Namespace = namespace + "z"; random.IntN(2) == 0 {
					o.Namespace = namespace + "-z"
				}
				objects = append(objects, o)
			}
		}
		key := func(o Object) string { return o.Namespace + "/" + o.Name }
		slices.SortFunc(objects, func(a, b Object) int { return cmp.Compare(key(a), key(b)) })
		objects = slices.CompactFunc(objects, func(a, b Object) bool { return key(a) == key(b) })
		db := openAt(t, t.TempDir(), Options{})
		recordInGroups(t, db, scope(""), objects)
		c, err := db.Collections(t.Context(), scope("").Principal, "", "v1", "configmaps")
		if err != nil || len(c) != 1 {
			t.Fatal(c, err)
		}
		for _, payloads := range []bool{false, true} {
			var got []Object
			for r, more := (Range{Payloads: payloads}), true; more; more = r.After != nil {
				r.After, err = db.List(t.Context(), c[0].ID, c[0].Revision, r, func(o Object) error {
					got = append(got, Object{Namespace: o.Namespace, Name: o.Name})
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if !slices.EqualFunc(got, objects, func(a, b Object) bool { return key(a) == key(b) }) {
				t.Errorf("seed %d: %d objects, want %d in the order of their keys", seed, len(got), len(objects))
			}
		}
	}
}
