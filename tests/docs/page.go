// Package docs checks the documents of the project: links and anchors lead somewhere, lines are
// short, and the README leads to each page.
package docs

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// columns is the longest line of a text. Tables, code, headings and the targets of references cannot
// be wrapped.
const columns = 100

// page is a document in Markdown, as GitHub shows it.
type page struct {
	lines []string // without code blocks, which are empty lines
}

// parse leaves out code blocks and comments of HTML, in which nothing is a link or a heading.
func parse(text string) page {
	var p page
	fence, comment := "", false
	for line := range strings.SplitSeq(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case fence != "":
			if strings.HasPrefix(trimmed, fence) {
				fence = ""
			}
			line = ""
		case strings.HasPrefix(trimmed, "```"):
			fence, line = "```", ""
		case comment || strings.HasPrefix(trimmed, "<!--"):
			comment, line = !strings.Contains(line, "-->"), ""
		}
		p.lines = append(p.lines, line)
	}
	return p
}

var (
	codeSpan = regexp.MustCompile("`[^`]*`")
	// A link may be broken by the end of a line, and its target is never.
	linkTarget = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	htmlTarget = regexp.MustCompile(`(?:src|srcset|href)="([^"]+)"`)
	heading    = regexp.MustCompile(`^#{1,6} +(.+?) *$`)
	// A link by reference has its target in a line of its own.
	refLink    = regexp.MustCompile(`\]\[([\w-]+)\]`)
	definition = regexp.MustCompile(`^\[([\w-]+)\]: (\S+)$`)
	linkText   = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// targets returns the targets of links and pictures. A reference without a definition is returned as
// it is, and leads nowhere.
func (p page) targets() (targets []string) {
	defined := map[string]bool{}
	for _, line := range p.lines {
		if match := definition.FindStringSubmatch(line); match != nil {
			defined[match[1]] = true
			targets = append(targets, match[2])
		}
	}
	for _, line := range p.lines {
		line = codeSpan.ReplaceAllString(line, "")
		for _, match := range refLink.FindAllStringSubmatch(line, -1) {
			if !defined[match[1]] {
				targets = append(targets, match[0])
			}
		}
		for _, form := range []*regexp.Regexp{linkTarget, htmlTarget} {
			for _, match := range form.FindAllStringSubmatch(line, -1) {
				targets = append(targets, match[1])
			}
		}
	}
	return targets
}

// anchors returns the names by which GitHub links to the headings: letters, digits, - and _ in lower
// case, spaces as -, and a number for a heading that is there again.
func (p page) anchors() map[string]bool {
	names, seen := map[string]bool{}, map[string]int{}
	for _, line := range p.lines {
		match := heading.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		text := linkText.ReplaceAllString(match[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, text)
		seen[name]++
		if n := seen[name]; n > 1 {
			name = fmt.Sprintf("%s-%d", name, n-1)
		}
		names[name] = true
	}
	return names
}

// long returns the numbers of the lines of text that are too long.
func (p page) long() (numbers []int) {
	for i, line := range p.lines {
		whole := strings.HasPrefix(strings.TrimSpace(line), "|") || definition.MatchString(line)
		if !whole && !strings.HasPrefix(line, "#") && len([]rune(line)) > columns && len(strings.Fields(line)) > 1 {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}
