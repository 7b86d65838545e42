package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"

	"rockpool.dev/tests/bed/freeport"
)

// StartInjector starts the injector with its usual arguments and args. The first call chooses its
// port and creates its certificate. Without a ConfigMap in args the injector uses none, so that
// namespaces have only the objects of the test.
func (e *Edge) StartInjector(ctx context.Context, args ...string) error {
	certFile, keyFile := filepath.Join(e.directory, "webhook.crt"), filepath.Join(e.directory, "webhook.key")
	if e.webhook == "" {
		address, err := freeport.Address()
		if err != nil {
			return err
		}
		e.webhook = address
		certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
		if err != nil {
			return err
		}
		e.ca = certPEM
		if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600), e.authorize(ctx)); err != nil {
			return err
		}
	}
	logFile, err := os.Create(filepath.Join(e.directory, "injector.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(e.bin("injector"), append([]string{
		"serve", "--listen", e.webhook, "--metrics-listen", "", "--config-map", "",
		"--tls-cert-file", certFile, "--tls-key-file", keyFile, "--sidecar-image", SidecarImage, "--kubeconfig", e.injectorKubeconfig(),
		"--upstream", "https://" + e.Public, "--shutdown-delay", "0s",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// KUBERNETES_SERVICE_HOST is as the kubelet sets it.
	cmd.Env = append(os.Environ(), append(raceEnv, "KUBERNETES_SERVICE_HOST="+e.serviceHost())...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that Ctrl-C ends only this program
	if err := cmd.Start(); err != nil {
		return err
	}
	e.injector, e.exited = cmd, make(chan struct{})
	go func() {
		_ = cmd.Wait() // the reason is in its log
		close(e.exited)
	}()
	if err := e.injectorReady(ctx, "https://"+e.webhook+"/readyz"); err != nil {
		text, _ := os.ReadFile(logFile.Name())
		return fmt.Errorf("injector not ready: %w\n%s", err, text)
	}
	return nil
}

// serviceHost is the address of the API server's Service.
func (e *Edge) serviceHost() string {
	host, _, err := net.SplitHostPort(e.ServiceAddress())
	if err != nil {
		panic(err) // it was joined
	}
	return host
}

func (e *Edge) injectorKubeconfig() string { return filepath.Join(e.directory, "injector.kubeconfig") }

// authorize creates the injector's service account and RBAC rules from manifests/, and its
// kubeconfig.
func (e *Edge) authorize(ctx context.Context) error {
	var account corev1.ServiceAccount
	var role rbacv1.ClusterRole
	var binding rbacv1.ClusterRoleBinding
	var local rbacv1.Role
	var localBinding rbacv1.RoleBinding
	err := errors.Join(e.manifest("serviceaccount.yaml", &account), e.manifest("clusterrole.yaml", &role), e.manifest("clusterrolebinding.yaml", &binding),
		e.manifest("role.yaml", &local), e.manifest("rolebinding.yaml", &localBinding))
	if err != nil {
		return err
	}
	namespace := binding.Subjects[0].Namespace
	if err := e.CreateNamespace(ctx, namespace); err != nil {
		return err
	}
	_, accountErr := e.Client().CoreV1().ServiceAccounts(namespace).Create(ctx, &account, metav1.CreateOptions{})
	_, roleErr := e.Client().RbacV1().ClusterRoles().Create(ctx, &role, metav1.CreateOptions{})
	_, bindingErr := e.Client().RbacV1().ClusterRoleBindings().Create(ctx, &binding, metav1.CreateOptions{})
	_, localErr := e.Client().RbacV1().Roles(namespace).Create(ctx, &local, metav1.CreateOptions{})
	_, localBindingErr := e.Client().RbacV1().RoleBindings(namespace).Create(ctx, &localBinding, metav1.CreateOptions{})
	if err := errors.Join(accountErr, roleErr, bindingErr, localErr, localBindingErr); err != nil {
		return err
	}
	token, err := e.Client().CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["bed"] = &clientcmdapi.Cluster{Server: "https://" + e.Address(), CertificateAuthorityData: e.CA()}
	config.AuthInfos["injector"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["bed"] = &clientcmdapi.Context{Cluster: "bed", AuthInfo: "injector"}
	config.CurrentContext = "bed"
	return clientcmd.WriteToFile(*config, e.injectorKubeconfig())
}

// manifest reads a file of manifests/base.
func (e *Edge) manifest(name string, object any) error {
	raw, err := os.ReadFile(filepath.Join(e.root, "manifests/base", name))
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(raw, object); err != nil {
		return fmt.Errorf("manifests/base/%s: %w", name, err)
	}
	return nil
}

// injectorReady waits until the injector is ready. Like the kubelet, it accepts any certificate.
func (e *Edge) injectorReady(ctx context.Context, url string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		select {
		case <-e.exited:
			return false, errors.New("the injector has ended")
		default:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return false, nil
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

// Inject runs the command inject of rockpool-injector on a manifest.
func (e *Edge) Inject(ctx context.Context, stream []byte) ([]byte, error) {
	return e.inject(ctx, stream, "https://"+e.Public)
}

func (e *Edge) inject(ctx context.Context, stream []byte, upstream string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, e.bin("injector"), "inject", "-f", "-", "--sidecar-image", SidecarImage, "--upstream", upstream)
	cmd.Stdin, cmd.Stderr, cmd.Env = bytes.NewReader(stream), &stderr, append(os.Environ(), raceEnv...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rockpool-injector inject: %w\n%s", err, &stderr)
	}
	return out, nil
}

// register applies the policies and the webhook configuration of manifests/, with the injector's
// address instead of its Service.
func (e *Edge) register(ctx context.Context) error {
	var config admissionv1.MutatingWebhookConfiguration
	if err := errors.Join(
		e.policy(ctx, "policy.yaml", "policybinding.yaml"), e.policy(ctx, "settingspolicy.yaml", "settingspolicybinding.yaml"),
		e.manifest("webhook.yaml", &config)); err != nil {
		return err
	}
	for i := range config.Webhooks {
		client := &config.Webhooks[i].ClientConfig
		url := "https://" + e.webhook + *client.Service.Path
		*client = admissionv1.WebhookClientConfig{URL: &url, CABundle: e.ca}
	}
	if _, err := e.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &config, metav1.CreateOptions{}); err != nil {
		return err
	}
	return e.awaitWebhook(ctx)
}

// policy creates a policy of manifests/ and its binding.
func (e *Edge) policy(ctx context.Context, name, bindingName string) error {
	var policy admissionv1.ValidatingAdmissionPolicy
	var binding admissionv1.ValidatingAdmissionPolicyBinding
	if err := errors.Join(e.manifest(name, &policy), e.manifest(bindingName, &binding)); err != nil {
		return err
	}
	api := e.Client().AdmissionregistrationV1()
	if _, err := api.ValidatingAdmissionPolicies().Create(ctx, &policy, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := api.ValidatingAdmissionPolicyBindings().Create(ctx, &binding, metav1.CreateOptions{})
	return err
}

// awaitWebhook waits until the API server calls the webhook.
func (e *Edge) awaitWebhook(ctx context.Context) error {
	const namespace = "rockpool-check"
	if err := e.CreateNamespace(ctx, namespace); err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		pod, err := e.Client().CoreV1().Pods(namespace).Create(ctx, Pod(namespace, "check"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && len(pod.Spec.InitContainers) > 0, nil
	})
}
