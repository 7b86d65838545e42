package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A client is a TLS library that applications use. Its run connects to the server on 127.0.0.1 once
// for each host, as an application that has read ca and believes that it talks to host. It prints a
// line for each: the host, then "accepted", or "refused" and why.
type client struct {
	name string
	// needs are shell commands that fail on a machine without the library.
	needs []string
	run   func(t *testing.T, ca, port string, hosts []string) string
	// namesOnly: it compares certificates with DNS names only.
	namesOnly bool
	// trusting: it does not enforce the name constraints of a root.
	trusting bool
}

var clients = []client{
	{name: "Go", run: runGo},
	{name: "OpenSSL, strict", needs: []string{"openssl version"}, run: script("bash", "-c", `
		ca=$1 port=$2; shift 2
		for host; do
			by=-verify_hostname; [[ $host =~ ^[0-9.]+$|: ]] && by=-verify_ip
			if out=$(openssl s_client -connect 127.0.0.1:$port -CAfile "$ca" -x509_strict -purpose sslserver -verify_return_error $by "$host" 2>&1 </dev/null)
			then echo "$host" accepted; else echo "$host" refused $out; fi
		done`, "-")},
	{name: "GnuTLS", needs: []string{"gnutls-cli --version"}, run: script("bash", "-c", `
		ca=$1 port=$2; shift 2
		for host; do
			if out=$(gnutls-cli --x509cafile="$ca" --verify-hostname="$host" --port=$port 127.0.0.1 2>&1 </dev/null)
			then echo "$host" accepted; else echo "$host" refused $out; fi
		done`, "-")},
	{name: "Python, strict", needs: []string{"python3 -c 'import ssl'"}, run: script("python3", "-c", `
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
for host in sys.argv[3:]:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=host) as s:
                print(host, "accepted")
    except ssl.SSLCertVerificationError as e:
        print(host, "refused", e.verify_message)
`)},
	{name: "Node", needs: []string{"node --version"}, run: javaScript("node")},
	{name: "bun, which has BoringSSL", needs: []string{"bun --version"}, run: javaScript("bun")},
	{name: "Java, which reads the first certificate", needs: []string{"java --version", "javac --version"}, run: runJava, trusting: true},
	{name: "mbedTLS", needs: []string{"gcc --version", "printf '#include <mbedtls/ssl.h>' | gcc -E -"}, run: runMbedTLS, namesOnly: true, trusting: true},
}

func TestEveryTLSLibraryTrustsThePodsCA(t *testing.T) {
	// Libraries use the machine's clock.
	a, err := Open(Options{Directory: t.TempDir(), Names: apiNames("cluster.local")})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := Open(Options{Directory: t.TempDir(), Names: apiNames("cluster.local")})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, slices.Concat(a.CAPEM(), cluster.CAPEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			for _, command := range c.needs {
				if out, err := exec.Command("bash", "-c", command).CombinedOutput(); err != nil {
					t.Skipf("NOT VERIFIED with %s: %s: %v: %s", c.name, command, err, out)
				}
			}
			isName := func(host string) bool { return net.ParseIP(host) == nil }
			hosts := ownHosts
			if c.namesOnly {
				hosts = slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return !isName(h) })
			}
			others := []string{"kubernetes.default.svc.other.domain", "example.com"}
			out := c.run(t, ca, serve(t, a, a.leaf), append(others, hosts...))
			for _, host := range hosts {
				if !strings.Contains(out, "\n"+host+" accepted") {
					t.Errorf("%s is not accepted", host)
				}
			}
			for _, host := range others {
				if !strings.Contains(out, "\n"+host+" refused") {
					t.Errorf("%s is not refused", host)
				}
				if c.trusting {
					continue
				}
				if stolen := c.run(t, ca, serve(t, a, issueWithStolenKey(t, a, host)), []string{host}); !strings.Contains(stolen, "\n"+host+" refused") {
					t.Errorf("a stolen key's certificate for %s: %s", host, stolen)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// serve ends TLS with the pair on a port of 127.0.0.1 until the test ends.
func serve(t *testing.T, a *Authority, p pair) (port string) {
	t.Helper()
	config := a.TLSConfig()
	config.Certificates[0] = tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// script runs a command with the path of the CA file, the port and the hosts as further arguments.
func script(command string, arguments ...string) func(*testing.T, string, string, []string) string {
	return func(t *testing.T, ca, port string, hosts []string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), command, slices.Concat(arguments, []string{ca, port}, hosts)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return "\n" + string(out)
	}
}

func runGo(t *testing.T, ca, port string, hosts []string) string {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(read(t, ca))
	var out strings.Builder
	for _, host := range hosts {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: pool, ServerName: host})
		if err != nil {
			fmt.Fprintf(&out, "\n%s refused %v", host, err)
			continue
		}
		conn.Close()
		fmt.Fprintf(&out, "\n%s accepted", host)
	}
	return out.String()
}

