// Command asker sends many plain GETs to the API, as a program without a client library would, and
// prints the answers byte for byte. It knows nothing of Rockpool.
//
// Standard input is a JSON list of requests, standard output the JSON list of the answers in the
// same order, with bodies in base64. It sends several requests concurrently. With -every it sends
// them periodically and one by one, until it is killed, and prints each answer on its own line.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

type question struct {
	Target string `json:"target"` // path and query
	Accept string `json:"accept"` // empty: no such header
}

type answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body"`
	Error   string            `json:"error,omitempty"` // of a truncated body, or of a request without an answer

	Question int       `json:"question"` // index in the list of requests
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
}

func main() {
	server := flag.String("server", "https://"+net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")), "URL of the API server")
	parallel := flag.Int("parallel", 16, "number of concurrent requests")
	timeout := flag.Duration("timeout", 30*time.Second, "timeout of a request")
	every := flag.Duration("every", 0, "interval between repetitions; 0: send all requests once")
	flag.Parse()
	if err := run(*server, *parallel, *timeout, *every); err != nil {
		log.Fatal(err)
	}
}

func run(server string, parallel int, timeout, every time.Duration) error {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		return fmt.Errorf("questions: %w", err)
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	one := func(i int) answer {
		a := answer{Started: time.Now()}
		a.from(client, server, strings.TrimSpace(string(token)), questions[i], timeout)
		a.Question, a.Ended = i, time.Now()
		return a
	}
	if every > 0 {
		out := json.NewEncoder(os.Stdout)
		for range time.Tick(every) {
			for i := range questions {
				if err := out.Encode(one(i)); err != nil {
					return err
				}
			}
		}
	}
	answers := make([]answer, len(questions))
	var asking sync.WaitGroup
	turns := make(chan int)
	for range parallel {
		asking.Go(func() {
			for i := range turns {
				answers[i] = one(i)
			}
		})
	}
	for i := range questions {
		turns <- i
	}
	close(turns)
	asking.Wait()
	return json.NewEncoder(os.Stdout).Encode(answers)
}

// from sends a request and stores its answer.
func (a *answer) from(client *http.Client, server, token string, q question, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+q.Target, http.NoBody)
	if err != nil {
		a.Error = err.Error()
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("User-Agent", "asker")
	if q.Accept != "" {
		req.Header.Set("Accept", q.Accept)
	}
	resp, err := client.Do(req)
	if err != nil {
		a.Error = err.Error()
		return
	}
	defer resp.Body.Close()
	a.Status, a.Headers = resp.StatusCode, map[string]string{}
	for name := range resp.Header {
		a.Headers[name] = resp.Header.Get(name)
	}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		a.Error = err.Error()
	}
}
