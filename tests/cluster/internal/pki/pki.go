// Package pki makes the certificates, keys and kubeconfigs of one local cluster: a certificate authority that
// lives as long as the cluster, and one key pair per identity. Pure but for the random numbers of the keys and
// the time that the caller gives.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Validity of everything made here. It begins before the cluster, so that a test may set clocks back.
const (
	validBefore = 24 * time.Hour
	validAfter  = 365 * 24 * time.Hour
)

// Pair is a certificate and its private key, both PEM.
type Pair struct {
	// Certificate is PEM, type CERTIFICATE.
	Certificate []byte
	// Key is PEM, type PRIVATE KEY (PKCS #8).
	Key []byte
}

// Authority signs the cluster's certificates.
type Authority struct {
	// Pair is the authority's own certificate and key.
	Pair        Pair
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	now         time.Time
}

// Identity is whom a certificate is for.
type Identity struct {
	// Name is the user's name to Kubernetes (common name).
	Name string
	// Groups are the user's groups (organizations).
	Groups []string
	// Hosts are the names and addresses it may serve as; empty for a mere client.
	Hosts []string
}

// NewAuthority makes the cluster's certificate authority.
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("failed to make the authority's key: %w", err)
	}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: "understudy-local-cluster"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	authority := &Authority{key: key, now: now}
	authority.certificate = &template
	if authority.Pair, err = authority.sign(&template, key); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(authority.Pair.Certificate)
	if authority.certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("failed to read the authority's own certificate: %w", err)
	}
	return authority, nil
}

// Issue makes a key pair for an identity.
func (a *Authority) Issue(identity Identity) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("failed to make the key of %s: %w", identity.Name, err)
	}
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: identity.Name, Organization: identity.Groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, host := range identity.Hosts {
		if address := net.ParseIP(host); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if len(identity.Hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	return a.sign(&template, key)
}

func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Pair{}, fmt.Errorf("failed to draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = a.now.Add(-validBefore), a.now.Add(validAfter)
	signed, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("failed to sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	private, err := encode(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), Key: private}, nil
}

func encode(key *ecdsa.PrivateKey) ([]byte, error) {
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("failed to encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes}), nil
}

// NewSigningKey makes the key of service account tokens: the private and the public half, PEM.
func NewSigningKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to make the service account key: %w", err)
	}
	if private, err = encode(key); err != nil {
		return nil, nil, err
	}
	bytes, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to encode the service account key: %w", err)
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: bytes}), nil
}

// Kubeconfig is a whole kubeconfig file, certificates inside, so that the file may be copied anywhere.
func (a *Authority) Kubeconfig(server, user string, pair Pair) ([]byte, error) {
	const name = "understudy-local"
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: server, CertificateAuthorityData: a.Pair.Certificate}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: pair.Certificate, ClientKeyData: pair.Key}
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	bytes, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("failed to write the kubeconfig of %s: %w", user, err)
	}
	return bytes, nil
}
