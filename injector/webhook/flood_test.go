package webhook

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// hold opens a connection, sends the headers of a review and some of its body, and then nothing.
func (s *served) hold(announced int, sent string) (net.Conn, error) {
	c, err := tls.Dial("tcp", s.address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", Path, announced, sent)
	return c, err
}

func TestAReviewIsAnsweredBesideAThousandConnectionsThatSendNothing(t *testing.T) {
	s := start(t, Options{}, nil)
	const connections = 1000
	var mu sync.Mutex
	var held []net.Conn
	var dials sync.WaitGroup
	for range 8 {
		dials.Go(func() {
			for range connections / 8 {
				c, err := s.hold(MaxReviewBytes, "{")
				mu.Lock()
				if c != nil {
					held = append(held, c)
				}
				mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	dials.Wait()
	c := client(t)
	began := time.Now()
	if code, err := s.review(c); code != http.StatusOK || err != nil {
		t.Errorf("HTTP %d, %v", code, err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("the review took %s beside %d connections", took, len(held))
	} else {
		t.Logf("the review took %s beside %d connections", took, len(held))
	}
	for _, c := range held {
		c.Close()
	}
	s.stop()
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestABodyThatDoesNotComeIsGivenUp(t *testing.T) {
	s := start(t, Options{}, nil)
	c, err := s.hold(MaxReviewBytes, strings.Repeat(" ", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	if err := c.SetReadDeadline(began.Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
		t.Errorf("after %s: %v, %.200q", time.Since(began), err, answer)
	}
	if time.Since(began) > bodyTimeout+3*time.Second {
		t.Errorf("it took %s", time.Since(began))
	}
	s.stop()
	<-s.done
}

func TestABodyThatIsTooLargeIsRefusedUnread(t *testing.T) {
	s := start(t, Options{}, nil)
	c, err := s.hold(MaxReviewBytes+1, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	line := make([]byte, len("HTTP/1.1 413 "))
	if _, err := io.ReadFull(c, line); err != nil || string(line) != "HTTP/1.1 413 " {
		t.Errorf("%q, %v", line, err)
	}
	s.stop()
	<-s.done
}
