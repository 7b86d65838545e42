package archive

import (
	"fmt"
	"regexp"
	"strings"
)

// name is a parsed image name.
type name struct {
	registry string // "": Docker Hub
	path     string
	tag      string
}

// The grammar of github.com/distribution/reference, without digests.
var (
	registryPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*(:[0-9]+)?$`)
	pathPattern     = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

func parseName(text string) (name, error) {
	refuse := func(why string) (name, error) {
		return name{}, fmt.Errorf("name %q: %s; [registry/]path[:tag] is allowed, such as registry.example.com/rockpool:v1", text, why)
	}
	if strings.Contains(text, "@") {
		return refuse("has a digest, which is known only after the image is written")
	}
	n := name{path: text, tag: "latest"}
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, '/') {
		n.path, n.tag = text[:i], text[i+1:]
	}
	// The first part is a host if it has a dot or a port, or is localhost.
	if first, rest, found := strings.Cut(n.path, "/"); found && (strings.ContainsAny(first, ".:") || first == "localhost") {
		n.registry, n.path = first, rest
	}
	switch {
	case n.registry != "" && !registryPattern.MatchString(n.registry):
		return refuse("the registry is not a host name")
	case !pathPattern.MatchString(n.path) || len(n.registry)+len(n.path) > 254:
		return refuse("the path is not lower-case letters, digits and single separators")
	case !tagPattern.MatchString(n.tag):
		return refuse("the tag is not up to 128 letters, digits, dots, dashes and underscores")
	}
	return n, nil
}

// short is the name as docker prints it.
func (n name) short() string {
	if n.registry == "" {
		return n.path + ":" + n.tag
	}
	return n.registry + "/" + n.path + ":" + n.tag
}

// full is the name as containerd stores it and the kubelet requests it.
func (n name) full() string {
	switch {
	case n.registry != "":
		return n.short()
	case strings.Contains(n.path, "/"):
		return "docker.io/" + n.short()
	}
	return "docker.io/library/" + n.short()
}
