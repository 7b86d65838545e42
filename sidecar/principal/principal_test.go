package principal

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestSubject(t *testing.T) {
	token := ecSigner("a", 1).sign(t, claims())
	parts := strings.Split(token, ".")
	raw := func(header, payload string) string {
		e := base64.RawURLEncoding
		return e.EncodeToString([]byte(header)) + "." + e.EncodeToString([]byte(payload)) + ".x"
	}
	tests := map[string]struct {
		header []string // Authorization
		token  string
		want   error
	}{
		"a service account":                                {[]string{"Bearer " + token}, token, nil},
		"the scheme in mixed case":                         {[]string{"bEARER " + token}, token, nil},
		"space around it":                                  {[]string{"  Bearer " + token + "  "}, token, nil},
		"more after it, as the server reads it":            {[]string{"Bearer " + token + " and more"}, token, nil},
		"the first of two headers, as the server reads it": {[]string{"Bearer " + token, "Bearer x"}, token, nil},
		"no header":                       {nil, "", ErrNoToken},
		"an empty header":                 {[]string{""}, "", ErrNoToken},
		"a scheme alone":                  {[]string{"Bearer"}, "", ErrNoToken},
		"a scheme and spaces":             {[]string{"Bearer  " + token}, "", ErrNoToken},
		"another scheme":                  {[]string{"Basic " + token}, "", ErrNoToken},
		"a token without scheme":          {[]string{token}, "", ErrNoToken},
		"an opaque token":                 {[]string{"Bearer 31ada4fd-adec-460c-809a-9e56ceb75269"}, "31ada4fd-adec-460c-809a-9e56ceb75269", ErrNotJWT},
		"two parts":                       {[]string{"Bearer " + parts[0] + "." + parts[1]}, parts[0] + "." + parts[1], ErrNotJWT},
		"four parts":                      {[]string{"Bearer " + token + ".x"}, token + ".x", ErrNotJWT},
		"a header that is not JSON":       {[]string{"Bearer " + raw("x", `{"sub":"a"}`)}, raw("x", `{"sub":"a"}`), ErrNotJWT},
		"a header without algorithm":      {[]string{"Bearer " + raw("{}", `{"sub":"a"}`)}, raw("{}", `{"sub":"a"}`), ErrNotJWT},
		"a payload that is not an object": {[]string{"Bearer " + raw(`{"alg":"x"}`, `[]`)}, raw(`{"alg":"x"}`, `[]`), ErrNotJWT},
		"a payload of two objects":        {[]string{"Bearer " + raw(`{"alg":"x"}`, `{"sub":"a"}{}`)}, raw(`{"alg":"x"}`, `{"sub":"a"}{}`), ErrNotJWT},
		"a subject that is not a string":  {[]string{"Bearer " + raw(`{"alg":"x"}`, `{"sub":1}`)}, raw(`{"alg":"x"}`, `{"sub":1}`), ErrNotJWT},
		"no subject":                      {[]string{"Bearer " + raw(`{"alg":"x"}`, `{}`)}, raw(`{"alg":"x"}`, `{}`), ErrNoSubject},
		"standard instead of URL base64":  {[]string{"Bearer " + parts[0] + "=." + parts[1] + ".x"}, parts[0] + "=." + parts[1] + ".x", ErrNotJWT},
		"a newline inside":                {[]string{"Bearer " + parts[0] + "\n." + parts[1] + ".x"}, parts[0] + "\n." + parts[1] + ".x", ErrNotJWT},
		"a token that is too long":        {[]string{"Bearer " + token + strings.Repeat("x", maxToken)}, token + strings.Repeat("x", maxToken), ErrNotJWT},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			gotToken, gotSubject, err := Subject(http.Header{"Authorization": test.header})
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if gotToken != test.token {
				t.Errorf("token %q", gotToken)
			}
			if want := map[bool]string{true: subject}[err == nil]; gotSubject != want {
				t.Errorf("subject %q, want %q", gotSubject, want)
			}
		})
	}
}

// FuzzSubject checks that Subject finds the same subject as the library that checks signatures
// offline: an online request must not be recorded in the cache of another subject.
func FuzzSubject(f *testing.F) {
	token := ecSigner("a", 1).sign(f, claims())
	f.Add("Bearer " + token)
	f.Add("bearer  " + token)
	f.Fuzz(func(t *testing.T, authorization string) {
		token, subject, err := Subject(http.Header{"Authorization": {authorization}})
		if err != nil {
			if subject != "" || !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrNotJWT) && !errors.Is(err, ErrNoSubject) {
				t.Errorf("%q, %v", subject, err)
			}
			return
		}
		if subject == "" || !strings.Contains(authorization, token) || strings.ContainsAny(token, " \r\n") {
			t.Errorf("token %q of %q", token, subject)
		}
		if claims, err := parseUnverified(token); err == nil && claims.Subject != subject {
			t.Errorf("the subject is %q, and %q when the signature is checked", subject, claims.Subject)
		}
	})
}

func BenchmarkSubject(b *testing.B) {
	h := withToken(ecSigner("a", 1).sign(b, claims()))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Subject(h); err != nil {
			b.Fatal(err)
		}
	}
}

func TestUIDs(t *testing.T) {
	raw := func(payload string) string {
		e := base64.RawURLEncoding
		return e.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + e.EncodeToString([]byte(payload)) + ".x"
	}
	for name, test := range map[string]struct{ token, account, pod string }{
		"of a pod":               {raw(`{"sub":"system:serviceaccount:a:b","kubernetes.io":{"namespace":"a","serviceaccount":{"name":"b","uid":"u-1"},"pod":{"name":"p","uid":"u-3"}}}`), "u-1", "u-3"},
		"from a Secret":          {raw(`{"sub":"system:serviceaccount:a:b","kubernetes.io/serviceaccount/service-account.uid":"u-2"}`), "u-2", ""},
		"that names none":        {raw(`{"sub":"system:serviceaccount:a:b"}`), "", ""},
		"that names it wrongly":  {raw(`{"sub":"a","kubernetes.io":{"serviceaccount":"b"}}`), "", ""},
		"that is not a JWT":      {"opaque", "", ""},
		"that is missing":        {"", "", ""},
		"that has a bad payload": {"e30.e30.x", "", ""},
	} {
		t.Run("a token "+name, func(t *testing.T) {
			if account, pod := AccountUID(test.token), PodUID(test.token); account != test.account || pod != test.pod {
				t.Errorf("account %q, pod %q", account, pod)
			}
			want := Pod{"a", "p", "u-3"}
			if pod, ok := PodOf(test.token); ok != (test.pod != "") || ok && pod != want {
				t.Errorf("bound to %v %v", pod, ok)
			}
		})
	}
}
