package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// TestEveryQueryUsesAnIndex runs the operations of the recorder and the replayer and looks at the
// plan of each statement that they have sent. A table with many rows must not be read as a whole.
func TestEveryQueryUsesAnIndex(t *testing.T) {
	db := openAt(t, t.TempDir(), Options{})
	var sent statementLog
	sent.watch(t, db)
	s := scope("shop")
	selected := s
	selected.LabelSelector = "app=web"
	record(t, db, s, "100", object("a", 1), object("b", 2))
	record(t, db, selected, "90", object("a", 1))
	record(t, db, s, "200", object("a", 3))
	for _, end := range []func(*Snapshot, *Tx) error{
		func(list *Snapshot, tx *Tx) error { return list.GiveUp(tx, scope(""), "ConfigMap", "v1") },
		func(list *Snapshot, tx *Tx) error { return list.Split(tx, scope(""), "ConfigMap", "v1") },
	} {
		list := NewSnapshot(s, asked(db))
		update(t, db, func(tx *Tx) error {
			return errors.Join(list.Add(tx, object("a", 3)), list.Add(tx, object("d", 4)), end(list, tx))
		})
	}
	record(t, db, s, "210", object("a", 3))
	res, key := s.Of(), Key{"shop", "a"}
	answer := Response{Principal: s.Principal, Path: "/apis", Body: []byte("{}")}
	now := func(says Says, version string) Evidence {
		return Evidence{Says: says, Version: version, Asked: db.Next(), Told: db.Next(), Read: Latest}
	}
	single := scope("")
	err := db.Update(t.Context(), func(tx *Tx) error {
		c, err := tx.Collection(s, Complete)
		_, errComplete := tx.Complete(res, "shop")
		_, _, errVersion := tx.Version(c.ID, "shop", "a")
		_, errSingles := tx.evictSingles(0, 1)
		_, errResponses := tx.evictResponses(0, 1)
		return errors.Join(err, errComplete, errVersion,
			putSingle(tx, single, object("c", 5)), putSingle(tx, single, object("c", 6)), putSingle(tx, single, object("c", 6)),
			tx.PutEvent(c.ID, s, object("a", 300)), tx.RemoveEvent(c.ID, s, key, now(Gone, "301")),
			tx.Advance(c.ID, Move{ResourceVersion: "301"}), tx.Use(c.ID),
			tx.Observe(res, Key{"shop", "c"}, now(Gone, "")), tx.Observe(res, Key{"shop", "c"}, now(Unknown, "")),
			tx.Observe(res, Key{Namespace: "shop"}, now(Unknown, "")), tx.dropObservation(res, key),
			tx.DropRolledBack(s, now(Present, "1")),
			tx.PutResponse(answer), tx.RenewResponse(s.Principal, "/apis", "", "e", 1), tx.RemoveResponse(s.Principal, "/api"),
			tx.RemoveResponsesBelow(s.Principal, "/api"), tx.RemoveNotFound(s.Principal, "/api"), tx.ReplaceResponses(s.Principal, "/api", "/api?x"),
			tx.ForgetReviews(time.Unix(0, 0), 1), errSingles, errResponses)
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := db.Collections(t.Context(), s.Principal, "", "v1", "configmaps")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	whole := Selection{Labels: func(string) (bool, error) { return true, nil }, Matches: func(string, string) (bool, error) { return true, nil }}
	for _, c := range all {
		_, errOvertaken := db.Overtaken(t.Context(), c, whole)
		_, errList := db.List(t.Context(), c.ID, c.Revision, Range{Namespace: "shop"}, func(Object) error { return nil })
		_, errAll := db.List(t.Context(), c.ID, c.Revision, Range{}, func(Object) error { return nil })
		errMeasure := db.Measure(t.Context(), c.ID, c.Revision, Range{}, func(string, int, int) error { return nil })
		if err := errors.Join(errOvertaken, errList, errAll, errMeasure); err != nil {
			t.Fatal(err)
		}
	}
	_, errKnown := db.Known(t.Context(), res, key, "", "")
	_, errTag := db.ETag(t.Context(), s.Principal, "/apis", "")
	_, errAnswer := db.Response(t.Context(), s.Principal, "/apis", "")
	_, errEvict := db.Evict(t.Context(), 0, func(Collection) bool { return false })
	if err := errors.Join(errKnown, ignoreNotFound(errTag), ignoreNotFound(errAnswer), errEvict); err != nil {
		t.Fatal(err)
	}
	for _, query := range sent.texts() {
		for _, step := range plan(t, db, query) {
			// The sum of all sizes reads a covering index; LIMIT ends the one of the largest.
			scan := strings.HasPrefix(step, "SCAN") && !strings.HasPrefix(step, "SCAN response USING") && !strings.HasPrefix(step, "SCAN json_each ") && step != "SCAN namespaces" && step != "SCAN CONSTANT ROW"
			fromTheStart := strings.HasSuffix(query, " ORDER BY namespace, name LIMIT ?") && !strings.Contains(step, ">")
			if scan || fromTheStart {
				t.Errorf("%s: %s", strings.Join(strings.Fields(query), " "), step)
			}
		}
	}
	if len(sent.texts()) < 50 {
		t.Errorf("%d statements were looked at; the operations have more", len(sent.texts()))
	}
}

// plan is SQLite's plan of a statement; empty for a pragma.
func plan(t *testing.T, db *DB, query string) (steps []string) {
	t.Helper()
	explain := `EXPLAIN QUERY PLAN ` + query
	var parameters int
	conn, err := db.file.write.Conn(t.Context())
	if err == nil {
		err = conn.Raw(func(c any) error {
			stmt, err := c.(driver.ConnPrepareContext).PrepareContext(t.Context(), explain)
			if err != nil {
				return err
			}
			parameters = stmt.NumInput()
			return stmt.Close()
		})
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	rows, err := db.file.write.Query(explain, make([]any, parameters)...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, detail)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return steps
}

// statementLog notes the statements that a database is sent.
type statementLog struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

// watch opens the connections of a database again, so that their statements are noted.
func (l *statementLog) watch(t *testing.T, db *DB) {
	t.Helper()
	l.seen = map[string]struct{}{}
	f := db.file
	if err := errors.Join(f.stmts.close(), f.read.Close(), f.write.Close()); err != nil {
		t.Fatal(err)
	}
	f.write = sql.OpenDB(noting{connector{dsn: dsn(db.path, "_txlock=immediate"), pragmas: []string{"PRAGMA foreign_keys = ON"}}, l})
	f.write.SetMaxOpenConns(1)
	f.read = sql.OpenDB(noting{connector{dsn: dsn(db.path, ""), reader: true}, l})
	var err error
	if f.stmts, err = prepareStatements(t.Context(), f.write); err != nil {
		t.Fatal(err)
	}
}

func (l *statementLog) note(query string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[query] = struct{}{}
}

// texts are the statements that read or change rows.
func (l *statementLog) texts() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for query := range l.seen {
		switch word, _, _ := strings.Cut(query, " "); word {
		case "SELECT", "INSERT", "UPDATE", "DELETE":
			if !strings.Contains(query, "pragma_") {
				out = append(out, query)
			}
		}
	}
	return out
}

type noting struct {
	connector
	log *statementLog
}

func (n noting) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := n.connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return notingConn{conn.(*sqlite3.SQLiteConn), n.log}, nil
}

type notingConn struct {
	*sqlite3.SQLiteConn
	log *statementLog
}

func (c notingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.log.note(query)
	return c.SQLiteConn.QueryContext(ctx, query, args)
}

func (c notingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.log.note(query)
	return c.SQLiteConn.ExecContext(ctx, query, args)
}

func (c notingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.log.note(query)
	return c.SQLiteConn.PrepareContext(ctx, query)
}
