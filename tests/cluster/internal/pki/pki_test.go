package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func TestAClientAndAServerOfOneAuthorityTrustEachOther(t *testing.T) {
	authority, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := authority.Issue(Identity{Name: "kube-apiserver", Hosts: []string{"127.0.0.1", "kubernetes.default.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := authority.Issue(Identity{Name: "someone", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(authority.Pair.Certificate) {
		t.Fatal("the authority's certificate is not PEM")
	}
	for _, host := range []string{"127.0.0.1", "kubernetes.default.svc"} {
		near, far := net.Pipe()
		accepting := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{keyPair(t, server)},
			ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert})
		calling := tls.Client(near, &tls.Config{Certificates: []tls.Certificate{keyPair(t, client)}, RootCAs: trusted, ServerName: host})
		accepted := make(chan error, 1)
		go func() { accepted <- accepting.Handshake() }()
		if err := calling.Handshake(); err != nil {
			t.Fatalf("calling %s: %v", host, err)
		}
		if err := <-accepted; err != nil {
			t.Fatalf("accepting as %s: %v", host, err)
		}
		subject := accepting.ConnectionState().PeerCertificates[0].Subject
		if subject.CommonName != "someone" || subject.Organization[0] != "system:masters" {
			t.Errorf("the server sees %v", subject)
		}
	}
}

func TestAMereClientMayNotServe(t *testing.T) {
	authority, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(Identity{Name: "someone"})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pair.Certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority.Pair.Certificate)
	if _, err := certificate.Verify(x509.VerifyOptions{Roots: trusted, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a client's certificate was accepted for a server")
	}
}

func TestCertificatesHoldForAClockSetBackAnHour(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	authority, err := NewAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(authority.Pair.Certificate)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if certificate.NotBefore.After(now.Add(-time.Hour)) || certificate.NotAfter.Before(now.Add(300*24*time.Hour)) {
		t.Errorf("valid from %s to %s", certificate.NotBefore, certificate.NotAfter)
	}
}

func TestAKubeconfigStandsByItself(t *testing.T) {
	authority, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(Identity{Name: "understudy-admin", Groups: []string{"system:masters"}})
	if err != nil {
		t.Fatal(err)
	}
	written, err := authority.Kubeconfig("https://127.0.0.1:16443", "admin", pair)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(written)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:16443" || string(config.CAData) != string(authority.Pair.Certificate) ||
		string(config.CertData) != string(pair.Certificate) || string(config.KeyData) != string(pair.Key) {
		t.Errorf("read back: %+v", config)
	}
	if config.CAFile+config.CertFile+config.KeyFile != "" {
		t.Error("it refers to files that may not be where it is copied")
	}
}

func keyPair(t *testing.T, pair Pair) tls.Certificate {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}
