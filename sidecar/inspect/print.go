package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// Format is how objects are printed.
type Format string

// The formats.
const (
	YAML Format = "yaml" // documents with --- between them
	JSON Format = "json" // an object a line
)

// Formats are all of them.
var Formats = []Format{YAML, JSON}

// Printer prints objects one after the other.
type Printer struct {
	W      io.Writer
	Format Format

	printed int
}

// Print prints one object. Its keys are sorted, as by kubectl.
func (p *Printer) Print(object []byte) error {
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return fmt.Errorf("object: %w", err)
	}
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if p.Format == YAML {
		if line, err = yaml.JSONToYAML(line); err != nil {
			return err
		}
		if p.printed > 0 {
			line = append([]byte("---\n"), line...)
		}
	} else {
		line = append(line, '\n')
	}
	p.printed++
	_, err = p.W.Write(line)
	return err
}
