package archive

import (
	"fmt"
	"slices"
	"strings"
)

// Platform is the platform of an image, in Go's terms.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// platforms are the platforms of Rockpool.
var platforms = []Platform{
	{OS: "linux", Architecture: "amd64"},
	{OS: "linux", Architecture: "arm64"},
	{OS: "linux", Architecture: "arm", Variant: "v7"},
}

// ParsePlatform parses "linux/amd64", "linux/arm64" or "linux/arm/v7".
func ParsePlatform(text string) (Platform, error) {
	parts := strings.SplitN(text, "/", 3)
	parts = append(parts, "", "", "")
	p := Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	return p, p.validate()
}

func (p Platform) String() string {
	text := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		text += "/" + p.Variant
	}
	return text
}

func (p Platform) validate() error {
	if slices.Contains(platforms, p) {
		return nil
	}
	var allowed []string
	for _, k := range platforms {
		allowed = append(allowed, k.String())
	}
	return fmt.Errorf("platform %q: is not one of %s", p, strings.Join(allowed, ", "))
}
