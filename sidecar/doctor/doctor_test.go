package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rockpool.dev/sidecar/upstream"
	"rockpool.dev/store"
)

// pod is a pod in which all is well, until a test plants a fault.
type pod struct {
	Options
	t       *testing.T
	api     *httptest.Server // the API server
	answer  http.HandlerFunc // what it says
	sidecar *httptest.Server // what programs connect to
	metrics map[string]string
	cache   *store.DB
	free    uint64 // of the disk; 0: as it is
	frozen  bool   // the disk is read-only
}

func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{t: t, metrics: map[string]string{
		`rockpool_build_info{component="sidecar",version="v1"}`:                                         "1",
		`rockpool_config_problems`:                                                                      "0",
		`rockpool_requests_total{verb="list",resource="configmaps",code="200",source="upstream"}`:       "3",
		`rockpool_link_bytes_total{direction="received",agent="web",verb="list",resource="configmaps"}`: "900",
		`rockpool_link_state`:                                                            "3",
		`rockpool_link_offline_seconds_total`:                                            "60",
		`rockpool_link_last_online_timestamp_seconds`:                                    fmt.Sprint(time.Now().Unix()),
		`rockpool_cache_used_bytes{cache="disk"}`:                                        "10",
		`rockpool_cache_max_bytes{cache="disk"}`:                                         "100",
		`rockpool_record_stopped{cache="disk"}`:                                          "0",
		`rockpool_collection_age_seconds{resource="configmaps",object_namespace="shop"}`: "0",
	}}
	p.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Audit-Id", "1")
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"kind":"APIVersions","versions":["v1"]}`)
	}
	quiet := log.New(io.Discard, "", 0)
	serve := func(handler http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(handler)
		s.Config.ErrorLog = quiet
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	p.api = serve(func(w http.ResponseWriter, r *http.Request) { p.answer(w, r) })
	p.sidecar = serve(func(http.ResponseWriter, *http.Request) {})
	at, err := url.Parse(p.api.URL)
	if err != nil {
		t.Fatal(err)
	}
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for series, value := range p.metrics {
			fmt.Fprintf(w, "%s %s\n", series, value)
		}
	}))
	t.Cleanup(metrics.Close)
	p.Options = Options{
		Listen: p.sidecar.Listener.Addr().String(), Metrics: metrics.Listener.Addr().String(), Account: t.TempDir(), Mirror: t.TempDir(), Cache: t.TempDir(),
		Servers: []upstream.Server{{URL: at}}, Records: func(agent string) bool { return agent != "kubectl" }, Version: "v1", Timeout: time.Second,
	}
	for _, dir := range []string{p.Account, p.Mirror} {
		p.write(filepath.Join(dir, "token"), token(time.Now().Add(time.Hour)))
		p.write(filepath.Join(dir, "ca.crt"), certificate(p.api))
	}
	if p.cache, err = store.Open(t.Context(), p.Cache, store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cache.Close() })
	s := store.Scope{Principal: "web", Version: "v1", Resource: "configmaps", Representation: "object", Namespace: "shop", MediaType: "application/json"}
	list := store.NewSnapshot(s, store.Evidence{Asked: p.cache.Next(), Told: p.cache.Next(), Read: store.Latest})
	p.update(func(tx *store.Tx) error {
		if err := list.Add(tx, store.Object{Namespace: "shop", Name: "a", UID: "u", ResourceVersion: "1", Encoding: store.JSONBare, Payload: []byte(`{"a":"b"}`)}); err != nil {
			return err
		}
		return list.Commit(tx, store.CollectionMeta{Kind: "ConfigMap", APIVersion: "v1", ResourceVersion: "1"})
	})
	return p
}

func (p *pod) update(f func(*store.Tx) error) {
	p.t.Helper()
	if err := p.cache.Update(p.t.Context(), f); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) write(path, text string) {
	p.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// closed closes the cache, so that a test can replace its file.
func (p *pod) closed() string {
	p.t.Helper()
	if err := p.cache.Close(); err != nil {
		p.t.Fatal(err)
	}
	return filepath.Join(p.Cache, store.FileName)
}

// address replaces the API server's address.
func (p *pod) address(host string) {
	p.Servers = []upstream.Server{{URL: &url.URL{Scheme: "https", Host: host}}}
}

func certificate(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func token(expiry time.Time) string {
	claims := fmt.Sprintf(`{"sub":"system:serviceaccount:shop:web","exp":%d}`, expiry.Unix())
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

// listen accepts connections and hands them to f.
func listen(t *testing.T, f func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
		}
	}()
	return l.Addr().String()
}

// expired is a certificate for 127.0.0.1 that is not valid any more.
func expired(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// examine makes all checks, on the disk that the test has planted.
func (p *pod) examine() []Finding {
	all := Examine(p.t.Context(), p.Options)
	if p.free > 0 || p.frozen {
		x := &examination{Options: p.Options}
		x.space(p.free, p.frozen)
		all = append(slices.DeleteFunc(all, func(f Finding) bool { return f.Code == Disk }), x.findings...)
	}
	return all
}

// faults are planted one at a time. also are the codes that follow from the fault as well.
var faults = map[Code]struct {
	plant func(*pod)
	level Level
	also  []Code
}{
	SidecarSilent:   {func(p *pod) { p.Metrics = "127.0.0.1:1" }, Fail, nil},
	SettingsInvalid: {func(p *pod) { p.metrics["rockpool_config_problems"] = "2" }, Warn, nil},
	VersionDiffers:  {func(p *pod) { p.Version = "v2" }, Warn, nil},
	NoRequests: {func(p *pod) {
		p.metrics = map[string]string{`rockpool_build_info{component="sidecar",version="v1"}`: "1"}
	}, Warn, nil},
	RequestsRefused: {func(p *pod) {
		p.metrics[`rockpool_requests_total{verb="list",resource="pods",code="503",source="refused"}`] = "4"
	}, Warn, nil},
	AgentNotRecorded: {func(p *pod) {
		p.metrics[`rockpool_link_bytes_total{direction="received",agent="kubectl",verb="get",resource="pods"}`] = "4"
	}, Warn, nil},
	TokenMissing:      {func(p *pod) { p.write(filepath.Join(p.Account, "token"), "") }, Fail, nil},
	TokenExpired:      {func(p *pod) { p.write(filepath.Join(p.Account, "token"), token(time.Now().Add(-time.Hour))) }, Fail, nil},
	CAMissing:         {func(p *pod) { p.write(filepath.Join(p.Account, "ca.crt"), "") }, Fail, []Code{AddressUntrusted}},
	HandshakeFails:    {func(p *pod) { p.sidecar.Close() }, Fail, nil},
	NoAddress:         {func(p *pod) { p.Servers = nil }, Fail, nil},
	AddressUnresolved: {func(p *pod) { p.address("no-such-host.invalid:6443") }, Fail, nil},
	AddressRefused:    {func(p *pod) { p.address("127.0.0.1:1") }, Fail, nil},
	AddressSilent: {func(p *pod) {
		p.address(listen(p.t, func(c net.Conn) { p.t.Cleanup(func() { _ = c.Close() }) }))
	}, Fail, nil},
	AddressUntrusted: {func(p *pod) {
		own := expired(p.t)
		p.write(filepath.Join(p.Account, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})))
	}, Fail, nil},
	AddressWrongName: {func(p *pod) { p.Servers[0].TLSServerName = "kubernetes.other" }, Fail, nil},
	AddressCertificate: {func(p *pod) {
		own := expired(p.t)
		p.write(filepath.Join(p.Account, "ca.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]})))
		p.address(listen(p.t, func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{own}}).Handshake()
			_ = c.Close()
		}))
	}, Fail, nil},
	AddressBroken: {func(p *pod) {
		p.address(listen(p.t, func(c net.Conn) {
			_, _ = io.WriteString(c, "220 mail.example.com ESMTP\r\n")
			_ = c.Close()
		}))
	}, Fail, nil},
	AddressForeign: {func(p *pod) {
		p.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>Please log in</html>") }
	}, Fail, nil},
	TokenRefused: {func(p *pod) {
		p.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Audit-Id", "1")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}, Fail, nil},
	ClockOff: {func(p *pod) {
		good := p.answer
		p.answer = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			good(w, r)
		}
	}, Warn, nil},
	LinkDown: {func(p *pod) { p.metrics["rockpool_link_state"] = "0" }, Fail, nil},
	LinkFlaps: {func(p *pod) {
		for range 8 {
			p.update(func(tx *store.Tx) error {
				return errors.Join(tx.PutLink("offline", "silent"), tx.PutLink("online", "answers"))
			})
		}
	}, Warn, nil},
	ReportsRefused: {func(p *pod) { p.metrics[`rockpool_reports_total{kind="condition",result="refused"}`] = "1" }, Warn, nil},
	Forbidden: {func(p *pod) {
		p.metrics[`rockpool_requests_total{verb="list",resource="nodes",code="403",source="upstream"}`] = "1"
	}, Warn, nil},
	FilterUnsure: {func(p *pod) {
		p.metrics[`rockpool_filter_reads_refused{resource="nodes"}`] = "1"
		p.metrics[`rockpool_filter_reads_refused{resource="services"}`] = "0"
	}, Warn, nil},
	CacheMissing:    {func(p *pod) { p.CacheError = errors.New("no cache in /var/lib/rockpool") }, Fail, nil},
	CacheUnreadable: {func(p *pod) { p.write(p.closed(), strings.Repeat("garbage ", 1000)) }, Fail, nil},
	CacheDamaged: {func(p *pod) {
		if out, err := exec.Command("sqlite3", p.closed(), `UPDATE object SET payload = '{"a":"x"}'`).CombinedOutput(); err != nil {
			p.t.Fatalf("%v: %s", err, out)
		}
	}, Fail, nil},
	RecordingStopped: {func(p *pod) { p.metrics[`rockpool_record_stopped{cache="disk"}`] = "1" }, Fail, nil},
	CacheFull:        {func(p *pod) { p.metrics[`rockpool_cache_used_bytes{cache="disk"}`] = "95" }, Warn, nil},
	ListTooLarge: {func(p *pod) {
		p.metrics[`rockpool_record_oversized_bytes{cache="disk",collection="v1/pods"}`] = "1000"
	}, Warn, nil},
	NothingRecorded: {func(p *pod) {
		p.Cache = p.t.TempDir()
		db, err := store.Open(p.t.Context(), p.Cache, store.Options{})
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { _ = db.Close() })
	}, Warn, nil},
	ListNotRecorded: {func(p *pod) {
		p.metrics[`rockpool_requests_total{verb="list",resource="pods",code="200",source="upstream"}`] = "1"
	}, Warn, nil},
	AnswersOld: {func(p *pod) {
		p.metrics[`rockpool_collection_age_seconds{resource="configmaps",object_namespace="shop"}`] = "7200"
	}, Warn, nil},
	WouldBeRefused: {func(p *pod) {
		p.Rehearse = func(context.Context) ([]Rehearsed, error) {
			return []Rehearsed{{Agent: "web/1", Method: "GET", Path: "/api/v1/pods", Reason: "not recorded"}, {Agent: "web/1", Method: "GET", Path: "/api/v1/nodes", Age: time.Minute}}, nil
		}
	}, Warn, nil},
	RehearsalFails: {func(p *pod) {
		p.Rehearse = func(context.Context) ([]Rehearsed, error) { return nil, errors.New("no socket") }
	}, Warn, nil},
	DiskFull:     {func(p *pod) { p.free = 1 << 20 }, Fail, nil},
	DiskReadOnly: {func(p *pod) { p.frozen = true }, Fail, nil},
}

func TestEachPlantedFaultIsNamedByItsOwnCode(t *testing.T) {
	for code, fault := range faults {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			fault.plant(p)
			var named []Code
			for _, f := range p.examine() {
				if f.Level == OK {
					continue
				}
				named = append(named, f.Code)
				if f.Code == code && (f.Level != fault.level || f.Next == "" || f.Fact == "") {
					t.Errorf("%+v, want %s", f, fault.level)
				}
				if strings.Contains(f.Fact, p.tokenOnDisk()) && p.tokenOnDisk() != "" {
					t.Errorf("the token is in %q", f.Fact)
				}
			}
			if want := append([]Code{code}, fault.also...); !slices.Equal(named, want) {
				t.Errorf("named are %v, want %v", named, want)
			}
		})
	}
	for code := range Advice {
		if _, ok := faults[code]; !ok {
			t.Errorf("no fault is planted for %s", code)
		}
	}
}

func (p *pod) tokenOnDisk() string {
	raw, _ := os.ReadFile(filepath.Join(p.Account, "token"))
	return strings.TrimSpace(string(raw))
}

func TestAHealthyPodHasNothingToDo(t *testing.T) {
	p := newPod(t)
	p.Rehearse = func(context.Context) ([]Rehearsed, error) { return []Rehearsed{{Age: 90 * time.Second}}, nil }
	var codes []Code
	for _, f := range p.examine() {
		if codes = append(codes, f.Code); f.Level != OK || f.Next != "" {
			t.Errorf("%+v", f)
		}
	}
	want := []Code{Sidecar, Requests, Account, Handshake, Address, Link, Permissions, Cache, Lists, Disk, Rehearsal}
	if !slices.Equal(codes, want) {
		t.Errorf("checks %v, want %v", codes, want)
	}
	if last := p.examine()[len(codes)-1]; last.Fact != "1 of 1 requests would be answered if the link went now; the oldest answer is 1m30s old" {
		t.Errorf("%+v", last)
	}
	if Worst(p.examine()) != OK {
		t.Error("the worst is not OK")
	}
}

func TestAnAddressThatFailsOnlyWarnsBesideAGoodOne(t *testing.T) {
	p := newPod(t)
	p.Servers = append(p.Servers, upstream.Server{URL: &url.URL{Scheme: "https", Host: "127.0.0.1:1"}})
	all := p.examine()
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Code == AddressRefused })
	if i < 0 || all[i].Level != Warn || Worst(all) != Warn {
		t.Errorf("%+v", all)
	}
}

// Everybody who gets a code finds it in the manual, and nothing else.
func TestTheManualHasASectionForEachCode(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	part, _, _ := strings.Cut(string(page), "\n## Pods are not injected\n") // that is the injector's
	sections := map[Code]bool{}
	for line := range strings.Lines(part) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "### "); ok {
			sections[Code(strings.Trim(code, "`"))] = true
		}
	}
	for code := range Advice {
		if !sections[code] {
			t.Errorf("docs/troubleshooting.md has no section for %s", code)
		}
		delete(sections, code)
	}
	for code := range sections {
		t.Errorf("docs/troubleshooting.md has a section for %s, which is no code", code)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(token(time.Unix(1_700_000_000, 0)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if subject, _ := claims(token); subject == "" {
			t.Error("nobody")
		}
	})
}
