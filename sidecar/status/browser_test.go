package status

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rockpool.dev/tests/browser"
)

// TestPeopleCanReadThePage looks at the page in windows of several sizes, light and dark. With
// SCREENSHOTS it writes what it has seen to that directory.
func TestPeopleCanReadThePage(t *testing.T) {
	url := served(t, some()).URL
	b := browser.Start(t)
	colors := map[bool]string{}
	for name, w := range map[string]browser.Window{
		"desk":       {Width: 1280, Height: 900},
		"desk-dark":  {Width: 1280, Height: 900, Dark: true},
		"phone":      {Width: 360, Height: 740, Phone: true},
		"phone-dark": {Width: 360, Height: 740, Phone: true, Dark: true},
	} {
		p := b.Open(url, w)
		var width int
		p.Evaluate("document.documentElement.scrollWidth", &width)
		if width > w.Width {
			t.Errorf("%s: the page is %d pixels wide, and the window %d", name, width, w.Width)
		}
		var cut []string
		p.Evaluate(`[...document.querySelectorAll("td, th")].filter(e => e.getBoundingClientRect().width > 0 && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)`, &cut)
		if len(cut) > 0 {
			t.Errorf("%s: cut off: %q", name, cut)
		}
		var broken []string
		p.Evaluate(`[...document.querySelectorAll("tbody th")].filter(e => {
			const text = document.createRange();
			text.selectNodeContents(e);
			return /^\w+$/.test(e.textContent) && new Set([...text.getClientRects()].map(r => Math.round(r.top))).size > 1;
		}).map(e => e.textContent)`, &broken)
		if len(broken) > 0 {
			t.Errorf("%s: words on two lines: %q", name, broken)
		}
		var thin int
		p.Evaluate(`[...document.querySelectorAll("svg .offline")].filter(e => e.getBoundingClientRect().width < 0.9).length`, &thin)
		if thin > 0 {
			t.Errorf("%s: %d outages cannot be seen", name, thin)
		}
		var wide []string
		p.Evaluate(`[...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)`, &wide)
		if len(wide) > 0 && w.Phone {
			t.Errorf("%s: these must be scrolled sideways: %q", name, wide)
		}
		var contrast []string
		p.Evaluate(contrasts, &contrast)
		if len(contrast) > 0 {
			t.Errorf("%s: hard to read: %q", name, contrast)
		}
		var back string
		p.Evaluate("getComputedStyle(document.body).backgroundColor", &back)
		if known := colors[w.Dark]; known != "" && known != back {
			t.Errorf("%s: the background is %s, and %s in another window", name, back, known)
		}
		colors[w.Dark] = back
		nodes := p.Read()
		for _, want := range []browser.Node{
			{Role: "heading", Name: "Rockpool offline"}, {Role: "navigation", Name: "Sections"}, {Role: "region", Name: "Link in the last 24 hours"},
			{Role: "image", Name: "The link was down 3 times in the last 24 hours, 2h0m in all. The table has each change."},
			{Role: "region", Name: "Requests that would fail offline"}, {Role: "rowheader", Name: "https://api.example.com:6443"},
		} {
			if !slices.Contains(nodes, want) {
				t.Errorf("%s: a screen reader does not have %+v", name, want)
			}
		}
		if dir := os.Getenv("SCREENSHOTS"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name+".png"), p.Screenshot(), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	if colors[true] == colors[false] {
		t.Errorf("light and dark are %s", colors[true])
	}
	for _, problem := range b.Problems() {
		if !strings.Contains(problem, "favicon.ico") { // the browser asks for one by itself
			t.Error(problem)
		}
	}
}

// contrasts finds text whose contrast with its background is below 4.5 to 1, as WCAG 2.2 (1.4.3) has
// it for level AA.
const contrasts = `(() => {
  const rgb = c => c.match(/[\d.]+/g).map(Number);
  const light = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; } return "rgb(255, 255, 255)"; };
  return [...document.querySelectorAll("body *")].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).filter(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
    return (a + .05) / (b + .05) < 4.5;
  }).map(e => e.textContent.trim());
})()`
