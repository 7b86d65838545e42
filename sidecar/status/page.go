package status

import (
	"cmp"
	_ "embed" // for the style sheet
	"fmt"
	"strconv"
	"strings"
	"time"

	"rockpool.dev/sidecar/inspect"
)

//go:embed page.css
var styles string

// page returns the page in HTML.
func (s *Status) page() []byte {
	w := &writer{}
	w.put(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
`)
	w.element(`<title>Rockpool: the link is `, s.Link.State, "</title>\n<style>\n")
	w.WriteString(styles)
	w.put("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the content</a>\n")
	s.header(w)
	w.put("<main id=\"main\">\n")
	if len(s.Problems) > 0 {
		w.section("problems", "Problems")
		w.put("<ul>")
		for _, p := range s.Problems {
			w.element("<li>", p, "</li>")
		}
		w.put("</ul>\n</section>\n")
	}
	for _, part := range []func(*writer){s.link, s.addresses, s.failing, s.collections, s.watches, s.errors, s.settings} {
		part(w)
		w.put("</section>\n")
	}
	w.put("</main>\n</body>\n</html>\n")
	return w.Bytes()
}

// section begins a section.
func (w *writer) section(id, title markup) {
	w.put(`<section id="`, id, `" aria-labelledby="h-`, id, `"><h2 id="h-`, id, `">`, title, "</h2>\n")
}

// classOf is the class of a state.
func classOf(state string) markup {
	switch state {
	case "online", "up":
		return "good"
	case "offline", "down":
		return "bad"
	}
	return "fair"
}

func (s *Status) header(w *writer) {
	w.put(`<header>
<h1>Rockpool `)
	w.parts(cell{{class: classOf(s.Link.State), text: s.Link.State}})
	w.put("</h1>\n<p>")
	switch {
	case s.Link.State == "offline" && s.Link.LastOnline.IsZero():
		w.put("The link to the API server is down. Programs get recorded answers.")
	case s.Link.State == "offline":
		w.element("The link to the API server is down. It was up ", s.ago(s.Link.LastOnline), ". Programs get recorded answers.")
	case s.Link.State == "online":
		w.put("The link to the API server is up.")
	default:
		w.put("It is not known yet whether the link to the API server is up. Requests are tried.")
	}
	w.put("</p>\n<p class=\"quiet\">")
	for _, x := range []struct {
		name markup
		text string
	}{{"Node ", s.Node}, {"Host ", s.Host}, {"Version ", s.Version}} {
		if x.text != "" {
			w.element(x.name, x.text, ". ")
		}
	}
	w.element("Running for ", inspect.Age(s.Now.Sub(s.Started)), ". As of ")
	w.parts(at(s.Now))
	w.put(` UTC. <a href="/">Reload</a>, or read this as <a href="/status.json">JSON</a>.</p>
<nav aria-label="Sections"><ul>
<li><a href="#link">Link</a></li><li><a href="#addresses">Addresses</a></li>`)
	for _, x := range []struct {
		begin markup
		n     int
	}{
		{`<li><a href="#failing">Would fail (`, len(s.Failing)}, {`<li><a href="#collections">Recorded (`, len(s.Collections)},
		{`<li><a href="#watches">Watches (`, len(s.Watches)}, {`<li><a href="#errors">Errors (`, len(s.Errors)},
	} {
		w.element(x.begin, strconv.Itoa(x.n), `)</a></li>`)
	}
	w.put(`<li><a href="#settings">Settings</a></li>
</ul></nav>
</header>
`)
}

// thinnest is the least width of an outage in the picture, in percent of it.
const thinnest = 0.3

func (s *Status) link(w *writer) {
	w.section("link", "Link in the last 24 hours")
	outages := s.Outages()
	times := strconv.Itoa(outages.Count) + " times"
	if outages.Count == 1 {
		times = "once"
	}
	w.element("<p>Down ", times, ", ")
	w.element("", inspect.Age(outages.Time), " in all. Since the start of the sidecar: ")
	w.element("", inspect.Age(s.Link.Offline), ".</p>\n")
	w.element(`<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="The link was down `, times, " in the last 24 hours, ")
	w.element("", inspect.Age(outages.Time), " in all. The table has each change.\">\n")
	// Outages come last, and are never too thin to be seen.
	for _, outages := range []bool{false, true} {
		for _, x := range s.Timeline() {
			if (x.State == "offline") != outages {
				continue
			}
			width := x.Width
			if outages {
				width = max(width, thinnest)
			}
			w.element(`<rect class="`, cmp.Or(x.State, "unknown"), `" y="0" height="10" x="`)
			w.element("", strconv.FormatFloat(min(x.X, 100-width), 'f', 3, 64), `" width="`)
			w.element("", strconv.FormatFloat(width, 'f', 3, 64), "\"></rect>\n")
		}
	}
	w.put("</svg>\n<p class=\"ends\" aria-hidden=\"true\"><span>24 hours ago</span><span>now</span></p>\n")
	if len(s.Link.Changes) == 0 {
		w.put("<p class=\"quiet\">No change is recorded.</p>\n")
		return
	}
	var rows [][]cell
	for _, c := range s.Latest() {
		rows = append(rows, []cell{at(c.At), {{class: classOf(c.State), text: c.State}}, plain(c.Reason)})
	}
	w.table("Changes of the link", "Changes, the latest one first", []column{{"Time (UTC)", "time"}, {"State", "state"}, {"Reason", "text"}}, rows)
}

func (s *Status) addresses(w *writer) {
	w.section("addresses", "Addresses of the API server")
	var rows [][]cell
	for _, a := range s.Addresses {
		name, state, heard, trip := plain(a.URL), cell{{class: classOf(a.State), text: a.State}}, "never", "not measured"
		if a.LastResort {
			name = append(name, part{class: "quiet", text: " (in the cluster, tried last)"})
		}
		if !a.Ready {
			state = append(state, part{text: ", not ready"})
		}
		if !a.Heard.IsZero() {
			heard = s.ago(a.Heard)
		}
		if a.RoundTrip > 0 {
			trip = a.RoundTrip.Round(100 * time.Microsecond).String()
		}
		rows = append(rows, []cell{name, state, plain(heard), plain(trip), plain(cmp.Or(a.Error, "none"))})
	}
	w.table("Addresses", "", []column{{"Address", ""}, {"State", "state"}, {"Heard", "time"}, {"Round trip", "time"}, {"Last error", "text"}}, rows)
}

func (s *Status) failing(w *writer) {
	w.section("failing", "Requests that would fail offline")
	switch {
	case len(s.Failing) > 0:
		w.element("<p>Of ", strconv.Itoa(s.Rehearsed), " distinct requests since the start, ")
		w.parts(cell{{class: "bad", text: strconv.Itoa(len(s.Failing)) + " would fail"}})
		w.element(" if the link went now. The oldest other answer is ", inspect.Age(s.Oldest), " old.</p>\n")
		var rows [][]cell
		for _, f := range s.Failing {
			rows = append(rows, []cell{plain(AgentName(f.Agent)), plain(f.Method + " " + f.Path), plain(f.Reason)})
		}
		w.table("Requests that would fail offline", "", []column{{"Program", ""}, {"Request", "text"}, {"Why", "text"}}, rows)
	case s.Rehearsed > 0:
		w.element(`<p><span class="good">None</span> of `, strconv.Itoa(s.Rehearsed), " distinct requests since the start. ")
		w.element("The oldest answer is ", inspect.Age(s.Oldest), " old.</p>\n")
	default:
		w.put("<p class=\"quiet\">No program has asked since the start.</p>\n")
	}
	w.put("<p class=\"quiet\">Writes that are queued or renewed offline are left out.</p>\n")
}

func (s *Status) collections(w *writer) {
	w.section("collections", "Recorded lists and objects")
	if len(s.Collections) == 0 {
		w.put("<p class=\"quiet\">Nothing is recorded.</p>\n")
	} else {
		var rows [][]cell
		for i := range s.Collections {
			rows = append(rows, s.collection(&s.Collections[i]))
		}
		w.table("Recorded lists and objects", "", []column{
			{"Resource", ""}, {"Namespace", "state"}, {"Selector", "state"}, {"State", "state"}, {"Objects", "number"}, {"Size", "number"},
			{"Version", "state"}, {"Age", "time"}, {"Asked by", "text"},
		}, rows)
	}
	w.element("<p class=\"quiet\">Also ", strconv.Itoa(s.Documents.Count), " other answers, such as discovery, with ")
	w.element("", bytesText(s.Documents.Bytes), ".</p>\n")
}

func (s *Status) collection(c *Collection) []cell {
	name, state := plain(c.Resource), cell{{class: "fair", text: c.State}, {text: ", " + c.Form}}
	if c.InMemory {
		name = append(name, part{class: "quiet", text: " (in memory)"})
	}
	switch c.State {
	case "complete":
		state[0].class = "good"
	case "objects":
		state[0] = part{text: "single objects"}
	}
	age := cmp.Or(c.Age, "unknown")
	if c.Watched && s.Link.State == "online" {
		age = "in step, by a watch"
	}
	return []cell{
		name, plain(cmp.Or(c.Namespace, "all")), plain(cmp.Or(strings.TrimSpace(c.Labels+" "+c.Fields), "none")), state,
		plain(strconv.Itoa(c.Objects)), plain(bytesText(c.Bytes)), plain(cmp.Or(c.At, "none")), plain(age),
		plain(cmp.Or(strings.Join(c.AskedBy, ", "), "nobody since the start")),
	}
}

func (s *Status) watches(w *writer) {
	w.section("watches", "Open watches")
	if len(s.Watches) == 0 {
		w.put("<p class=\"quiet\">No watch is open.</p>\n")
		return
	}
	var rows [][]cell
	for _, o := range s.Watches {
		state, since := part{class: "good", text: o.State}, "unknown"
		if o.State == "waiting" {
			state = part{class: "fair", text: "waits for the link"}
		}
		if !o.Since.IsZero() {
			since = s.ago(o.Since)
		}
		rows = append(rows, []cell{plain(AgentName(o.Agent)), plain(o.Path), {state}, plain(since)})
	}
	w.table("Open watches", "", []column{{"Program", ""}, {"Request", "text"}, {"State", "state"}, {"Since", "time"}}, rows)
}

func (s *Status) errors(w *writer) {
	w.section("errors", "Last errors")
	if len(s.Errors) == 0 {
		w.put("<p class=\"quiet\">None since the start.</p>\n")
		return
	}
	var rows [][]cell
	for _, e := range s.Errors {
		rows = append(rows, []cell{at(e.At), plain(strconv.Itoa(e.Count)), plain(e.Text)})
	}
	w.table("Last errors", "", []column{{"Last time (UTC)", "time"}, {"Times", "number"}, {"Error", "text"}}, rows)
}

func (s *Status) settings(w *writer) {
	w.section("settings", "Settings")
	var rows [][]cell
	for _, x := range s.Settings {
		value := plain(x.Value)
		if x.Value == "" {
			value = cell{{class: "quiet", text: "empty"}}
		}
		if x.Pending {
			value = append(value, part{class: "fair", text: " after a restart"})
		}
		rows = append(rows, []cell{plain(x.Name), value, plain(x.Source)})
	}
	w.table("Settings", "", []column{{"Setting", ""}, {"Value", "text"}, {"From", "text"}}, rows)
}

// at is a cell with a time.
func at(t time.Time) cell {
	t = t.UTC()
	return cell{{text: t.Format("2006-01-02 15:04:05"), time: t.Format(time.RFC3339)}}
}

// ago is how long ago something was.
func (s *Status) ago(t time.Time) string { return inspect.Age(s.Now.Sub(t)) + " ago" }

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
