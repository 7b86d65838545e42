package status

import (
	_ "embed" // for the page
	"fmt"
	"html/template"
	"io"
	"strings"
	"sync"
	"time"

	"rockpool.dev/sidecar/inspect"
)

//go:embed page.html
var source string

// page is parsed when somebody asks for it first: a pod that nobody looks at has no memory for it.
var page = sync.OnceValues(func() (*template.Template, error) {
	return template.New("status").Funcs(template.FuncMap{
		"age": inspect.Age, "bytes": bytesText, "time": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"agent": AgentName, "join": func(all []string) string { return strings.Join(all, ", ") },
		"short": func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() },
	}).Parse(source)
})

// write writes the page.
func (s *Status) write(w io.Writer) error {
	t, err := page()
	if err != nil {
		return err
	}
	return t.Execute(w, s)
}

// Ago is how long ago something was.
func (s *Status) Ago(t time.Time) string { return inspect.Age(s.Now.Sub(t)) + " ago" }

// bytesText is a size with a binary unit.
func bytesText(n int64) string {
	const unit = 1024
	size, name := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB"} {
		if size < unit {
			break
		}
		size, name = size/unit, next
	}
	if name == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", size, name)
}
