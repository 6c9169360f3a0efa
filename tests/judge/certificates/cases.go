// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"time"
)

const day = 24 * time.Hour

var (
	sha1RSA, sha256RSA, sha384RSA, sha512RSA = x509.SHA1WithRSA, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA
	sha1EC, sha256EC, sha384EC, sha512EC     = x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512
)

func cases() []server {
	return append(append(algorithms(), authorities()...), servers()...)
}

// Keys and signatures.
func algorithms() []server {
	var all []server
	add := func(name, ca, own string, algorithm x509.SignatureAlgorithm, version uint16) {
		root := authority(key(ca), nil)
		// The server's key is another one.
		s := leaf(key(own+"+"), &root, by(algorithm))
		all = append(all, server{name: name, chain: [][]byte{s.cert.Raw}, key: s.key, trusted: [][]byte{root.cert.Raw}, version: version})
	}
	for _, kind := range []struct {
		name, ca, own string
		by            x509.SignatureAlgorithm
	}{
		{"ca-ed25519-leaf-ed25519-sha256", "ed25519", "ed25519", x509.PureEd25519},
		{"ca-p256-leaf-p256-sha256", "p256", "p256", sha256EC},
		{"ca-p256-leaf-p256-sha384", "p256", "p256", sha384EC},
		{"ca-p256-leaf-p256-sha512", "p256", "p256", sha512EC},
		{"ca-p384-leaf-p256-sha256", "p384", "p256", sha256EC},
		{"ca-p384-leaf-p384-sha384", "p384", "p384", sha384EC},
		{"ca-p384-leaf-p384-sha512", "p384", "p384", sha512EC},
		{"ca-p521-leaf-p256-sha256", "p521", "p256", sha256EC},
		{"ca-p521-leaf-p384-sha384", "p521", "p384", sha384EC},
		{"ca-p521-leaf-p521-sha512", "p521", "p521", sha512EC},
		{"ca-p521-leaf-rsa2048-sha512", "p521", "rsa2048", sha512EC},
		{"ca-p224-leaf-p256-sha256", "p224", "p256", sha256EC},
		{"ca-p224-leaf-p521-sha512", "p224", "p521", sha512EC},
		{"ca-rsa1024-leaf-rsa2048-sha256", "rsa1024", "rsa2048", sha256RSA},
		{"ca-rsa1024-leaf-rsa2048-sha384", "rsa1024", "rsa2048", sha384RSA},
		{"ca-rsa1024-leaf-rsa2048-sha512", "rsa1024", "rsa2048", sha512RSA},
		{"ca-rsa1024-leaf-rsa2048-pss256", "rsa1024", "rsa2048", x509.SHA256WithRSAPSS},
		{"ca-rsa2047-leaf-p256-sha256", "rsa2047", "p256", sha256RSA},
		{"ca-rsa2048-leaf-rsa1024-sha256", "rsa2048", "rsa1024", sha256RSA},
		{"ca-rsa2048-leaf-p521-sha256", "rsa2048", "p521", sha256RSA},
		{"ca-rsa2048-leaf-rsa2048-sha256", "rsa2048", "rsa2048", sha256RSA},
		{"ca-rsa4096-leaf-rsa2048-sha512", "rsa4096", "rsa2048", sha512RSA},
		{"rsa-pss", "rsa2048", "rsa2048", x509.SHA256WithRSAPSS},
		{"rsa-pss-sha512", "rsa3072", "rsa2048", x509.SHA512WithRSAPSS},
		{"rsa8192", "rsa8192", "rsa8192", sha512RSA},
		{"ca-rsa2048-sha1", "rsa2048", "rsa2048", sha1RSA},
		{"ca-p256-sha1", "p256", "p256", sha1EC},
	} {
		add(kind.name, kind.ca, kind.own, kind.by, 0)
	}
	for _, kind := range []struct {
		name, ca string
		by       x509.SignatureAlgorithm
	}{
		{"ca-p521-sha512-spoilt", "p521", sha512EC},
		{"ca-p384-sha512-spoilt", "p384", sha512EC},
		{"ca-p256-sha512-spoilt", "p256", sha512EC},
		{"ca-rsa1024-sha256-spoilt", "rsa1024", sha256RSA},
		{"ca-rsa2048-pss-spoilt", "rsa2048", x509.SHA256WithRSAPSS},
	} {
		root := authority(key(kind.ca), nil)
		s := leaf(key("p256+"), &root, by(kind.by))
		all = append(all, server{name: kind.name, chain: [][]byte{spoilt(s)}, key: s.key, trusted: [][]byte{root.cert.Raw}})
	}
	for _, own := range []string{"p256", "p384", "p521", "rsa1024", "rsa2048", "ed25519"} {
		add("tls1.2-"+own, "p256", own, sha256EC, tls.VersionTLS12)
		add("tls1.3-"+own, "p256", own, sha256EC, tls.VersionTLS13)
	}
	return all
}

