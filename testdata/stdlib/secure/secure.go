// Package secure is TLS: a certificate authority, clients with certificates, sessions that are resumed, HTTP/2 with open streams, plain TLS
// connections in both directions, and sealed messages.
package secure

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"hash"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"

	"goref.test/fixtures/truth"
)

const (
	plain   = 5
	streams = 3
	sealed  = 20
)

// authority signs certificates.
type authority struct {
	cert   *x509.Certificate
	key    crypto.Signer
	issued map[string]*tls.Certificate
	pool   *x509.CertPool
	serial int64
}

func (a *authority) issue(name string, key crypto.Signer) *tls.Certificate {
	a.serial++
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(a.serial),
		Subject:               pkix.Name{CommonName: name, Organization: []string{"goref", "test"}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(1000 * time.Hour),
		DNSNames:              []string{name},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  a.cert == nil,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	check(err)
	leaf, err := x509.ParseCertificate(der)
	check(err)
	if a.cert == nil {
		a.cert, a.key = leaf, key
		a.pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	issued := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	a.issued[name] = issued
	return issued
}

// message is sealed for somebody.
type message struct {
	to    *tls.Certificate
	nonce []byte
	text  []byte
	mac   hash.Hash
	aead  cipher.AEAD
	next  *message
}

//goref:expect path="$P.box" count=1 bytes=96
//goref:expect path="$P.box -> next. (*$P.message)" count=19 bytes=1824
var box *message

func seal(to *tls.Certificate, text []byte) {
	secret := sha256.Sum256(append(text, to.Certificate[0]...))
	block, err := aes.NewCipher(secret[:])
	check(err)
	aead, err := cipher.NewGCM(block)
	check(err)
	nonce := make([]byte, aead.NonceSize())
	io.ReadFull(rand.Reader, nonce)
	mac := hmac.New(sha512.New, secret[:])
	mac.Write(text)
	box = &message{to: to, nonce: nonce, text: aead.Seal(nil, nonce, text, nil), mac: mac, aead: aead, next: box}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// echo answers until the connection ends.
func echo(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 1000)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		conn.Write(buffer[:n])
	}
}

// Run connects until everybody waits.
func Run() {
	ca := &authority{issued: map[string]*tls.Certificate{}, pool: x509.NewCertPool()}
	var key crypto.Signer
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	ca.issue("authority", key)
	key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(err)
	server := ca.issue("localhost", key)
	var clients []*tls.Certificate
	for i := 0; i < 4; i++ {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		check(err)
		clients = append(clients, ca.issue(fmt.Sprint("client", i), key))
	}
	for i := 0; i < sealed; i++ {
		seal(clients[i%len(clients)], make([]byte, 100+i))
	}

	config := &tls.Config{
		Certificates: []tls.Certificate{*server},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.pool,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			return nil, nil
		},
	}
	of := func(i int) *tls.Config {
		return &tls.Config{
			RootCAs:            ca.pool,
			ServerName:         "localhost",
			Certificates:       []tls.Certificate{*clients[i%len(clients)]},
			ClientSessionCache: tls.NewLRUClientSessionCache(8),
		}
	}

	// HTTP/2.
	var open sync.WaitGroup
	mux := http.NewServeMux()
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Proto, r.TLS.PeerCertificates[0].Subject)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-End")
		fmt.Fprintln(w, "begin")
		w.(http.Flusher).Flush()
		open.Done()
		<-r.Context().Done()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	web := &http.Server{Handler: mux, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	go web.ServeTLS(listener, "", "")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: of(0), ForceAttemptHTTP2: true}}
	var bodies []io.ReadCloser
	open.Add(streams)
	for i := 0; i < streams; i++ {
		response, err := client.Get("https://" + listener.Addr().String() + "/who")
		check(err)
		answer, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.ProtoMajor != 2 || len(answer) == 0 {
			panic(response.Proto)
		}
		response, err = client.Get("https://" + listener.Addr().String() + "/stream")
		check(err)
		bodies = append(bodies, response.Body)
	}
	open.Wait()

	// TLS without HTTP; every second connection resumes the session of the one before it.
	secret, err := tls.Listen("tcp", "127.0.0.1:0", config)
	check(err)
	go func() {
		for {
			conn, err := secret.Accept()
			if err != nil {
				return
			}
			go echo(conn)
		}
	}()
	var conns []*tls.Conn
	for i := 0; i < plain; i++ {
		config := of(i)
		for k := 0; k < 2; k++ {
			conn, err := tls.Dial("tcp", secret.Addr().String(), config)
			check(err)
			conn.Write(make([]byte, 500))
			_, err = io.ReadFull(conn, make([]byte, 500))
			check(err)
			conns = append(conns, conn)
		}
	}
	truth.Point()
	fmt.Println(ca, web, client, bodies, conns, config)
}
