package socket

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rockpool.dev/tests/eventually"
)

func TestEachEventIsAMessage(t *testing.T) {
	const one, two = `{"type":"ADDED","object":{"a":1}}`, `{"type":"DELETED","object":{}}`
	large := `{"type":"ADDED","object":{"a":"` + strings.Repeat("x", 200<<10) + `"}}`
	for _, c := range []struct {
		name, content string
		written, want []string
		kind          int
	}{
		{"JSON is text, with a line feed", "application/json", []string{one + "\n"}, []string{one + "\n"}, websocket.TextMessage},
		{"several events at once are several messages", "application/json", []string{one + "\n" + two + "\n"}, []string{one + "\n", two + "\n"}, websocket.TextMessage},
		{"an event in pieces is one message", "application/json", []string{one[:9], one[9:20], one[20:] + "\n" + two[:3], two[3:]}, []string{one + "\n", two + "\n"}, websocket.TextMessage},
		{"a large event is one message", "application/json;charset=utf-8", []string{large + "\n"}, []string{large + "\n"}, websocket.TextMessage},
		{"protobuf is binary, without its length", "application/vnd.kubernetes.protobuf;stream=watch", []string{"\x00\x00\x00\x03a\nb\x00\x00", "\x00\x01c"}, []string{"a\nb", "c"}, websocket.BinaryMessage},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			h.content = c.content
			conn := h.open()
			for _, text := range c.written {
				h.write(text)
			}
			for _, want := range c.want {
				if kind, got := h.message(conn); kind != c.kind || got != want {
					t.Errorf("message %d %.100q, want %d %.100q", kind, got, c.kind, want)
				}
			}
		})
	}
}

func TestTheWatchIsAnOrdinaryRequest(t *testing.T) {
	for _, target := range []string{path, "/api/v1/watch/namespaces/shop/configmaps/a?resourceVersion=5", "/apis/apps/v1/deployments?watch"} {
		h := start(t)
		if _, response, err := h.dial(target, http.Header{
			"Origin": {"https://elsewhere.example"}, "Authorization": {"Bearer secret"}, "User-Agent": {"fabric8"}, "Accept": {"application/json"},
		}); err != nil {
			t.Fatal(err, response)
		}
		r := eventually.Receive(t, "the watch", h.asked)
		want := http.Header{"Origin": {"https://elsewhere.example"}, "Authorization": {"Bearer secret"}, "User-Agent": {"fabric8"}, "Accept": {"application/json"}}
		if r.Method != http.MethodGet || r.URL.RequestURI() != target || len(r.Header) != len(want) {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		for name := range want {
			if r.Header.Get(name) != want.Get(name) {
				t.Errorf("%s: %q", name, r.Header.Get(name))
			}
		}
	}
}

type linkDown struct{}

func (linkDown) Error() string { return "the link is down" }
func (linkDown) Status() metav1.Status {
	return metav1.Status{Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "the link is down"}
}

func TestAnAnswerThatIsNoWatchIsTheAnswerToTheHandshake(t *testing.T) {
	const status = `{"kind":"Status","apiVersion":"v1","code":403}`
	for _, c := range []struct {
		name   string
		answer func(*http.Request) (*http.Response, error)
		code   int
		body   string
	}{
		{"403", func(*http.Request) (*http.Response, error) { return respond(403, "application/json", status), nil }, 403, status},
		{"404", func(*http.Request) (*http.Response, error) { return respond(404, "application/json", status), nil }, 404, status},
		{"410", func(*http.Request) (*http.Response, error) { return respond(410, "application/json", status), nil }, 410, status},
		{"the page of a captive portal", func(*http.Request) (*http.Response, error) { return respond(200, "text/html", "<p>pay</p>"), nil }, 200, "<p>pay</p>"},
		{"an error with a Status", func(*http.Request) (*http.Response, error) { return nil, linkDown{} }, 503, "the link is down"},
		{"another error", func(*http.Request) (*http.Response, error) { return nil, errors.New("broken") }, 502, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			h.answer = c.answer
			_, response, err := h.dial(path, nil)
			if !errors.Is(err, websocket.ErrBadHandshake) || response.StatusCode != c.code {
				t.Fatal(err, response)
			}
			if body, err := io.ReadAll(response.Body); !strings.Contains(string(body), c.body) {
				t.Errorf("%q %v", body, err)
			}
		})
	}
}