// What a CA's certificate may be.
func authorities() []server {
	var all []server
	add := func(name string, s signer, chain []signer, trusted ...signer) {
		one := server{name: name, key: s.key, chain: [][]byte{s.cert.Raw}}
		for _, c := range chain {
			one.chain = append(one.chain, c.cert.Raw)
		}
		for _, c := range trusted {
			one.trusted = append(one.trusted, c.cert.Raw)
		}
		all = append(all, one)
	}
	root := func(name string, changes ...change) {
		ca := authority(key("p256"), nil, changes...)
		add("root-"+name, leaf(key("p384"), &ca), nil, ca)
	}
	// One CA below another; the changes are those of the one below.
	below := func(name string, ca signer, changes ...change) {
		middle := authority(key("p384"), &ca, changes...)
		add("below-"+name, leaf(key("p256+"), &middle), []signer{middle}, ca)
	}
	plain := authority(key("p256"), nil)
	root("plain")
	root("expired", dates(-2*day, -day))
	root("not-yet-valid", dates(day, 2*day))
	root("no-basic-constraints", func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false })
	root("ca-false", func(c *x509.Certificate) { c.IsCA = false })
	root("no-key-usage", func(c *x509.Certificate) { c.KeyUsage = 0 })
	root("without-cert-sign", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	root("for-servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	root("for-clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	root("for-any", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	root("path-length-0", func(c *x509.Certificate) { c.MaxPathLenZero = true })
	root("unknown-critical", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, "x"))
	root("unknown", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, false, "x"))
	root("permits-name", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org", "kubernetes"}, true
	})
	root("permits-other-name", func(c *x509.Certificate) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
	})
	_, net127, _ := net.ParseCIDR("127.0.0.0/8")
	root("excludes-address", func(c *x509.Certificate) { c.ExcludedIPRanges = []*net.IPNet{net127} })
	root("permits-uri", func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.org"} })
	root("long-serial", func(c *x509.Certificate) { c.SerialNumber.Lsh(c.SerialNumber, 150) })
	v1 := version1(key("p256").(*ecdsa.PrivateKey), "kubernetes")
	add("root-version-1", leaf(key("p384"), &v1), nil, v1)
	forged := authority(key("p256"), nil)
	all = append(all, server{name: "root-self-signature-spoilt", trusted: [][]byte{spoilt(forged)},
		chain: [][]byte{leaf(key("p384"), &forged).cert.Raw}, key: key("p384")})
	sha1 := authority(key("rsa2048"), nil, by(sha1RSA))
	add("root-self-signed-sha1", leaf(key("p384"), &sha1), nil, sha1)

	below("plain", plain)
	below("expired", plain, dates(-2*day, -day))
	below("not-yet-valid", plain, dates(day, 2*day))
	below("ca-false", plain, func(c *x509.Certificate) { c.IsCA = false })
	below("no-basic-constraints", plain, func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = false, false })
	below("without-cert-sign", plain, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	below("for-clients", plain, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	below("for-any", plain, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	below("unknown-critical", plain, extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, "x"))
	below("path-length-0-of-root", authority(key("p256"), nil, func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	below("path-length-0", plain, func(c *x509.Certificate) { c.MaxPathLenZero = true })
	below("p521-sha512", authority(key("p521"), nil), by(sha512EC))
	below("expired-root", authority(key("p256"), nil, dates(-2*day, -day)))
	middle := authority(key("p384"), &plain)
	add("below-not-sent", leaf(key("p256+"), &middle), nil, plain)
	add("below-trusted-alone", leaf(key("p256+"), &middle), nil, middle)
	add("below-and-others-sent", leaf(key("p256+"), &middle), []signer{leaf(key("p521"), &plain), middle, plain}, plain)
	low := authority(key("p521"), &middle, func(c *x509.Certificate) { c.Subject.CommonName = "lowest" })
	add("two-below", leaf(key("p256+"), &low), []signer{low, middle}, plain)

	// A CA that was renewed or replaced.
	expired := authority(key("p256"), nil, dates(-2*day, -day))
	other := authority(key("p521"), nil)
	add("bundle-old-first", leaf(key("p384"), &plain), nil, expired, plain)
	add("bundle-old-last", leaf(key("p384"), &plain), nil, plain, expired)
	add("bundle-two-keys", leaf(key("p384"), &plain), nil, other, plain)
	add("bundle-expired-other-key", leaf(key("p384"), &plain), nil, authority(key("p521"), nil, dates(-2*day, -day)), plain)
	add("bundle-without-it", leaf(key("p384"), &plain), nil, other)
	add("bundle-twice", leaf(key("p384"), &plain), nil, plain, plain)
	cross := authority(key("p256"), &other, func(c *x509.Certificate) { c.Subject.CommonName = "kubernetes" })
	add("cross-signed-new-trusted", leaf(key("p384"), &plain), []signer{cross}, other)
	add("cross-signed-old-trusted", leaf(key("p384"), &plain), []signer{cross}, plain)
	return append(all, bundles(plain)...)
}

// A CA bundle as text.
func bundles(ca signer) []server {
	block := pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}
	good := string(pem.EncodeToMemory(&block))
	block.Type = "TRUSTED CERTIFICATE"
	trusted := string(pem.EncodeToMemory(&block))
	broken := "-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n"
	notBase64 := "-----BEGIN CERTIFICATE-----\nM!\n-----END CERTIFICATE-----\n"
	first, last := "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	body := strings.TrimPrefix(strings.TrimSuffix(good, last+"\n"), first+"\n")
	s := leaf(key("p384"), &ca)
	var all []server
	for _, b := range []struct{ name, text string }{
		{"text-around", "subject=CN = kubernetes\n" + good + "end\n"},
		{"broken-first", broken + good},
		{"broken-last", good + broken},
		{"other-label-first", trusted + good},
		{"crlf", strings.ReplaceAll(good, "\n", "\r\n")},
		{"cr-alone", strings.ReplaceAll(good, "\n", "\r")},
		{"no-base64-first", notBase64 + good},
		{"no-base64-last", good + notBase64},
		{"indented", strings.ReplaceAll(" "+good, "\n", "\n ")},
		{"body-indented", strings.ReplaceAll(good, "\nM", "\n  M")},
		{"blanks-at-ends", strings.ReplaceAll(good, "\n", " \t\n")},
		{"one-line", strings.ReplaceAll(good, "\n", " ")},
		{"long-line", first + "\n" + strings.ReplaceAll(body, "\n", "") + "\n" + last},
		{"blank-lines", strings.ReplaceAll(good, "\n", "\n\n")},
		{"no-last-newline", strings.TrimSpace(good)},
		{"begin-twice", first + "\n" + good},
		{"begin-behind-text", "ca: " + good},
		{"no-end", first + "\n" + body},
		{"no-end-then-good", first + "\n" + body + good},
		{"other-end", strings.ReplaceAll(good, "END CERTIFICATE", "END X509")},
		{"text-behind-end", strings.TrimSpace(good) + " # ca\n"},
		{"headers", strings.Replace(good, "\n", "\nProc-Type: 4\n\n", 1)},
		{"headers-then-good", strings.Replace(good, "\n", "\nProc-Type: 4\n\n", 1) + good},
		{"key-first", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + good},
		{"empty-block-first", first + "\n" + last + "\n" + good},
		{"two-in-one-block", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: append(append([]byte{}, ca.cert.Raw...), ca.cert.Raw...)}))},
		{"empty", "\n"},
	} {
		all = append(all, server{name: "pem-" + b.name, chain: [][]byte{s.cert.Raw}, key: s.key, bundle: b.text})
	}
	return all
}

