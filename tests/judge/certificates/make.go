// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// A certificate with its key.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serial int64 = 1

//go:embed rsa8192.pem
var rsa8192 []byte

func template(name string) *x509.Certificate {
	serial++
	now := time.Now()
	return &x509.Certificate{
		SerialNumber:          big.NewInt(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		BasicConstraintsValid: true,
	}
}

type change func(*x509.Certificate)

// Signs a certificate; parent nil: by itself.
func sign(t *x509.Certificate, key crypto.Signer, parent *signer, changes []change) signer {
	for _, c := range changes {
		c(t)
	}
	by := signer{t, key}
	if parent != nil {
		by = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key.Public(), by.key)
	check(err)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		// What Go does not read is sent all the same.
		cert = &x509.Certificate{Raw: der}
	}
	return signer{cert, key}
}

func authority(key crypto.Signer, parent *signer, changes ...change) signer {
	t := template("kubernetes")
	if parent != nil {
		t.Subject.CommonName = "below"
	}
	t.IsCA = true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	return sign(t, key, parent, changes)
}

func leaf(key crypto.Signer, parent *signer, changes ...change) signer {
	t := template("kube-apiserver")
	t.DNSNames = []string{"kubernetes", "api.example.org"}
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.BasicConstraintsValid = false
	return sign(t, key, parent, changes)
}

func by(algorithm x509.SignatureAlgorithm) change {
	return func(c *x509.Certificate) { c.SignatureAlgorithm = algorithm }
}

func dates(from, until time.Duration) change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) }
}

func extension(oid asn1.ObjectIdentifier, critical bool, value any) change {
	der, err := asn1.Marshal(value)
	check(err)
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
	}
}

var keys = map[string]crypto.Signer{}

// A key of this kind; the same every time.
func key(kind string) crypto.Signer {
	if k, ok := keys[kind]; ok {
		return k
	}
	var k crypto.Signer
	var err error
	curve := map[string]elliptic.Curve{"p224": elliptic.P224(), "p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()}
	bits := map[string]int{"rsa1024": 1024, "rsa2047": 2047, "rsa2048": 2048, "rsa3072": 3072, "rsa4096": 4096}
	base := kind
	if i := len(kind) - 1; kind[i] == '+' {
		base = kind[:i]
	}
	switch {
	case curve[base] != nil:
		k, err = ecdsa.GenerateKey(curve[base], rand.Reader)
	case base == "rsa8192":
		// Making one takes half a minute.
		block, _ := pem.Decode(rsa8192)
		k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case bits[base] != 0:
		k, err = rsa.GenerateKey(rand.Reader, bits[base])
	default:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	}
	check(err)
	keys[kind] = k
	return k
}

// A CA's certificate of version 1: without extensions.
func version1(k *ecdsa.PrivateKey, name string) signer {
	type validity struct{ NotBefore, NotAfter time.Time }
	type tbs struct {
		Serial    int
		Signature pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  validity
		Subject   asn1.RawValue
		Key       asn1.RawValue
	}
	der, err := asn1.Marshal(pkix.Name{CommonName: name}.ToRDNSequence())
	check(err)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	check(err)
	ecdsaWithSHA256 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	now := time.Now().UTC()
	content, err := asn1.Marshal(tbs{1, ecdsaWithSHA256, asn1.RawValue{FullBytes: der},
		validity{now.Add(-time.Hour), now.Add(24 * time.Hour)}, asn1.RawValue{FullBytes: der}, asn1.RawValue{FullBytes: spki}})
	check(err)
	digest := sha256.Sum256(content)
	signature, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	check(err)
	raw, err := asn1.Marshal(struct {
		Content   asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: content}, ecdsaWithSHA256, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	check(err)
	cert, err := x509.ParseCertificate(raw)
	check(err)
	return signer{cert, k}
}

// One certificate signed anew, with its signature spoilt.
func spoilt(s signer) []byte {
	der := append([]byte{}, s.cert.Raw...)
	der[len(der)-1] ^= 1
	return der
}
