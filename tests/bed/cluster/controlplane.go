// Package cluster starts a control plane for tests: etcd and kube-apiserver, with their
// certificates. It also finds or builds the programs of a control plane and of a node.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"rockpool.dev/tests/bed/freeport"
	"rockpool.dev/tests/bed/internal/process"
)

// DefaultPublicAddress is the public address of the API server that pods see, unless a test
// chooses another. It is from TEST-NET-3 (RFC 5737), which no network uses.
const DefaultPublicAddress = "203.0.113.10:6443"

// DefaultServiceCIDR is the range of Service addresses. The API server's own Service has the first
// address in it, and port 443.
const DefaultServiceCIDR = "10.96.0.0/12"

// ServiceAccountIssuer is the issuer of service-account tokens.
const ServiceAccountIssuer = "https://kubernetes.default.svc.cluster.local"

// Options are the options of Start. The zero value is usable.
type Options struct {
	// Tools are the programs to run. Zero: FindTools.
	Tools Tools
	// Directory has data, certificates and logs. Empty: a temporary one, which Stop removes.
	Directory string
	// ServerNames are further DNS names and addresses for the serving certificate, which is valid
	// for loopback, the names and address of the Service, and the host of DefaultPublicAddress
	// anyway.
	ServerNames []string
	// ServiceCIDR is the range of Service addresses. Empty: DefaultServiceCIDR.
	ServiceCIDR string
	// APIServerArgs are appended to the arguments of kube-apiserver and take precedence.
	APIServerArgs []string
	// Progress receives the output of FindTools. Nil: os.Stderr.
	Progress io.Writer
}

// A ControlPlane is a running etcd and kube-apiserver, on loopback only. Until StartControllers
// there are no controllers and no scheduler, so the ClusterRoles view, edit and admin, which a
// controller fills, allow nothing.
type ControlPlane struct {
	tools     Tools
	directory string
	temporary bool // Stop removes the directory
	args      []string
	port      int
	etcdURL   string
	etcd      *process.Process
	server    *process.Process
	running   []*process.Process // controllers
	ca        *authority
	config    *rest.Config
	client    kubernetes.Interface
	cidr      string
}

// Start starts a control plane and returns once its API server is ready. etcd and the API server
// end with this process, however it ends.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	c := &ControlPlane{tools: options.Tools, directory: options.Directory, cidr: options.ServiceCIDR}
	if c.cidr == "" {
		c.cidr = DefaultServiceCIDR
	}
	if c.tools == (Tools{}) {
		progress := options.Progress
		if progress == nil {
			progress = os.Stderr
		}
		found, err := FindTools(ctx, progress)
		if err != nil {
			return nil, err
		}
		c.tools = found
	}
	if c.directory == "" {
		directory, err := os.MkdirTemp("", "bed-")
		if err != nil {
			return nil, err
		}
		c.directory, c.temporary = directory, true
	}
	if err := c.start(ctx, options); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context, options Options) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	if err := c.writeCredentials(options.ServerNames); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	port, err := freeport.Port()
	if err != nil {
		return err
	}
	c.port, c.args = port, options.APIServerArgs
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	return c.waitForDefaults(ctx)
}

// Stop ends the controllers, the API server and etcd and removes the temporary directory.
func (c *ControlPlane) Stop() error {
	c.stopControllers()
	c.StopAPIServer()
	c.etcd.Stop(stopGrace)
	if c.temporary {
		return os.RemoveAll(c.directory)
	}
	return nil
}

// Address is the loopback host:port on which the API server listens.
func (c *ControlPlane) Address() string { return fmt.Sprintf("127.0.0.1:%d", c.port) }

// Config returns a copy of an administrator's configuration (group system:masters).
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client returns the administrator's client.
func (c *ControlPlane) Client() kubernetes.Interface { return c.client }

// CA is the PEM certificate of the CA that signed the serving certificate.
func (c *ControlPlane) CA() []byte { return c.ca.pem }

// Tools are the programs in use, kubectl among them.
func (c *ControlPlane) Tools() Tools { return c.tools }

// Kubeconfig is the path of the administrator's kubeconfig file.
func (c *ControlPlane) Kubeconfig() string { return filepath.Join(c.directory, "admin.kubeconfig") }

// APIServerLog is the path of the API server's log.
func (c *ControlPlane) APIServerLog() string {
	return filepath.Join(c.directory, "kube-apiserver.log")
}

// ServiceAddress is the host:port of the Service default/kubernetes, which a kubelet puts into the
// environment of every container. Nothing listens there, and pods have no route to it.
func (c *ControlPlane) ServiceAddress() string {
	return net.JoinHostPort(c.serviceIP().String(), "443")
}

func (c *ControlPlane) serviceIP() net.IP {
	_, network, err := net.ParseCIDR(c.cidr)
	if err != nil {
		return nil
	}
	first := append(net.IP(nil), network.IP...)
	first[len(first)-1]++
	return first
}

// writeCredentials writes the certificates and keys of the API server.
func (c *ControlPlane) writeCredentials(names []string) error {
	ip := c.serviceIP()
	if ip == nil {
		return fmt.Errorf("service CIDR %q: not an address range", c.cidr)
	}
	public, _, err := net.SplitHostPort(DefaultPublicAddress)
	if err != nil {
		return err
	}
	if c.ca, err = newAuthority("kubernetes"); err != nil {
		return err
	}
	names = append([]string{
		"127.0.0.1", "::1", "localhost", ip.String(), public,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}, names...)
	cert, key, err := c.ca.serving(names)
	if err != nil {
		return err
	}
	kubeletCert, kubeletKey, err := c.ca.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(c.file("ca.crt"), c.ca.pem, 0o644),
		os.WriteFile(c.file("kubelet-client.crt"), kubeletCert, 0o644),
		os.WriteFile(c.file("kubelet-client.key"), kubeletKey, 0o600),
		os.WriteFile(c.file("serving.crt"), cert, 0o644),
		os.WriteFile(c.file("serving.key"), key, 0o600),
		writeServiceAccountKey(c.file("serviceaccount.key")),
	)
}

// connect makes the administrator's configuration, client and kubeconfig file.
func (c *ControlPlane) connect() error {
	cert, key, err := c.ca.client("admin", "system:masters")
	if err != nil {
		return err
	}
	c.config = &rest.Config{
		Host:            "https://" + c.Address(),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem, CertData: cert, KeyData: key},
		QPS:             -1, // no limit: a test waits for the server only
	}
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	return c.WriteKubeconfig(c.Kubeconfig(), c.config.Host, "admin", "system:masters")
}

// WriteKubeconfig writes a kubeconfig file for a user who is a member of groups. url is that of the
// API server, for example the address of a link.
func (c *ControlPlane) WriteKubeconfig(path, url, user string, groups ...string) error {
	cert, key, err := c.ca.client(user, groups...)
	if err != nil {
		return err
	}
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["bed"] = &clientcmdapi.Cluster{Server: url, CertificateAuthorityData: c.ca.pem}
	kubeconfig.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	kubeconfig.Contexts["bed"] = &clientcmdapi.Context{Cluster: "bed", AuthInfo: user}
	kubeconfig.CurrentContext = "bed"
	return clientcmd.WriteToFile(*kubeconfig, path)
}

func (c *ControlPlane) file(name ...string) string {
	return filepath.Join(c.directory, strings.Join(name, "/"))
}
