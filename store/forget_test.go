package store

import "testing"

func TestAListAnswersBesideAnEvictedOneOfItsVersionUnlessTheyContradict(t *testing.T) {
	shop, all := scope("shop"), scope("")
	shop.MediaType, all.MediaType = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	named, selected := shop, shop
	named.FieldSelector, selected.LabelSelector = "metadata.name=b", "app=web"
	recreated := object("a", 5)
	recreated.UID = "another"
	for name, tt := range map[string]struct {
		evicted Scope
		objects []Object
		answers bool
	}{
		"it has the same":                                    {shop, []Object{object("a", 5)}, true},
		"it has the same in all namespaces":                  {all, []Object{object("a", 5)}, true},
		"it selects none of them":                            {selected, nil, true},
		"it lacks the name that it selects, as the other":    {named, nil, true},
		"it has another version of an object":                {shop, []Object{object("a", 6)}, false},
		"it has another object of the name":                  {shop, []Object{recreated}, false},
		"it lacks one":                                       {shop, nil, false},
		"it has one more":                                    {all, []Object{object("a", 5), object("b", 6)}, false},
		"it has the name that it selects, and the other not": {named, []Object{object("b", 6)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			db := openAt(t, t.TempDir(), Options{})
			record(t, db, scope("shop"), "10", object("a", 5))
			record(t, db, tt.evicted, "10", tt.objects...)
			newer, _ := complete(t, db, tt.evicted)
			update(t, db, func(tx *Tx) error { return tx.Forget(newer) })
			c, _ := complete(t, db, scope("shop"))
			by, err := db.Overtaken(t.Context(), c, everything)
			if err != nil || (by == "") != tt.answers {
				t.Errorf("it is overtaken by %q: %v", by, err)
			}
		})
	}
}
