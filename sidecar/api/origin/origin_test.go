package origin

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

const (
	object = `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"}}`
	added  = `{"type":"ADDED","object":{"apiVersion":"apps/v1beta1","kind":"Deployment"}}` + "\n"
)

var audited = http.Header{AuditID: {"2f5a1a2c-6a6e-4d0e-9a55-4d0c1b1f8f3a"}}

// frame is a frame of a watch in protobuf, as the API server encodes it.
func frame(t testing.TB, kind string, object []byte) string {
	t.Helper()
	event := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: object}}
	raw, err := event.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	n := len(raw)
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + string(raw)
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// answers are complete answers, and whether they are the API server's.
func answers(t testing.TB) map[string]struct {
	status int
	header http.Header
	body   string
	want   Verdict
} {
	big := `{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"` + strings.Repeat("x", 2*MaxPeek) + `"}}`
	return map[string]struct {
		status int
		header http.Header
		body   string
		want   Verdict
	}{
		"an object with an Audit-Id":          {200, audited, object, APIServer},
		"a document with an Audit-Id":         {200, audited, `{"major":"1","minor":"36"}`, APIServer},
		"text with an Audit-Id":               {404, audited, "404 page not found\n", APIServer},
		"no body, with an Audit-Id":           {204, audited, "", APIServer},
		"unchanged, with an Audit-Id":         {304, audited, "", APIServer},
		"CBOR with an Audit-Id":               {200, audited, "\xd9\xd9\xf7\xa0", APIServer},
		"gzip with an Audit-Id":               {200, audited, zipped(t, object), APIServer},
		"an object":                           {200, nil, object, APIServer},
		"an object in another order":          {200, nil, `{"apiVersion":"v1","items":[],"kind":"ConfigMapList"}`, APIServer},
		"an object after white space":         {200, nil, " \r\n\t" + object, APIServer},
		"an object with escapes":              {200, nil, `{"\u006bind":"Sta\u0074us","apiVersion":"v1"}`, APIServer},
		"a custom resource":                   {200, nil, `{"apiVersion":"stable.example.com/v2","kind":"CronTab"}`, APIServer},
		"a large object":                      {200, nil, big, APIServer},
		"a Status":                            {403, nil, `{"kind":"Status","apiVersion":"v1","metadata":{},"code":403}`, APIServer},
		"a review":                            {201, nil, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1"}`, APIServer},
		"protobuf":                            {200, nil, "k8s\x00\x0a\x00", APIServer},
		"an event":                            {200, nil, added, APIServer},
		"an error as an event":                {200, nil, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","code":410}}`, APIServer},
		"an event in protobuf":                {200, nil, frame(t, "MODIFIED", []byte("k8s\x00\x0a\x00")), APIServer},
		"a large event in protobuf":           {200, nil, frame(t, "ADDED", append([]byte("k8s\x00"), make([]byte, 1<<20)...)), APIServer},
		"HTML":                                {200, nil, "<!DOCTYPE html><title>Login</title>", Foreign},
		"HTML with an object in it":           {200, nil, "<script>var x = " + object + "</script>", Foreign},
		"HTML as a 403":                       {403, nil, "<h1>403 Forbidden</h1>", Foreign},
		"HTML as a 404":                       {404, nil, "<h1>404 Not Found</h1>", Foreign},
		"HTML as a 410":                       {410, nil, "<h1>410 Gone</h1>", Foreign},
		"a redirect":                          {302, http.Header{"Location": {"https://login.example"}}, "", Foreign},
		"an empty Audit-Id":                   {200, http.Header{AuditID: {""}}, "", Foreign},
		"no body":                             {200, nil, "", Foreign},
		"no content":                          {204, nil, "", Foreign},
		"unchanged":                           {304, nil, "", Foreign},
		"unchanged, with an ETag":             {304, http.Header{"Etag": {`"x"`}}, "", Foreign},
		"white space":                         {200, nil, " \n", Foreign},
		"text":                                {404, nil, "404 page not found\n", Foreign},
		"text that begins like protobuf":      {200, nil, "k8s is down", Foreign},
		"the beginning of protobuf":           {200, nil, "k8s", Foreign},
		"a gateway's JSON":                    {503, nil, `{"error":"no healthy upstream"}`, Foreign},
		"a gateway's JSON with a kind":        {401, nil, `{"kind":"Error","code":401}`, Foreign},
		"JSON with a version alone":           {200, nil, `{"apiVersion":"v1","data":{}}`, Foreign},
		"another API with kind and version":   {400, nil, `{"kind":"Error","apiVersion":"2.0"}`, Foreign},
		"another API's kind":                  {200, nil, `{"kind":"youtube#videoList","apiVersion":"v3"}`, Foreign},
		"a version that is no text":           {200, nil, `{"kind":"Status","apiVersion":1}`, Foreign},
		"a kind that is empty":                {200, nil, `{"kind":"","apiVersion":"v1"}`, Foreign},
		"a kind that is null":                 {200, nil, `{"kind":null,"apiVersion":"v1"}`, Foreign},
		"fields in another case":              {200, nil, `{"Kind":"Status","APIVersion":"v1"}`, Foreign},
		"an array":                            {200, nil, `[` + object + `]`, Foreign},
		"a text in quotes":                    {200, nil, `"{\"kind\":\"Status\",\"apiVersion\":\"v1\"}"`, Foreign},
		"a number":                            {200, nil, `1`, Foreign},
		"a kind that is deeper":               {200, nil, `{"error":` + object + `}`, Foreign},
		"an object that is no event's":        {200, nil, `{"object":` + object + `}`, Foreign},
		"an event of an unknown type":         {200, nil, `{"type":"PROGRESS","object":` + object + `}`, Foreign},
		"an event in an event":                {200, nil, `{"type":"ADDED","object":` + added + `}`, Foreign},
		"an event without an object":          {200, nil, `{"type":"ADDED","object":"Status"}`, Foreign},
		"kind and version in two objects":     {200, nil, `{"kind":"Status"}{"apiVersion":"v1"}`, Foreign},
		"a byte order mark":                   {200, nil, "\xef\xbb\xbf" + object, Foreign},
		"UTF-16":                              {200, nil, "\xff\xfe{\x00", Foreign},
		"gzip":                                {200, nil, zipped(t, object), Foreign},
		"an object that is cut before":        {200, nil, `{"kind":"Stat`, Foreign},
		"broken JSON":                         {200, nil, `{kind:"Status",apiVersion:"v1"}`, Foreign},
		"a kind beyond what is read":          {200, nil, `{"items":["` + strings.Repeat("x", MaxPeek) + `"],"kind":"List","apiVersion":"v1"}`, Foreign},
		"white space beyond what is read":     {200, nil, strings.Repeat("\n", MaxPeek) + object, Foreign},
		"zeros":                               {200, nil, strings.Repeat("\x00", 100), Foreign},
		"a frame of something else":           {200, nil, frame(t, "ADDED", []byte("<html>")), Foreign},
		"a frame of an unknown type":          {200, nil, frame(t, "PROGRESS", []byte("k8s\x00")), Foreign},
		"a proxy that asks who is there":      {407, audited, object, Foreign},
		"a network that asks who is there":    {511, audited, object, Foreign},
		"an interim answer":                   {103, nil, "", Foreign},
		"JSON that is deeper than anybody's":  {200, nil, `{"a":` + strings.Repeat("[", MaxPeek), Foreign},
		"a type that would be too long":       {200, nil, "\x00\x00\x00\x20\x0a\x7fADDED", Foreign},
		"an event with a size without an end": {200, nil, "\x00\x00\x00\x20\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Foreign},
	}
}

func TestWhoseAnswerItIs(t *testing.T) {
	for name, tt := range answers(t) {
		t.Run(name, func(t *testing.T) {
			a := Answer{Status: tt.status, Header: tt.header, Body: []byte(tt.body), Complete: true}
			if got := a.Verdict(); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// check fails if a verdict depends on how the bytes of a body arrive.
func check(t *testing.T, status int, header http.Header, body []byte) {
	t.Helper()
	a := Answer{Status: status, Header: header}
	decided := Undecided
	for n := range min(len(body), MaxPeek+1) + 1 {
		a.Body = body[:n]
		got := a.Verdict()
		if decided != Undecided && got != decided {
			t.Fatalf("%v after %d bytes of %q, it was %v before", got, n, body, decided)
		}
		decided = got
	}
	a.Body, a.Complete = body, true
	switch got := a.Verdict(); {
	case got == Undecided:
		t.Fatalf("undecided about all of %q", body)
	case decided != Undecided && got != decided:
		t.Fatalf("%v about all of %q, it was %v before", got, body, decided)
	}
}

func TestAVerdictDoesNotDependOnHowTheBodyArrives(t *testing.T) {
	for name, tt := range answers(t) {
		t.Run(name, func(t *testing.T) { check(t, tt.status, tt.header, []byte(tt.body)) })
	}
}

// FuzzVerdict finds bodies of which more bytes change the verdict, and bodies without the letters
// of an object that are taken for the API server's.
func FuzzVerdict(f *testing.F) {
	for _, tt := range answers(f) {
		if len(tt.body) < MaxPeek {
			f.Add(tt.status, []byte(tt.body))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if len(body) > 512 {
			return // each prefix is read
		}
		check(t, status, nil, body)
		a := Answer{Status: status, Body: body, Complete: true}
		if a.Verdict() != APIServer || bytes.Contains(body, protobufMagic) {
			return
		}
		text := bytes.TrimLeft(body, " \t\r\n")
		if text[0] != '{' || !bytes.ContainsAny(text, `\`) && (!bytes.Contains(text, []byte(`"kind"`)) || !bytes.Contains(text, []byte(`"apiVersion"`))) {
			t.Fatalf("%q is taken for the API server's", body)
		}
	})
}
