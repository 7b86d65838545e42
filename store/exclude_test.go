package store

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// secretive excludes ConfigMaps of the namespace shop, and a path.
type secretive struct{}

func (secretive) Scope(_, resource, namespace string) bool {
	return resource == "configmaps" && (namespace == "shop" || namespace == "")
}

func (secretive) Object(_, resource, namespace string) bool {
	return resource == "configmaps" && namespace == "shop"
}

func (secretive) Path(path string) bool {
	return strings.HasPrefix(path, "/api/v1/namespaces/shop/configmaps")
}

func TestWhatIsExcludedLeavesTheFile(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 16 << 20})
	marked := func(name, namespace, word string) Object {
		o := object(name, 1)
		o.Namespace = namespace
		o.Payload = []byte(`{"data":"` + strings.Repeat(word, 50) + `"}`)
		return o
	}
	record(t, db, scope("shop"), "100", marked("a", "shop", "hush-list"))
	record(t, db, scope(""), "100", marked("a", "shop", "hush-all"), marked("b", "office", "hush-beside"))
	record(t, db, scope("office"), "100", marked("b", "office", "open-list"))
	singles := scope("")
	update(t, db, func(tx *Tx) error { return putSingle(tx, singles, marked("c", "shop", "hush-single")) })
	update(t, db, func(tx *Tx) error { return putSingle(tx, singles, marked("d", "office", "open-single")) })
	update(t, db, func(tx *Tx) error {
		for _, path := range []string{"/api/v1/namespaces/shop/configmaps?limit=1", "/api/v1/namespaces/office/configmaps"} {
			if err := tx.PutResponse(doc(path, "", strings.Repeat("hush-response", 50))); err != nil {
				return err
			}
		}
		return nil
	})
	observe(t, db, Key{"shop", "hush-name"}, said(db, Gone, "100", Latest))
	checkpointedSize(t, db)
	before, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hush-list", "hush-single", "hush-name"} {
		if !bytes.Contains(before, []byte(word)) {
			t.Fatalf("%s is not in the file, so this test shows nothing", word)
		}
	}

	update(t, db, func(tx *Tx) error { return tx.Exclude(secretive{}, true) })
	if hasResponse(t, db, "/api/v1/namespaces/shop/configmaps?limit=1") || !hasResponse(t, db, "/api/v1/namespaces/office/configmaps") {
		t.Error("the wrong responses are left")
	}
	if _, names := complete(t, db, scope("office")); len(names) != 1 {
		t.Errorf("of the other namespace %q is left", names)
	}
	checkpointedSize(t, db)
	after, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hush-list", "hush-all", "hush-beside", "hush-single", "hush-name"} {
		if bytes.Contains(after, []byte(word)) {
			t.Errorf("%s is still in the file", word)
		}
	}
	for _, word := range []string{"open-list", "open-single"} {
		if !bytes.Contains(after, []byte(word)) {
			t.Errorf("%s is gone", word)
		}
	}
	// Nothing is known any more of what the client was told.
	if o, ok := observed(t, db, Key{"shop", ""}); !ok || o.Says != Unknown {
		t.Errorf("of the namespace is known: %+v, %v", o, ok)
	}
}

func TestToExcludeAgainChangesNothing(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{MaxSize: 16 << 20})
	record(t, db, scope("shop"), "100", object("a", 1))
	update(t, db, func(tx *Tx) error { return tx.Exclude(secretive{}, true) })
	before := changes(t, db)
	update(t, db, func(tx *Tx) error { return tx.Exclude(secretive{}, true) })
	if after := changes(t, db); after != before {
		t.Errorf("%d rows are written again", after-before)
	}
}
