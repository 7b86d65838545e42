package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	minInterval = 100 * time.Millisecond
	maxInterval = time.Hour
	// More consecutive probes would take minutes, and requests wait meanwhile.
	maxThreshold = 10
	maxGrace     = 10 * 365 * 24 * time.Hour
	// For this long, a revoked permission or an expired token still counts as valid.
	maxReviewLifetime = 24 * time.Hour
	maxWritePatience  = 30 * time.Second
	maxEvents         = 10_000  // the outbox lists them in memory
	minSize           = 4 << 20 // the least for the schema and one cycle of the write-ahead log
	maxSize           = 1 << 50
)

// optional accepts the empty value, and parses any other.
func optional(parse func(string) (string, error), v string) (string, error) {
	if v == "" {
		return "", nil
	}
	return parse(v)
}

// address checks host:port; the host may be empty or a name.
func address(v string) (string, error) {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return "", fmt.Errorf("%q is not an address; host:port is allowed, such as 127.0.0.1:10268 or [::1]:10268", v)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%q has the port %q; 1 to 65535 is allowed", v, port)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isName(host) {
		return "", fmt.Errorf("%q has the host %q; an IP address or a DNS name is allowed", v, host)
	}
	return v, nil
}

// loopback checks an address where applications present tokens. It allows the hosts that the pod's
// own certificate names. 127.0.0.0/8 is for pods in the node's network, where each has its own.
func loopback(v string) (string, error) {
	if v == "" {
		return "", errors.New("is empty; host:port is allowed")
	}
	if _, err := address(v); err != nil {
		return "", err
	}
	host, _, _ := net.SplitHostPort(v)
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() && ip.String() == host {
		return v, nil
	}
	return "", fmt.Errorf("%q would be reachable from outside the pod or is not in the pod's certificate; "+
		"only 127.0.0.0/8, [::1] and localhost are allowed, because the cache is for this pod alone", v)
}

// domain checks a DNS domain.
func domain(v string) (string, error) {
	if v != strings.ToLower(v) || !isName(v) {
		return "", fmt.Errorf("%q is not a DNS domain in lower case; cluster.local is one", v)
	}
	return v, nil
}

func isName(v string) bool {
	return len(validation.IsDNS1123Subdomain(strings.ToLower(v))) == 0
}

func path(v string) (string, error) {
	if !filepath.IsAbs(v) || strings.ContainsRune(v, 0) {
		return "", fmt.Errorf("%q is not an absolute path; a path that begins with / is allowed", v)
	}
	return filepath.Clean(v), nil
}

func size(v string) (int64, error) {
	const allowed = "a Kubernetes quantity from 4Mi to 1Pi is allowed, such as 256Mi or 1Gi"
	q, err := resource.ParseQuantity(v)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; %s", v, allowed)
	}
	if strings.HasSuffix(v, "m") {
		return 0, fmt.Errorf("%q is in thousandths of a byte (m is milli); %s", v, allowed)
	}
	if q.CmpInt64(minSize) < 0 || q.CmpInt64(maxSize) > 0 {
		return 0, fmt.Errorf("%q is out of range; %s", v, allowed)
	}
	return q.Value(), nil
}

// resources parses a comma-separated list of RESOURCE or RESOURCE.GROUP.
func resources(v string) (list []schema.GroupResource, err error) {
	var problems []error
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if part != strings.ToLower(part) || len(validation.IsDNS1123Subdomain(part)) > 0 {
			problems = append(problems, fmt.Errorf("%q is not a resource; its plural name in lower case is allowed, "+
				"with its group if it has one, such as secrets or certificates.cert-manager.io", part))
			continue
		}
		if r := schema.ParseGroupResource(part); !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	if len(problems) > 0 {
		return nil, joinLine(problems)
	}
	return list, nil
}

func duration(least, most time.Duration, field func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		allowed := fmt.Sprintf("a duration with its unit from %s to %s is allowed, such as 2s or 1m30s", least, most)
		value, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%q is not a duration; %s", v, allowed)
		}
		if value < least || value > most {
			return fmt.Errorf("%q is out of range; %s", v, allowed)
		}
		*field(c) = value
		return nil
	}
}

// number parses an integer.
func number(least, most int, field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", v, least, most)
		}
		*field(c) = n
		return nil
	}
}

func boolean(v string) (bool, error) {
	v, err := oneOf(v, "true", "false")
	return v == "true", err
}

// ParseReport parses report.kinds.
func ParseReport(v string) (r Report, err error) {
	for word := range strings.SplitSeq(v, ",") {
		switch strings.TrimSpace(word) {
		case "events":
			r.Events = true
		case "condition":
			r.Condition = true
		case "none":
			if strings.TrimSpace(v) != "none" {
				return Report{}, fmt.Errorf("%q has none and more; none alone is allowed, or events, condition or both with a comma", v)
			}
		default:
			return Report{}, fmt.Errorf("%q is unknown; allowed are none, events, condition, and events,condition", word)
		}
	}
	return r, nil
}

func level(v string) (zapcore.Level, error) {
	if _, err := oneOf(v, "debug", "info", "warn", "error"); err != nil {
		return 0, err
	}
	return zapcore.ParseLevel(v)
}

func oneOf(v string, allowed ...string) (string, error) {
	if !slices.Contains(allowed, v) {
		return "", fmt.Errorf("%q is unknown; allowed are %s", v, strings.Join(allowed, ", "))
	}
	return v, nil
}

// joinLine joins several problems of one key on one line.
func joinLine(problems []error) error {
	messages := make([]string, len(problems))
	for i, err := range problems {
		messages[i] = err.Error()
	}
	return errors.New(strings.Join(messages, "; "))
}
