package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The one-liners of docs/cache.md run in the machine's sqlite3 shell, while the cache is open.
func TestTheDocumentedOneLinersWork(t *testing.T) {
	now := time.Now().UTC()
	hourAgo := now.Add(-90 * time.Minute)
	at := hourAgo
	db, err := Open(t.Context(), t.TempDir(), Options{Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	greeting := object("greeting", 9)
	greeting.Payload = []byte(`{"metadata":{"name":"greeting"},"data":{"value":"hello"}}`)
	greeting.Labels = `{"app":"web"}`
	record(t, db, scope("shop"), "10", object("old", 1))
	update(t, db, func(tx *Tx) error { return tx.PutLink("offline", "no route") })
	at = now
	update(t, db, func(tx *Tx) error { return tx.PutLink("online", "connected") })
	binary := scope("shop")
	binary.MediaType = "application/vnd.kubernetes.protobuf"
	p := greeting
	p.Encoding, p.Payload = Protobuf, []byte{10, 0}
	binary.LabelSelector = "app=web"
	record(t, db, binary, "10", p)
	update(t, db, func(tx *Tx) error {
		if err := putSingle(tx, scope(""), greeting); err != nil {
			return err
		}
		for key, says := range map[Key]Says{{"shop", "removed"}: Gone, {"bar", ""}: Refused} {
			e := asked(db)
			e.Says = says
			if err := tx.Observe(scope("").Of(), key, e); err != nil {
				return err
			}
		}
		if err := tx.PutRate(Rate{Servers: near, BytesPerSecond: 4_000_000}); err != nil {
			return err
		}
		return tx.PutResponse(doc("/apis", `"1"`, "groups"))
	})
	enqueue(t, db, queued("e", "{}", ""))

	stamp := now.Format(time.DateTime)
	wants := []string{
		"v1/configmaps|shop|complete|1|",
		"v1/configmaps|shop|90\n",
		stamp + "|configmaps|shop|greeting|9",
		stamp + "|configmaps|shop|removed",
		"configmaps|3|",
		"|configmaps|shop|greeting",
		"|0",
		"v1/configmaps||single objects|1",
		stamp + "|configmaps|bar||refused",
		string(greeting.Payload),
		"greeting|hello",
		"configmaps|shop|greeting",
		"system:serviceaccount:shop:web|2",
		hourAgo.Format(time.DateTime) + "|5400|no route",
		"/apis|6|" + stamp,
		stamp + `|{"servers":["https://192.0.2.1:6443","https://10.96.0.1:443"],"bytes_per_second":4000000}`,
		"|" + eventsPath + "|e",
	}
	page, err := os.ReadFile("../docs/cache.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^sqlite3 -readonly .*$`).FindAllString(string(page), -1)
	if len(lines) != len(wants) {
		t.Fatalf("the page has %d one-liners, and there are %d expectations", len(lines), len(wants))
	}
	for i, line := range lines {
		cmd := exec.Command("bash", "-c", line)
		cmd.Dir = filepath.Dir(db.Path())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), wants[i]) {
			t.Errorf("%s\nprints %q (%v), want %q", line, out, err, wants[i])
		}
		if i == 2 && strings.Contains(string(out), "old") {
			t.Errorf("an old object has changed in the last hour: %q", out)
		}
		if n := strings.Count(string(out), "|greeting"); n > 1 {
			t.Errorf("%s shows an object %d times", line, n)
		}
	}
}
