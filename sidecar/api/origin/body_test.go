package origin

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

// tracked is a body that notes that it was closed.
type tracked struct {
	io.Reader
	closed int
}

func (b *tracked) Close() error { b.closed++; return nil }

func TestEveryByteOfABodyReachesTheClientWhoseverItIs(t *testing.T) {
	broke := errors.New("the link broke")
	readers := map[string]func(string) io.Reader{
		"at once":         func(s string) io.Reader { return strings.NewReader(s) },
		"with the end":    func(s string) io.Reader { return iotest.DataErrReader(strings.NewReader(s)) },
		"byte by byte":    func(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) },
		"until it breaks": func(s string) io.Reader { return io.MultiReader(strings.NewReader(s), iotest.ErrReader(broke)) },
		"half by half":    func(s string) io.Reader { return iotest.HalfReader(strings.NewReader(s)) },
		"broken with data": func(s string) io.Reader {
			return iotest.DataErrReader(io.MultiReader(strings.NewReader(s), iotest.ErrReader(broke)))
		},
	}
	for name, tt := range answers(t) {
		for how, reader := range readers {
			for _, waits := range []bool{false, true} {
				body := &tracked{Reader: reader(tt.body)}
				resp := &http.Response{StatusCode: tt.status, Header: tt.header, Body: body, ContentLength: -1}
				believed := 0
				var replaced *tracked
				if waits {
					if FromAPIServer(resp) {
						believed++
					}
				} else {
					OnAPIServer(resp, func(believable *http.Response) {
						believed++
						replaced = &tracked{Reader: believable.Body}
						believable.Body = replaced
					})
				}
				var end error
				if strings.Contains(how, "br") {
					end = broke
				}
				got, err := io.ReadAll(resp.Body)
				if string(got) != tt.body || !errors.Is(err, end) {
					t.Errorf("%s, %s: %d bytes of %d: %v", name, how, len(got), len(tt.body), err)
				}
				if want := map[Verdict]int{APIServer: 1}[tt.want]; believed != want {
					t.Errorf("%s, %s: believed %d times", name, how, believed)
				}
				if err := resp.Body.Close(); err != nil || (replaced == nil && body.closed != 1) || (replaced != nil && replaced.closed != 1) {
					t.Errorf("%s, %s: the body is not closed: %v", name, how, err)
				}
			}
		}
	}
}

func TestABodyWithAnAuditIDIsNotTouched(t *testing.T) {
	body := &tracked{Reader: iotest.ErrReader(errors.New("read"))}
	resp := &http.Response{StatusCode: 200, Header: audited, Body: body}
	called := false
	OnAPIServer(resp, func(r *http.Response) { called = r == resp })
	if !called || !FromAPIServer(resp) || resp.Body != body {
		t.Error("it is not believed as it is")
	}
}

func TestAClientThatStopsAtTheKnownLengthHasReadItAll(t *testing.T) {
	// The kind shows only with the last byte.
	const body = `{"apiVersion":"v1","kind":"Status"`
	resp := &http.Response{StatusCode: 200, Body: &tracked{Reader: io.MultiReader(strings.NewReader(body), blocked{})}, ContentLength: int64(len(body))}
	OnAPIServer(resp, func(*http.Response) {})
	got := make([]byte, len(body))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != body {
		t.Errorf("%s %v", got, err)
	}
	const page = `{"error":"x"`
	resp = &http.Response{StatusCode: 200, Body: &tracked{Reader: io.MultiReader(strings.NewReader(page), blocked{})}, ContentLength: int64(len(page))}
	if FromAPIServer(resp) {
		t.Error("a page is believed")
	}
}

// blocked never gives a byte.
type blocked struct{}

func (blocked) Read([]byte) (int, error) { select {} }

func TestCloseEndsAReadThatWaitsForTheFirstBytes(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	reading := make(chan struct{})
	resp := &http.Response{StatusCode: 200, Body: &announced{r, reading}, ContentLength: -1}
	OnAPIServer(resp, func(*http.Response) { t.Error("nothing was said") })
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := resp.Body.Read(make([]byte, 10)); err == nil {
			t.Error("it goes on")
		}
	})
	<-reading
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if _, err := resp.Body.Read(make([]byte, 10)); err == nil {
		t.Error("it can be read after Close")
	}
}

// announced closes a channel when it is read.
type announced struct {
	io.ReadCloser
	reading chan struct{}
}

func (b *announced) Read(p []byte) (int, error) { close(b.reading); return b.ReadCloser.Read(p) }

func TestABodyPassesAsItComes(t *testing.T) {
	for text, first := range map[string]int{
		"<html> and more later":                     1,
		`{"error":"x"} and more later`:              13,
		`{"kind":"ConfigMapList","apiVersion":"v1"`: 41,
		added: len(added) - 3,
	} {
		r, w := io.Pipe()
		resp := &http.Response{StatusCode: 200, Body: r, ContentLength: -1}
		OnAPIServer(resp, func(*http.Response) {})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.WriteString(w, text[:first]) })
		got := make([]byte, first)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != text[:first] {
			t.Errorf("%s: %q %v", text, got, err)
		}
		wg.Wait()
		resp.Body.Close()
	}
}
