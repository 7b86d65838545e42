package wire

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestJSONIsIndentedAsTheAPIServerDoes(t *testing.T) {
	for name, text := range map[string]string{
		"an object":                   `{"kind":"Pod","status":{"phase":"Running"}}`,
		"empty values":                `{"a":{},"b":[],"c":"","d":null,"e":[{}],"f":[[]]}`,
		"brackets and quotes in text": `{"a":"{\"b\":[1,2]}\\","c\\\"":"\\\\","d":"a: b, c"}`,
		"white space":                 " {\n\t\"a\" : [ 1 ,\r\n 2.5e3 , true ] } \n",
		"a number alone":              `7`,
		"many levels":                 strings.Repeat(`{"a":[`, 200) + strings.Repeat(`]}`, 200),
		"a long list":                 `[` + strings.Repeat(`{"name":"a","labels":{"x":"y"}},`, 5000) + `0]`,
		"escaped characters":          `{"a":"\u003c\u0026","b":"ä"}`,
	} {
		t.Run(name, func(t *testing.T) {
			var want bytes.Buffer
			if err := json.Indent(&want, []byte(strings.TrimSpace(text)), "", "  "); err != nil {
				t.Fatal(err)
			}
			for _, source := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
				got, err := io.ReadAll(Indent(io.NopCloser(source)))
				if err != nil || string(got) != want.String() {
					t.Errorf("%v\n%.500s\nnot\n%.500s", err, got, want.String())
				}
			}
		})
	}
}

func TestIndentedJSONEndsWithTheErrorOfItsSource(t *testing.T) {
	got, err := io.ReadAll(Indent(io.NopCloser(io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(io.ErrUnexpectedEOF)))))
	if err != io.ErrUnexpectedEOF || string(got) != "{\n  \"a\": " {
		t.Errorf("%q %v", got, err)
	}
}

func TestIndentingNeedsLittleMemory(t *testing.T) {
	i := Indent(io.NopCloser(strings.NewReader(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)))).(*indented)
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{i}); err != nil || cap(i.out) > 64<<10 {
		t.Errorf("%d bytes, %v", cap(i.out), err)
	}
}
