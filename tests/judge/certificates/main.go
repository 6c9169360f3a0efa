// SPDX-License-Identifier: Apache-2.0

// Which servers Go's TLS client believes, as kubeadm and kubelet use it: each case is a TLS server in this process, with
// certificates of one kind, and the verdict of a Go client that trusts the case's CA bundle. One JSON object a line; the
// servers then answer until standard input ends. tests/tests/certificates.rs asks them too and has to agree.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

// One kind of server.
type server struct {
	name    string   // of the case
	host    string   // name or address by which it is asked; 127.0.0.1 when empty
	chain   [][]byte // what it sends, DER, its own certificate first
	key     any      // of its own certificate
	trusted [][]byte // CA bundle, DER
	version uint16   // of TLS, the only one; any when 0
	bundle  string   // CA bundle as text, instead of trusted
}

// What is told of it.
type told struct {
	Name    string `json:"name"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	Bundle  string `json:"bundle"`
	Refused string `json:"refused"` // in Go's words; empty when it is believed
	Last    bool   `json:"last"`
}

func main() {
	log.SetFlags(0)
	http.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, "{}")
	})
	out := json.NewEncoder(os.Stdout)
	all := cases()
	for i, s := range all {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		check(err)
		config := &tls.Config{
			Certificates: []tls.Certificate{{Certificate: s.chain, PrivateKey: s.key}},
			MinVersion:   s.version,
			MaxVersion:   s.version,
		}
		quiet := log.New(io.Discard, "", 0)
		go (&http.Server{ErrorLog: quiet}).Serve(tls.NewListener(listener, config))
		if s.host == "" {
			s.host = "127.0.0.1"
		}
		if s.bundle == "" {
			for _, der := range s.trusted {
				s.bundle += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			}
		}
		port := listener.Addr().(*net.TCPAddr).Port
		refused := ""
		if err := ask(s, port); err != nil {
			refused = err.Error()
		}
		check(out.Encode(told{s.name, s.host, port, s.bundle, refused, i == len(all)-1}))
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	check(err)
}

// Reads a CA bundle as kubeadm's discovery does (k8s.io/client-go/util/cert, ParseCertsPEM).
func parse(bundle []byte) error {
	found := false
	for len(bundle) > 0 {
		var block *pem.Block
		block, bundle = pem.Decode(bundle)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) != 0 {
			continue
		}
		if _, err := x509.ParseCertificates(block.Bytes); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return fmt.Errorf("data does not contain any valid RSA or ECDSA certificates")
	}
	return nil
}

// Asks the server as client-go does (k8s.io/client-go/transport, TLSConfigFor and rootCertPool).
func ask(s server, port int) error {
	if err := parse([]byte(s.bundle)); err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(s.bundle)) {
		return fmt.Errorf("unable to load root certificates")
	}
	dialer := &net.Dialer{Timeout: 20 * time.Second}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, ServerName: s.host}
	connection, err := tls.DialWithDialer(dialer, "tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
	if err != nil {
		return err
	}
	return connection.Close()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
