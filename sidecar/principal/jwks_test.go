package principal

import (
	"crypto/elliptic"
	"encoding/json"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestParseKeySet(t *testing.T) {
	set, err := ParseKeySet(jwksOf(t, rsaSigner("r"), ecSigner("e", 1),
		curveSigner("e3", elliptic.P384(), jwt.SigningMethodES384), curveSigner("e5", elliptic.P521(), jwt.SigningMethodES512)))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		id, algorithm string
		want          int
	}{
		"an RSA key by its name":                     {"r", "RS256", 1},
		"an EC key by its name":                      {"e", "ES256", 1},
		"P-384":                                      {"e3", "ES384", 1},
		"P-521":                                      {"e5", "ES512", 1},
		"without a name, all that fit":               {"", "ES256", 1},
		"an unknown name":                            {"x", "RS256", 0},
		"an EC key does not verify RSA":              {"e", "RS256", 0},
		"a curve has its own algorithm":              {"e3", "ES256", 0},
		"a key that states an algorithm keeps to it": {"r", "RS512", 0},
		"no key is an HMAC secret":                   {"r", "HS256", 0},
		"no key is for none":                         {"r", "none", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := len(set.find(test.id, test.algorithm)); got != test.want {
				t.Errorf("%d keys, want %d", got, test.want)
			}
		})
	}
}

func TestParseKeySetRejects(t *testing.T) {
	change := func(s signer, fields ...string) string {
		var document struct {
			Keys []map[string]string `json:"keys"`
		}
		if err := json.Unmarshal(jwksOf(t, s), &document); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(fields); i += 2 {
			document.Keys[0][fields[i]] = fields[i+1]
		}
		out, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	r, e := rsaSigner("r"), ecSigner("e", 1)
	tests := map[string]struct{ document, want string }{
		"nothing":                          {"", "not a JSON document"},
		"a page of a captive portal":       {"<html>", "not a JSON document"},
		"a Status":                         {`{"kind":"Status","status":"Failure"}`, "no RSA or EC key"},
		"no keys":                          {`{"keys":[]}`, "no RSA or EC key"},
		"keys of other kinds alone":        {`{"keys":[{"kty":"oct","k":"AA"}]}`, "no RSA or EC key"},
		"keys for encryption alone":        {change(r, "use", "enc"), "no RSA or EC key"},
		"an RSA key that is too short":     {change(r, "n", strings.Repeat("_", 171)), "keys[0]: n: 1024 bits"},
		"an RSA key that is too long":      {change(r, "n", strings.Repeat("_", 4000)), "keys[0]: n: "},
		"a modulus that is not base64":     {change(r, "n", "!"), "keys[0]: n:"},
		"an even exponent":                 {change(r, "e", "Ag"), "keys[0]: e:"},
		"an exponent of one":               {change(r, "e", "AQ"), "keys[0]: e:"},
		"an exponent that is too large":    {change(r, "e", strings.Repeat("_", 43)), "keys[0]: e:"},
		"an unknown curve":                 {change(e, "crv", "P-192"), "keys[0]: crv:"},
		"a point that is not on the curve": {change(e, "x", strings.Repeat("A", 43)), "keys[0]: x, y: not a point"},
		"a coordinate that is too short":   {change(e, "x", "AA"), "keys[0]: x, y: not 32 bytes"},
		"too many keys":                    {`{"keys":[` + strings.Repeat(`{"kty":"x"},`, maxKeys) + `{"kty":"x"}]}`, "more than 64"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseKeySet([]byte(test.document))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzParseKeySet(f *testing.F) {
	f.Add(jwksOf(f, rsaSigner("r"), ecSigner("e", 1)))
	f.Fuzz(func(t *testing.T, document []byte) {
		if set, err := ParseKeySet(document); (err == nil) != (set != nil && len(set.keys) > 0) {
			t.Errorf("%v, %v", set, err)
		}
	})
}
