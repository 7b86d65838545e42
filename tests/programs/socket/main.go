// Command socket opens watches over WebSocket, as a Java client does, and prints what comes: one
// JSON object a line. It knows nothing of Rockpool.
//
// Standard input is a JSON list of requests. All are opened, and the command ends when all have
// ended.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/gorilla/websocket"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

type question struct {
	Target    string   `json:"target"`    // path and query
	Accept    string   `json:"accept"`    // empty: no such header
	Origin    string   `json:"origin"`    // empty: no such header
	Protocols []string `json:"protocols"` // {token} stands for the token in base64
	Anonymous bool     `json:"anonymous"` // no Authorization header
}

// happening is a line of the output: the answer to the handshake, a message, or the end.
type happening struct {
	Question int    `json:"question"` // index in the list of requests
	Status   int    `json:"status,omitempty"`
	Protocol string `json:"protocol,omitempty"` // the chosen one
	Type     string `json:"type,omitempty"`     // Content-Type of a refusal
	Body     []byte `json:"body,omitempty"`     // of a refusal, or a message
	Kind     int    `json:"kind,omitempty"`     // opcode of a message
	Closed   int    `json:"closed,omitempty"`   // code of the close message
	Text     string `json:"text,omitempty"`     // the body, if it is text
	Error    string `json:"error,omitempty"`    // of an end without a close message
}

func main() {
	server := flag.String("server", net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")), "host:port of the API server")
	flag.Parse()
	if err := run(*server); err != nil {
		log.Fatal(err)
	}
}

func run(server string) error {
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
	var (
		printing sync.Mutex
		watching sync.WaitGroup
		failed   error
	)
	out := json.NewEncoder(os.Stdout)
	for i, q := range questions {
		watching.Go(func() {
			q.watch(server, bytes.TrimSpace(token), roots, func(h happening) {
				printing.Lock()
				defer printing.Unlock()
				h.Question = i
				failed = errors.Join(failed, out.Encode(h))
			})
		})
	}
	watching.Wait()
	return failed
}

// watch opens a socket and tells what happens.
func (q question) watch(server string, token []byte, roots *x509.CertPool, tell func(happening)) {
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots}}
	for _, protocol := range q.Protocols {
		dialer.Subprotocols = append(dialer.Subprotocols, strings.ReplaceAll(protocol, "{token}", base64.RawURLEncoding.EncodeToString(token)))
	}
	header := http.Header{"User-Agent": {"socket"}}
	if !q.Anonymous {
		header.Set("Authorization", "Bearer "+string(token))
	}
	for name, value := range map[string]string{"Accept": q.Accept, "Origin": q.Origin} {
		if value != "" {
			header.Set(name, value)
		}
	}
	conn, response, err := dialer.Dial("wss://"+server+q.Target, header)
	if response == nil {
		tell(happening{Error: err.Error()})
		return
	}
	h := happening{Status: response.StatusCode}
	if err != nil {
		h.Type = response.Header.Get("Content-Type")
		h.Body, _ = io.ReadAll(response.Body) // what gorilla has kept of it
		h.Text = string(h.Body)
		tell(h)
		return
	}
	defer conn.Close()
	h.Protocol = conn.Subprotocol()
	tell(h)
	for {
		kind, message, err := conn.ReadMessage()
		var closed *websocket.CloseError
		switch {
		case errors.As(err, &closed):
			tell(happening{Closed: closed.Code})
			return
		case err != nil:
			tell(happening{Error: err.Error()})
			return
		}
		h := happening{Kind: kind, Body: message}
		if kind == websocket.TextMessage {
			h.Text = string(message)
		}
		tell(h)
	}
}
