package principal

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

const (
	minRSABits = 2048
	maxRSABits = 16384 // a larger key would only cost time
	maxKeys    = 64
)

// KeySet holds the public keys of a cluster's service-account tokens. It is immutable.
type KeySet struct {
	keys []key
}

type key struct {
	id        string
	algorithm string // empty = any algorithm that fits the key
	public    crypto.PublicKey
}

// jwk has the fields of RFC 7517 and RFC 7518 §6 for the two kinds of keys with which
// kube-apiserver signs.
type jwk struct {
	KeyType   string `json:"kty"`
	KeyID     string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	Y         string `json:"y"`
	N         string `json:"n"`
	E         string `json:"e"`
}

// ParseKeySet reads a JWK set. It ignores keys of other kinds or for other uses (RFC 7517 §5). A
// damaged key is an error, and so is a set without a usable key.
func ParseKeySet(data []byte) (*KeySet, error) {
	var document struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return nil, errors.New("JWKS: not a JSON document with keys")
	}
	if len(document.Keys) > maxKeys {
		return nil, fmt.Errorf("JWKS: more than %d keys", maxKeys)
	}
	set := &KeySet{}
	for i, k := range document.Keys {
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		var public crypto.PublicKey
		var err error
		switch k.KeyType {
		case "RSA":
			public, err = k.rsa()
		case "EC":
			public, err = k.ecdsa()
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("JWKS: keys[%d]: %w", i, err)
		}
		set.keys = append(set.keys, key{id: k.KeyID, algorithm: k.Algorithm, public: public})
	}
	if len(set.keys) == 0 {
		return nil, errors.New("JWKS: no RSA or EC key for signatures")
	}
	return set, nil
}

func (k jwk) rsa() (*rsa.PublicKey, error) {
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	if err != nil {
		return nil, errors.New("n: not base64url")
	}
	e, err := base64.RawURLEncoding.DecodeString(k.E)
	if err != nil {
		return nil, errors.New("e: not base64url")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < minRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("n: %d bits; %d to %d are allowed", bits, minRSABits, maxRSABits)
	}
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
		return nil, errors.New("e: not an odd number from 3 to 2^31-1")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

func (k jwk) ecdsa() (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch k.Curve {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, errors.New("crv: not P-256, P-384 or P-521")
	}
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	if err != nil {
		return nil, errors.New("x: not base64url")
	}
	y, err := base64.RawURLEncoding.DecodeString(k.Y)
	if err != nil {
		return nil, errors.New("y: not base64url")
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return nil, fmt.Errorf("x, y: not %d bytes each", size)
	}
	// SEC 1 §2.3.3. It rejects points that are not on the curve.
	public, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil, errors.New("x, y: not a point of the curve")
	}
	return public, nil
}

// find returns the keys that may have signed a token with this algorithm: the key that the token
// names, or all keys if it names none. The API server does the same.
func (s *KeySet) find(id, algorithm string) (found []crypto.PublicKey) {
	for _, k := range s.keys {
		if (id == "" || id == k.id) && (k.algorithm == "" || k.algorithm == algorithm) && fits(k.public, algorithm) {
			found = append(found, k.public)
		}
	}
	return found
}

// fits reports whether an algorithm belongs to this kind of key and curve (RFC 7518 §3.1).
func fits(public crypto.PublicKey, algorithm string) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return algorithm == "RS256" || algorithm == "RS384" || algorithm == "RS512"
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return algorithm == "ES256"
		case elliptic.P384():
			return algorithm == "ES384"
		case elliptic.P521():
			return algorithm == "ES512"
		}
	}
	return false
}
