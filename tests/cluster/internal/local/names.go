package local

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"understudy.dev/tests/cluster/internal/machine"
	"understudy.dev/tests/cluster/internal/plan"
)

// answerBound is how long one DNS question waits for its answer.
const answerBound = time.Second

// nameFound asks, from the client place and through the DNS Service, for the API server's name: it proves the
// server, its watch, the Service and its translation at once.
func (c *cluster) nameFound(ctx context.Context, note func(error)) error {
	return await(ctx, note, func() error {
		if err := c.gone("coredns", "proxy-client"); err != nil {
			return err
		}
		var address string
		err := machine.InNetns(c.Netns(plan.Client), func() (err error) {
			address, err = lookUp(plan.DNSService+":53", "kubernetes.default.svc."+plan.ClusterDomain+".")
			return err
		})
		if err == nil && address != plan.APIService {
			return fmt.Errorf("the API server's name stands for %s, not %s", address, plan.APIService)
		}
		return err
	})
}

// lookUp asks one server for the first IPv4 address of a name.
func lookUp(server, name string) (string, error) {
	asked, err := dnsmessage.NewName(name)
	if err != nil {
		return "", err
	}
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	packed, err := question.Pack()
	if err != nil {
		return "", err
	}
	connection, err := net.Dial("udp", server)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(answerBound)); err != nil {
		return "", err
	}
	if _, err := connection.Write(packed); err != nil {
		return "", err
	}
	received := make([]byte, 1500)
	size, err := connection.Read(received)
	if err != nil {
		return "", err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(received[:size]); err != nil {
		return "", fmt.Errorf("failed to read the DNS answer: %w", err)
	}
	for _, record := range answer.Answers {
		if body, ok := record.Body.(*dnsmessage.AResource); ok {
			return net.IP(body.A[:]).String(), nil
		}
	}
	return "", fmt.Errorf("DNS has no address for %s (%s)", name, answer.RCode)
}
