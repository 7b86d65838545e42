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
	TLSServerName string   // empty = upstream.tls-server-name; in UpstreamServers, the URL's host
	CAFile        string   // absolute path; empty = the cluster's, in account.source
	InCluster     bool     // the kubelet gives this address to every pod; it was not configured
}

// Fields of an entry of upstream.servers. The URL comes first, and other fields may follow:
// https://203.0.113.7:6443;tls-server-name=kubernetes;ca-file=/etc/edge/ca.crt. In a file an
// entry may also be a mapping.
const (
	fieldURL  = "url"
	fieldName = "tls-server-name"
	fieldCA   = "ca-file"
)

const allowedFields = "allowed are " + fieldURL + ", " + fieldName + " and " + fieldCA +
	", such as https://203.0.113.7:6443;" + fieldName + "=kubernetes"

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
		return nil, joinLine(problems)
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

// mappingEntry converts an entry that is a mapping in a file to the form of a flag.
func mappingEntry(fields map[string]any) (string, error) {
	address, rest := "", ""
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := ""
		if fields[name] != nil {
			value = strings.TrimSpace(fmt.Sprint(fields[name]))
		}
		if strings.ContainsAny(value, ",;") {
			return "", fmt.Errorf("%s: must not contain ',' or ';': they separate entries and fields", name)
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
	// Checked before any error quotes v: the text before @ may be a password.
	if strings.Contains(v, "@") {
		return nil, errors.New("the URL (not shown) has a user or password; remove everything up to the @, " +
			"because the pod's own token is used")
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

// serverURL always has a port, so that URLs of the same server are equal strings.
func serverURL(host, port string) *url.URL {
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}
}

// appendOnce adds a server unless the list has it. The same address with another TLS name or
// CA file is an error.
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

// UpstreamServers returns all servers in order of preference, each with the name to verify in
// its certificate. The in-cluster address, from the variables KUBERNETES_SERVICE_HOST and
// KUBERNETES_SERVICE_PORT that the kubelet sets in every container, follows upstream.servers.
// Each address is listed once. upstream.tls-server-name does not apply to the in-cluster one.
// getenv is os.Getenv, except in tests.
//
// An empty list is an error: no server could take a request.
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
		return nil, fmt.Errorf("upstream.servers is empty and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: "+
			"set --upstream.servers (%s) to the https URL of a kube-apiserver", envName("upstream.servers"))
	}
	return list, nil
}

// inCluster returns the in-cluster address, or nil unless both variables are set.
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