// What a server's own certificate may be.
func servers() []server {
	var all []server
	ca := authority(key("p256"), nil)
	add := func(name, host string, s signer, trusted signer, sent ...signer) {
		one := server{name: name, host: host, chain: [][]byte{s.cert.Raw}, key: s.key, trusted: [][]byte{trusted.cert.Raw}}
		for _, c := range sent {
			one.chain = append(one.chain, c.cert.Raw)
		}
		all = append(all, one)
	}
	own := func(name string, changes ...change) { add("server-"+name, "", leaf(key("p384"), &ca, changes...), ca) }
	isCA := func(c *x509.Certificate) { c.BasicConstraintsValid, c.IsCA = true, true }
	own("expired", dates(-2*day, -day))
	own("not-yet-valid", dates(day, 2*day))
	own("ca-true", isCA)
	own("ca-true-expired", isCA, dates(-2*day, -day))
	own("ca-true-for-clients", isCA, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	own("for-nothing-special", func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	own("for-clients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	own("for-any", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
	own("key-usage-encipherment", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	own("unknown-critical", extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, "x"))
	own("critical-policies", extension(asn1.ObjectIdentifier{2, 5, 29, 32}, true,
		[]struct{ ID asn1.ObjectIdentifier }{{asn1.ObjectIdentifier{1, 2, 3}}}))
	own("no-names", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil })
	own("common-name-alone", func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames, c.IPAddresses = "127.0.0.1", nil, nil })
	own("address-as-dns-name", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"127.0.0.1"}, nil })
	own("other-address", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} })
	own("with-uri", func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "a", Path: "/b"}} })
	own("self-issued-name", func(c *x509.Certificate) { c.Subject = ca.cert.Subject })
	spoiltLeaf := leaf(key("p384"), &ca)
	all = append(all, server{name: "server-spoilt", chain: [][]byte{spoilt(spoiltLeaf)}, key: spoiltLeaf.key, trusted: [][]byte{ca.cert.Raw}})

	// A server that is trusted itself.
	alone := leaf(key("p384"), nil)
	add("trusted-self-signed", "", alone, alone)
	aloneCA := leaf(key("p384"), nil, isCA)
	add("trusted-self-signed-ca", "", aloneCA, aloneCA)
	expired := leaf(key("p384"), nil, dates(-2*day, -day))
	add("trusted-self-signed-expired", "", expired, expired)
	clients := leaf(key("p384"), nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	add("trusted-self-signed-for-clients", "", clients, clients)
	signed := leaf(key("p384"), &ca)
	add("trusted-leaf-of-a-ca", "", signed, signed)
	add("self-signed-not-trusted", "", alone, ca)
	// A trusted leaf is no CA.
	under := leaf(key("p521"), &alone)
	add("signed-by-a-trusted-leaf", "", under, alone)

	middle := authority(key("p521"), &ca)
	add("ca-true-below", "", leaf(key("p384"), &middle, isCA), ca, middle)
	expiredCA := authority(key("p256"), nil, dates(-2*day, -day))
	add("ca-true-expired-root", "", leaf(key("p384"), &expiredCA, isCA), expiredCA)
	add("ca-true-other-root", "", leaf(key("p384"), &ca, isCA), authority(key("p521"), nil))
	limited := authority(key("p256"), nil, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org", "kubernetes"} })
	add("ca-true-name-constraints", "", leaf(key("p384"), &limited, isCA), limited)
	noSign := authority(key("p521"), &ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	add("ca-true-below-without-cert-sign", "", leaf(key("p384"), &noSign, isCA), ca, noSign)
	forgedRoot := authority(key("p521+"), nil)
	add("ca-true-forged", "", leaf(key("p384"), &forgedRoot, isCA), ca)

	names := func(name, host string, dns ...string) {
		add("name-"+name, host, leaf(key("p384"), &ca, func(c *x509.Certificate) { c.DNSNames = dns }), ca)
	}
	names("plain", "localhost", "localhost")
	names("upper-case", "localhost", "LOCALHOST")
	names("underscore", "k8s_master.localhost", "k8s_master.localhost")
	names("wildcard", "a.b.localhost", "*.b.localhost")
	names("wildcard-one-label", "a.localhost", "*.localhost")
	names("wildcard-two-deep", "a.b.localhost", "*.localhost")
	names("wildcard-alone", "localhost", "*")
	names("trailing-dot-in-certificate", "localhost", "localhost.")
	names("common-name-alone", "kube-apiserver.localhost")
	names("other", "localhost", "example.org")
	return all
}
