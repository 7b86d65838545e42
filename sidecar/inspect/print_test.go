package inspect

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"
)

func TestValuesKeepTheirTypeInYAML(t *testing.T) {
	object := `{"b":{"text":["yes","1","1e3","null","a: b","# c"," padded ","two\nlines\n","\u003c\ud83d\ude00"]},"a":[12345678901234567890,1.50,true,null,{},[],""]}`
	want := `a:
- 12345678901234567890
- 1.5
- true
- null
- {}
- []
- ""
b:
  text:
  - "yes"
  - "1"
  - "1e3"
  - "null"
  - 'a: b'
  - '# c'
  - ' padded '
  - |
    two
    lines
  - "<\U0001F600"
`
	var out bytes.Buffer
	if err := (&Printer{W: &out, Format: YAML}).Print([]byte(object)); err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestJSONIsALineForEachObject(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{W: &out, Format: JSON}
	for range 2 {
		if err := p.Print([]byte("{\n  \"b\": 12345678901234567890,\n \"a\": 1}")); err != nil {
			t.Fatal(err)
		}
	}
	if want := strings.Repeat("{\"a\":1,\"b\":12345678901234567890}\n", 2); out.String() != want {
		t.Errorf("%s", out.String())
	}
	if err := p.Print([]byte("garbage")); err == nil {
		t.Error("garbage was printed")
	}
}

// Whatever was recorded, JSON says the same. So does YAML, as kubectl writes it: its library does
// not read the key << and some separators as it has written them.
func FuzzPrint(f *testing.F) {
	for _, seed := range []string{`{"a":"1"}`, `{"a":["yes",null,1e400,{}]}`, `{"=":"y","~":"z"}`, `{"a":"2001-01-01","b":"0x1f","c":"1_000","d":".inf","e":"!!binary"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		var fields map[string]any
		if json.Unmarshal(object, &fields) != nil {
			return
		}
		for _, format := range Formats {
			var out bytes.Buffer
			if err := (&Printer{W: &out, Format: format}).Print(object); err != nil {
				t.Fatalf("%s as %s: %v", object, format, err)
			}
			if format == YAML && (bytes.Contains(object, []byte("<<")) || bytes.ContainsFunc(object, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) })) {
				continue
			}
			var got map[string]any
			if err := yaml.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%s: %v", out.Bytes(), err)
			}
			if len(fields) > 0 && !reflect.DeepEqual(got, fields) {
				t.Errorf("%s became %s", object, out.Bytes())
			}
		}
	})
}
