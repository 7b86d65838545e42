package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"

	"rockpool.dev/tests/bed/freeport"
	"rockpool.dev/tests/bed/internal/process"
)

// stopGrace is the time between SIGTERM and SIGKILL for etcd and controllers.
const stopGrace = 5 * time.Second

// serverGrace is that time for the API server. It accepts no new connections in it, and lets those
// that are open finish. While a watch is open it would not end for a minute.
const serverGrace = time.Second

func (c *ControlPlane) startEtcd(ctx context.Context) error {
	client, err := freeport.Address()
	if err != nil {
		return err
	}
	peer, err := freeport.Address()
	if err != nil {
		return err
	}
	c.etcdURL = "http://" + client
	peerURL := "http://" + peer
	c.etcd, err = process.Start("etcd", c.file("etcd.log"), exec.Command(c.tools.Etcd,
		"--name=bed",
		"--data-dir="+c.file("etcd"),
		"--listen-client-urls="+c.etcdURL,
		"--advertise-client-urls="+c.etcdURL,
		"--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=bed="+peerURL,
		"--unsafe-no-fsync", // a test's data does not have to survive a power loss
		"--log-level=warn",
	))
	if err != nil {
		return err
	}
	return c.etcd.WaitReady(ctx, func(ctx context.Context) error {
		return process.Healthy(ctx, c.etcdURL+"/health")
	})
}

// StartAPIServer starts the API server after StopAPIServer, on the same port and data, and
// returns once it is ready.
func (c *ControlPlane) StartAPIServer(ctx context.Context) error {
	args := append([]string{
		"--etcd-servers=" + c.etcdURL,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", c.port),
		"--tls-cert-file=" + c.file("serving.crt"),
		"--tls-private-key-file=" + c.file("serving.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-issuer=" + ServiceAccountIssuer,
		"--service-account-key-file=" + c.file("serviceaccount.key"),
		"--service-account-signing-key-file=" + c.file("serviceaccount.key"),
		"--service-cluster-ip-range=" + c.cidr,
		"--authorization-mode=Node,RBAC",
		"--kubelet-client-certificate=" + c.file("kubelet-client.crt"),
		"--kubelet-client-key=" + c.file("kubelet-client.key"),
		"--allow-privileged=true",
		// An endpoint on loopback is invalid, and no client would use it.
		"--endpoint-reconciler-type=none",
	}, c.args...)
	server, err := process.Start("kube-apiserver", c.APIServerLog(), exec.Command(c.tools.APIServer, args...))
	if err != nil {
		return err
	}
	c.server = server
	return server.WaitReady(ctx, func(ctx context.Context) error {
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// StopAPIServer stops the API server. etcd keeps running, with all data.
func (c *ControlPlane) StopAPIServer() { c.server.Stop(serverGrace) }

// Restart stops the API server and starts it again. Its watch cache is then empty, so a watch from
// a version before the restart gets 410 Gone.
func (c *ControlPlane) Restart(ctx context.Context) error {
	c.StopAPIServer()
	return c.StartAPIServer(ctx)
}

// Compact discards etcd's history: continue tokens and exact versions from before Compact get
// 410 Gone.
func (c *ControlPlane) Compact(ctx context.Context) error {
	var now struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	// etcd's JSON gateway encodes keys in base64. AA== is the zero byte, a key that does not exist.
	if err := c.etcdCall(ctx, "/v3/kv/range", map[string]any{"key": "AA=="}, &now); err != nil {
		return err
	}
	return c.etcdCall(ctx, "/v3/kv/compaction", map[string]any{"revision": now.Header.Revision, "physical": true}, nil)
}

// DropHistory drops the history of etcd and of the API server's watch cache: watches from before
// get 410 Gone.
func (c *ControlPlane) DropHistory(ctx context.Context) error {
	if err := c.Compact(ctx); err != nil {
		return err
	}
	return c.Restart(ctx)
}

// etcdCall calls etcd's JSON gateway (https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/).
func (c *ControlPlane) etcdCall(ctx context.Context, path string, input, output any) error {
	body, err := json.Marshal(input)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.etcdURL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd %s: %s: %s", path, response.Status, bytes.TrimSpace(answer))
	}
	if output == nil {
		return nil
	}
	return json.Unmarshal(answer, output)
}