func javaScript(runtime string) func(*testing.T, string, string, []string) string {
	return func(t *testing.T, ca, port string, hosts []string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "client.mjs")
		write("client.mjs", []byte(`
import fs from "node:fs"; import net from "node:net"; import tls from "node:tls";
const [ca, port, ...hosts] = process.argv.slice(2);
for (const host of hosts) {
	await new Promise(done => {
		const name = net.isIP(host) ? {} : { servername: host };
		const socket = tls.connect({ host: "127.0.0.1", port: Number(port), ca: fs.readFileSync(ca), ...name,
			checkServerIdentity: (_, cert) => tls.checkServerIdentity(host, cert) });
		socket.on("secureConnect", () => { console.log(host, "accepted"); socket.destroy(); done(); });
		socket.on("error", e => { console.log(host, "refused", e.code, e.message); done(); });
	});
}
`))(t, filepath.Dir(file))
		return script(runtime, file)(t, ca, port, hosts)
	}
}

func runJava(t *testing.T, ca, port string, hosts []string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Client.java")
	write("Client.java", []byte(`
import java.io.*; import java.net.*; import java.security.*; import java.security.cert.*; import javax.net.ssl.*;
class Client {
	public static void main(String[] args) throws Exception {
		KeyStore trust = KeyStore.getInstance(KeyStore.getDefaultType());
		trust.load(null);
		try (InputStream in = new FileInputStream(args[0])) {
			trust.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
		}
		TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
		managers.init(trust);
		SSLContext context = SSLContext.getInstance("TLS");
		context.init(null, managers.getTrustManagers(), null);
		int port = Integer.parseInt(args[1]);
		for (int i = 2; i < args.length; i++) {
			try (SSLSocket s = (SSLSocket) context.getSocketFactory().createSocket(new Socket("127.0.0.1", port), args[i], port, true)) {
				SSLParameters p = s.getSSLParameters();
				p.setEndpointIdentificationAlgorithm("HTTPS");
				s.setSSLParameters(p);
				s.startHandshake();
				System.out.println(args[i] + " accepted");
			} catch (SSLException e) {
				System.out.println(args[i] + " refused " + e.getMessage());
			}
		}
	}
}
`))(t, filepath.Dir(file))
	return script("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", file)(t, ca, port, hosts)
}

// runMbedTLS verifies the certificate that the server shows: mbedTLS has no client program in Debian.
func runMbedTLS(t *testing.T, ca, port string, hosts []string) string {
	t.Helper()
	directory := t.TempDir()
	write("client.c", []byte(`
#include <stdio.h>
#include <mbedtls/x509_crt.h>
int main(int n, char **args) {
	mbedtls_x509_crt ca, leaf;
	mbedtls_x509_crt_init(&ca); mbedtls_x509_crt_init(&leaf);
	int dropped = mbedtls_x509_crt_parse_file(&ca, args[1]), bad = mbedtls_x509_crt_parse_file(&leaf, args[2]);
	if (dropped || bad) { printf("%d certificates of the CA file dropped, %d of the server\n", dropped, bad); return 1; }
	for (int i = 3; i < n; i++) {
		uint32_t flags = 0;
		if (mbedtls_x509_crt_verify(&leaf, &ca, NULL, args[i], &flags, NULL, NULL)) printf("%s refused %x\n", args[i], flags);
		else printf("%s accepted\n", args[i]);
	}
}
`))(t, directory)
	program := filepath.Join(directory, "client")
	if out, err := exec.Command("gcc", "-o", program, program+".c", "-lmbedx509", "-lmbedcrypto").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write("leaf.pem", pair{cert: conn.ConnectionState().PeerCertificates[0]}.certPEM())(t, directory)
	return script(program)(t, ca, filepath.Join(directory, "leaf.pem"), hosts)
}

func TestOpenSSLVerifiesTheChainStrictly(t *testing.T) {
	chain(t, "openssl version", "openssl verify -x509_strict -purpose sslserver -verify_hostname kubernetes.default.svc -CAfile ca.crt leaf.crt")
}

func TestGnuTLSVerifiesTheChain(t *testing.T) {
	chain(t, "certtool --version", "certtool --verify --verify-hostname=kubernetes.default.svc --load-ca-certificate ca.crt --infile leaf.crt")
}

func TestKeytoolImportsThePodsCA(t *testing.T) {
	a := chain(t, "keytool -help", "keytool -importcert -noprompt -alias kubernetes -file ca.crt -keystore trust -storepass changeit && keytool -exportcert -rfc -alias kubernetes -keystore trust -storepass changeit")
	if want := regexp.MustCompile(`\s`).ReplaceAllString(string(a.CAPEM()), ""); !strings.Contains(regexp.MustCompile(`\s`).ReplaceAllString(a.said, ""), want) {
		t.Errorf("it has imported another certificate:\n%s", a.said)
	}
}

type chained struct {
	*Authority
	said string
}

// chain runs a command in a directory with ca.crt, as in the pod, and leaf.crt. It skips the test
// if the command need fails.
func chain(t *testing.T, need, command string) chained {
	t.Helper()
	if out, err := exec.Command("bash", "-c", need).CombinedOutput(); err != nil {
		t.Skipf("NOT VERIFIED: %s: %v: %s", need, err, out)
	}
	a, err := Open(Options{Directory: t.TempDir(), Names: apiNames("cluster.local")})
	if err != nil {
		t.Fatal(err)
	}
	cluster := open(t, Options{Directory: t.TempDir()})
	directory := t.TempDir()
	write("ca.crt", slices.Concat(a.CAPEM(), cluster.CAPEM()))(t, directory)
	write("leaf.crt", a.leaf.certPEM())(t, directory)
	run := exec.Command("bash", "-c", command)
	run.Dir = directory
	out, err := run.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
	return chained{a, string(out)}
}
