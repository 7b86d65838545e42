package status

import (
	"bytes"
	"html"
)

// markup is HTML that is written as it is. Only constants become markup without a conversion, so that
// no text of a program or a server can.
//
// html/template would do the same for any page. But it calls methods by their names, so that the linker
// must keep the methods of all types: the program would be 4.5 MB larger on each node, and each pod
// would map 3 MB more.
type markup string

// writer writes HTML.
type writer struct{ bytes.Buffer }

// put writes markup.
func (w *writer) put(all ...markup) {
	for _, m := range all {
		w.WriteString(string(m))
	}
}

// text writes a text, escaped for the content of an element and for a quoted attribute.
func (w *writer) text(s string) { w.WriteString(html.EscapeString(s)) }

// element writes an element with a text.
func (w *writer) element(begin markup, text string, end markup) {
	w.put(begin)
	w.text(text)
	w.put(end)
}

// part is a part of a cell: a text, perhaps in a class.
type part struct {
	class markup // of the style sheet; empty: none
	text  string
	time  string // the text is a time: the same in RFC 3339
}

// cell is a cell of a table.
type cell []part

// plain is a cell with a text.
func plain(text string) cell { return cell{{text: text}} }

// column is a column of a table. Its title is also beside each cell where rows are blocks.
type column struct {
	title markup
	class markup // of its cells
}

// table writes a table that can be scrolled sideways. label is its name for a screen reader. The first
// column names the row, unless it is a time.
func (w *writer) table(label, caption markup, columns []column, rows [][]cell) {
	w.put(`<div class="wide" role="region" aria-label="`, label, `" tabindex="0"><table role="table" class="stack">`)
	if caption != "" {
		w.put(`<caption>`, caption, `</caption>`)
	}
	// The roles are for phones, where rows are blocks, and no longer tables to a browser.
	w.put(`<thead role="rowgroup"><tr role="row">`)
	for _, c := range columns {
		w.put(`<th role="columnheader" scope="col" class="`, c.class, `">`, c.title, `</th>`)
	}
	w.put("</tr></thead>\n<tbody role=\"rowgroup\">")
	for _, row := range rows {
		w.put(`<tr role="row">`)
		for i, c := range row {
			end := markup(`</td>`)
			if i == 0 && columns[0].class == "" {
				w.put(`<th role="rowheader" scope="row">`)
				end = `</th>`
			} else {
				w.put(`<td role="cell" class="`, columns[i].class, `" data-label="`, columns[i].title, `">`)
			}
			w.parts(c)
			w.put(end)
		}
		w.put("</tr>\n")
	}
	w.put("</tbody></table></div>\n")
}

func (w *writer) parts(all []part) {
	for _, p := range all {
		switch {
		case p.time != "":
			w.element(`<time datetime="`, p.time, `">`)
			w.text(p.text)
			w.put(`</time>`)
		case p.class != "":
			w.put(`<span class="`, p.class, `">`)
			w.text(p.text)
			w.put(`</span>`)
		default:
			w.text(p.text)
		}
	}
}