func TestTheSocketEndsAsTheWatchDoes(t *testing.T) {
	for _, c := range []struct {
		name string
		end  error
		code int
	}{
		{"an end is a close message", io.EOF, websocket.CloseNormalClosure},
		{"a break is none", io.ErrUnexpectedEOF, websocket.CloseAbnormalClosure},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			conn := h.open()
			h.write(`{"type":"ADDED","object":{}}`)
			_ = h.body.CloseWithError(c.end)
			h.message(conn)
			if code := h.closed(conn); code != c.code {
				t.Errorf("closed with %d", code)
			}
			h.left()
		})
	}
	t.Run("bytes that are no events are a break", func(t *testing.T) {
		h := start(t)
		conn := h.open()
		h.write("null")
		if code := h.closed(conn); code != websocket.CloseAbnormalClosure {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestAClientThatLeavesEndsTheWatch(t *testing.T) {
	t.Run("with a close message, which is answered", func(t *testing.T) {
		h := start(t)
		conn := h.open()
		if err := conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "bye")); err != nil {
			t.Fatal(err)
		}
		h.left()
		if code := h.closed(conn); code != websocket.CloseNormalClosure {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("without", func(t *testing.T) {
		h := start(t)
		_ = h.open().Close()
		h.left()
	})
	t.Run("before there is an answer", func(t *testing.T) {
		h := start(t)
		h.answer = func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
		conn := h.send(handshaken)
		r := eventually.Receive(t, "the watch", h.asked)
		_ = conn.Close()
		eventually.Receive(t, "the end of the watch", r.Context().Done())
	})
}

func TestAQuietSocketAnswersPings(t *testing.T) {
	h := start(t)
	conn := h.open()
	pongs := make(chan string, 2)
	conn.SetPongHandler(func(text string) error { pongs <- text; return nil })
	read := make(chan string)
	go func() {
		for {
			_, text, err := conn.ReadMessage()
			if err != nil {
				close(read)
				return
			}
			read <- string(text)
		}
	}()
	for _, send := range []struct {
		kind int
		text string
	}{{websocket.TextMessage, "ignored"}, {websocket.BinaryMessage, strings.Repeat("ignored", 10_000)}, {websocket.PongMessage, ""}, {websocket.PingMessage, "there?"}} {
		if err := conn.WriteMessage(send.kind, []byte(send.text)); err != nil {
			t.Fatal(err)
		}
	}
	if got := eventually.Receive(t, "the pong", pongs); got != "there?" {
		t.Errorf("pong %q", got)
	}
	h.write(`{"type":"ADDED","object":{}}`)
	if got := eventually.Receive(t, "an event", read); got != `{"type":"ADDED","object":{}}`+"\n" {
		t.Errorf("got %q", got)
	}
	_ = h.body.Close()
	eventually.Receive(t, "the end", read)
}

func TestMalformedFramesEndTheSocket(t *testing.T) {
	for _, c := range []struct{ name, bytes, want string }{
		{"a frame without a mask", "\x81\x01a", "\x88\x02\x03\xea"}, // 1002
		{"half a frame", "\x81", ""},
		{"a frame that never comes", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04abc", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t)
			conn, head := h.raw(handshaken)
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
				t.Fatal(head)
			}
			_, _ = io.WriteString(conn, c.bytes)
			if c.want == "" {
				_ = conn.Close()
			} else if got, _ := io.ReadAll(conn); !strings.HasPrefix(string(got), c.want) {
				t.Errorf("got %q", got)
			}
			h.left()
		})
	}
}

func TestShutdownEndsTheSocket(t *testing.T) {
	t.Run("with a close message", func(t *testing.T) {
		h := start(t)
		conn := h.open()
		stopped := make(chan error, 1)
		go func() { stopped <- h.stop() }()
		if code := h.closed(conn); code != websocket.CloseNormalClosure {
			t.Errorf("closed with %d", code)
		}
		if err := eventually.Receive(t, "the proxy's end", stopped); err != nil {
			t.Error(err)
		}
	})
	t.Run("also of a client that reads nothing", func(t *testing.T) {
		h := startWithGrace(t, -1)
		h.open()
		h.write(`{"type":"ADDED","object":"` + strings.Repeat("x", 15<<20) + `"}`) // more than the kernel's buffers take
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
}
