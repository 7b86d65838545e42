package replay

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apifield "k8s.io/apimachinery/pkg/util/validation/field"

	"rockpool.dev/sidecar/api/request"
)

// checkOptions returns the API server's error for parameters of a list or watch that contradict
// each other (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch).
func checkOptions(info *request.Info) error {
	if !info.IsResource || info.Name != "" || info.Verb != request.List && info.Verb != request.Watch {
		return nil
	}
	return checkListOptions(*info) // a copy, so that the Info of other requests stays where it is
}

func checkListOptions(info request.Info) error {
	c := contradictions{info: &info}
	if info.Watch {
		c.ofWatch()
	} else {
		c.ofList()
	}
	if len(c.found) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", c.found)
}

// contradictions collects what the API server refuses.
type contradictions struct {
	info  *request.Info
	found apifield.ErrorList
}

func (c *contradictions) forbid(name, detail string) {
	c.found = append(c.found, apifield.Forbidden(apifield.NewPath(name), detail))
}

const (
	versionMatch  = "resourceVersionMatch"
	initialEvents = "sendInitialEvents"
	exactly       = string(metav1.ResourceVersionMatchExact)
	notOlder      = string(metav1.ResourceVersionMatchNotOlderThan)
)

func (c *contradictions) ofList() {
	o := &c.info.Options
	if o.ResourceVersionMatch != "" {
		if o.ResourceVersion == "" {
			c.forbid(versionMatch, "resourceVersionMatch is forbidden unless resourceVersion is provided")
		}
		c.withContinue()
		c.supports(exactly, notOlder, "")
		if o.ResourceVersionMatch == exactly && o.ResourceVersion == "0" {
			c.forbid(versionMatch, `resourceVersionMatch "exact" is forbidden for resourceVersion "0"`)
		}
	}
	if o.HasInitialEvents {
		c.forbid(initialEvents, "sendInitialEvents is forbidden for list")
	}
}

func (c *contradictions) ofWatch() {
	o := &c.info.Options
	if o.HasInitialEvents && o.ResourceVersionMatch != notOlder {
		c.forbid(versionMatch, fmt.Sprintf("sendInitialEvents requires setting resourceVersionMatch to %s", notOlder))
	}
	if o.ResourceVersionMatch != "" {
		if !o.HasInitialEvents {
			c.forbid(versionMatch, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
		}
		c.supports(notOlder)
		c.withContinue()
	}
}

func (c *contradictions) withContinue() {
	if c.info.Continue != "" {
		c.forbid(versionMatch, "resourceVersionMatch is forbidden when continue is provided")
	}
}

func (c *contradictions) supports(values ...string) {
	for _, v := range values {
		if c.info.ResourceVersionMatch == v {
			return
		}
	}
	c.found = append(c.found, apifield.NotSupported(apifield.NewPath(versionMatch), c.info.ResourceVersionMatch, values))
}
