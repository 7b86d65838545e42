package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Server is one address of the API server.
type Server struct {
	URL           *url.URL // https, no path
	TLSServerName string   // empty: upstream.tls-server-name in Upstream.Servers, the URL's host in UpstreamServers
	CAFile        string   // absolute path; empty = the cluster's, in account.source
	InCluster     bool     // it is the address that the kubelet gives to every pod, and was not configured
}

// Fields of an entry of upstream.servers: the URL alone, or with others behind it,
// https://203.0.113.7:6443;tls-server-name=kubernetes;ca-file=/etc/edge/ca.crt. In
// a file an entry may also be a mapping.
const (
	fieldURL  = "url"
	fieldName = "tls-server-name"
	fieldCA   = "ca-file"
)

const allowedFields = "allowed are " + fieldURL + ", " + fieldName + " and " + fieldCA + ", such as https://203.0.113.7:6443;" + fieldName + "=kubernetes"

// servers parses a comma-separated list of entries, in order, each once.
func servers(v string) (list []Server, err error) {
	var problems []error
	n := 0
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		n++
		s, err := entry(part)
		if err == nil {
			list, err = appendOnce(list, s)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("entry %d: %w", n, err))
		}
	}
	if len(problems) > 0 {
		return nil, joined(problems)
	}
	return list, nil
}

// entry parses one server with its fields.
func entry(v string) (s Server, err error) {
	address, fields, more := strings.Cut(v, ";")
	if s.URL, err = server(strings.TrimSpace(address)); err != nil {
		return s, fmt.Errorf("%s: %w", fieldURL, err)
	}
	seen := map[string]bool{}
	for more {
		var field string
		field, fields, more = strings.Cut(fields, ";")
		name, value, _ := strings.Cut(field, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case seen[name]:
			err = errors.New("is given twice")
		case name == fieldName:
			s.TLSServerName, err = serverName(value)
		case name == fieldCA:
			s.CAFile, err = path(value)
		default:
			return s, fmt.Errorf("%s: there is no field %q; %s", s.URL, name, allowedFields)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %s: %w", s.URL, name, err)
		}
		seen[name] = true
	}
	return s, nil
}

// mapping writes an entry that is a mapping in a file as it would be in a flag.
func mapping(fields map[string]any) (string, error) {
	address, rest := "", ""
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := ""
		if fields[name] != nil {
			value = strings.TrimSpace(fmt.Sprint(fields[name]))
		}
		if strings.ContainsAny(value, ",;") {
			return "", fmt.Errorf("%s: has a comma or a semicolon in it, which part entries and fields", name)
		}
		if name == fieldURL {
			address = value
			continue
		}
		rest += ";" + name + "=" + value
	}
	if address == "" {
		return "", fmt.Errorf("an entry has no %s; %s", fieldURL, allowedFields)
	}
	return address + rest, nil
}

func server(v string) (*url.URL, error) {
	// Before anything can quote it: what stands before @ may be a password.
	if strings.Contains(v, "@") {
		return nil, errors.New("a URL with a user or password (not shown) is given; the pod's own token is used, remove everything up to the @")
	}
	const allowed = "an https URL without path, query and fragment is allowed, such as https://203.0.113.7:6443"
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL; %s", v, allowed)
	case u.Scheme != "https":
		return nil, fmt.Errorf("%q is not https; %s", v, allowed)
	case u.Opaque != "" || u.Hostname() == "":
		return nil, fmt.Errorf("%q has no host; %s", v, allowed)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("%q has a path; %s", v, allowed)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, fmt.Errorf("%q has a query or a fragment; %s", v, allowed)
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if _, err := netip.ParseAddr(host); err != nil && !isName(host) {
		return nil, fmt.Errorf("%q has the host %q, neither an IP address nor a DNS name; %s", v, host, allowed)
	}
	if port == "" {
		port = "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("%q has the port %q; 1 to 65535 is allowed", v, port)
	}
	return serverURL(host, port), nil
}

// serverURL always has a port, so that equal servers are equal strings.
func serverURL(host, port string) *url.URL {
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
}

// appendOnce adds a server unless it is there. Two that differ only in how the same
// address is to be trusted are a mistake.
func appendOnce(list []Server, s Server) ([]Server, error) {
	for _, have := range list {
		if have.URL.Host != s.URL.Host {
			continue
		}
		if have.TLSServerName != s.TLSServerName || have.CAFile != s.CAFile {
			return list, fmt.Errorf("%s: is given before with another %s or %s", s.URL, fieldName, fieldCA)
		}
		return list, nil
	}
	return append(list, s), nil
}

func serverName(v string) (string, error) {
	if _, err := netip.ParseAddr(v); err != nil && !isName(v) {
		return "", fmt.Errorf("%q is not a name in a certificate; a DNS name or an IP address is allowed", v)
	}
	return v, nil
}

// UpstreamServers gives all servers in the order in which they are tried, each with
// the name to find in its certificate: upstream.servers, then the in-cluster address
// from the variables KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT as the kubelet
// sets them in every container. Each address is there once. upstream.tls-server-name
// is not for the in-cluster one. getenv is os.Getenv, but for tests.
//
// An empty list is an error: there would be nothing to pass a request on to.
func (c Config) UpstreamServers(getenv func(string) string) ([]Server, error) {
	inCluster, err := c.inCluster(getenv)
	if err != nil {
		return nil, err
	}
	list, listed := slices.Clone(c.Upstream.Servers), false
	for i, s := range list {
		own := inCluster != nil && s.URL.Host == inCluster.Host
		if listed = listed || own; !own && s.TLSServerName == "" {
			list[i].TLSServerName = c.Upstream.TLSServerName
		}
	}
	if inCluster != nil && !listed {
		list = append(list, Server{URL: inCluster, InCluster: true})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("upstream.servers is empty and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: set --upstream.servers (%s) to the https URL of a kube-apiserver", envName("upstream.servers"))
	}
	return list, nil
}

// inCluster gives the in-cluster address, nil when the variables are not both set.
func (c Config) inCluster(getenv func(string) string) (*url.URL, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, nil
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	u, err := server("https://" + net.JoinHostPort(host, port))
	if err == nil {
		err = c.notSelf(u)
	}
	if err != nil {
		return nil, fmt.Errorf("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: %w", err)
	}
	return u, nil
}
