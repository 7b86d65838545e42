package install

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"rockpool.dev/tests/bed/freeport"
)

// host is the injector's name for API servers.
const host = "rockpool-injector." + system + ".svc"

// front stands for a Service: it distributes connections to the replicas.
type front struct {
	listener net.Listener
	mu       sync.Mutex
	backends []string
	next     int
	open     map[*net.TCPConn]chan struct{} // from clients; closed at their end
	group    sync.WaitGroup
}

// newFront replaces the Service by a front: the API server reaches a Service of type ExternalName
// by that name.
func newFront(t *testing.T) *front {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: listener, open: map[*net.TCPConn]chan struct{}{}}
	f.group.Go(f.accept)
	t.Cleanup(func() {
		f.listener.Close()
		f.drop()
		f.group.Wait()
	})
	services := plane.Client().CoreV1().Services(system)
	service, err := services.Get(t.Context(), "rockpool-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Spec.Type, service.Spec.ExternalName = corev1.ServiceTypeExternalName, "127.0.0.1"
	service.Spec.ClusterIP, service.Spec.ClusterIPs = "", nil
	if _, err := services.Update(t.Context(), service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	configs := plane.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	config, err := configs.Get(t.Context(), "rockpool", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range config.Webhooks {
		patch := fmt.Sprintf(`[{"op":"replace","path":"/webhooks/%d/clientConfig/service/port","value":%d}]`, i, port)
		if _, err := configs.Patch(t.Context(), config.Name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// setBackends sets the backends of new connections.
func (f *front) setBackends(backends ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = backends
}

func (f *front) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		client := conn.(*net.TCPConn)
		ended := make(chan struct{})
		f.mu.Lock()
		f.open[client] = ended
		backend := ""
		if len(f.backends) > 0 {
			backend = f.backends[f.next%len(f.backends)]
			f.next++
		}
		f.mu.Unlock()
		f.group.Go(func() {
			defer close(ended)
			defer client.Close()
			f.carry(client, backend)
			f.mu.Lock()
			delete(f.open, client)
			f.mu.Unlock()
		})
	}
}

// carry forwards a connection until the client closes it, or the backend cannot be reached.
func (f *front) carry(client *net.TCPConn, backend string) {
	server, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(client, server) // both ends may fail
		_ = client.CloseWrite()
	})
	_, _ = io.Copy(server, client)
	server.Close()
	group.Wait()
}

// drop closes all idle connections, so that the next request starts with a handshake. It returns
// when the API server has closed them too.
func (f *front) drop() {
	f.mu.Lock()
	open := make(map[*net.TCPConn]chan struct{}, len(f.open))
	for c, ended := range f.open {
		open[c] = ended
	}
	f.mu.Unlock()
	for c, ended := range open {
		_ = c.CloseWrite() // fails if the connection has ended
		<-ended
	}
}

// account is the configuration of the injector's service account, which has only the permissions
// from the manifests.
func account(t *testing.T) *rest.Config {
	t.Helper()
	token, err := plane.Client().CoreV1().ServiceAccounts(system).CreateToken(t.Context(), "rockpool-injector", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &rest.Config{Host: "https://" + plane.Address(), BearerToken: token.Status.Token, TLSClientConfig: rest.TLSClientConfig{CAData: plane.CA()}}
}

func kubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	c := clientcmdapi.NewConfig()
	c.Clusters["c"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	c.AuthInfos["a"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	c.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "a"}
	c.CurrentContext = "x"
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// replica runs the injector as its Deployment does, and returns its address.
func replica(t *testing.T, kubeconfig string, flags ...string) (address string, cmd *exec.Cmd) {
	t.Helper()
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(binary, append([]string{
		"serve", "--listen=" + address, "--metrics-listen=", "--kubeconfig=" + kubeconfig,
		"--namespace=" + system, "--sidecar-image=rockpool:dev", "--upstream=https://203.0.113.10", "--shutdown-delay=0s",
	}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // fails if it has ended
		_ = cmd.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("replica %s:\n%s", address, text)
		}
	})
	return address, cmd
}

// ready probes a replica. Like the kubelet, it accepts any certificate.
func ready(address string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	response, err := client.Get("https://" + address + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %v", response.Status, text, err)
	}
	return nil
}

// served shakes hands as an API server with this bundle, and returns the replica's certificate.
func served(address string, bundle []byte) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{RootCAs: roots, ServerName: host})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}
