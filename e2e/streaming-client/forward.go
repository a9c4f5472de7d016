package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/portforward"
)

// runForward listens as kubectl port-forward does, and sends through each connection what an echoing server in the pod must give back.
func runForward(ctx context.Context, flags *flag.FlagSet, args []string) error {
	common := commonFlags(flags)
	address := flags.String("url", "", "what PortForward returned")
	port := flags.Int("port", 0, "in the pod, where a server gives back what it gets")
	connections := flags.Int("connections", 1, "to open, one after the other or -parallel at a time")
	parallel := flags.Int("parallel", 1, "connections open at a time")
	bytes := flags.Int64("bytes", 1024, "to send through each")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	local, ended, err := listen(ctx, common, *address, *port)
	if err != nil {
		return err
	}
	result, start := report{}, time.Now()
	errs := []error{forwardAll(local, *connections, *parallel, *bytes, &result)}
	if len(errs) == 0 || errs[0] == nil {
		errs = append(errs, result.print(start))
	}
	cancel()
	return errors.Join(append(errs, <-ended)...)
}

// listen gives the local port, and the channel that tells of the forwarder's end.
func listen(ctx context.Context, common *options, address string, port int) (uint16, <-chan error, error) {
	dialer, err := common.dialer(address)
	if err != nil {
		return 0, nil, err
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	ports := []string{fmt.Sprintf("0:%d", port)}
	forwarder, err := portforward.NewOnAddressesWithContext(ctx, dialer, []string{"127.0.0.1"}, ports, ready, io.Discard, os.Stderr)
	if err != nil {
		return 0, nil, err
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		return 0, nil, err
	}
	forwarded, err := forwarder.GetPorts()
	if err != nil {
		return 0, nil, err
	}
	return forwarded[0].Local, ended, nil
}

func forwardAll(local uint16, connections, parallel int, bytes int64, result *report) error {
	var lock sync.Mutex
	var workers sync.WaitGroup
	errs := make([]error, parallel)
	for worker := range parallel {
		workers.Go(func() {
			for index := worker; index < connections; index += parallel {
				tally, err := forwardOnce(local, uint64(index), bytes)
				if err != nil {
					errs[worker] = fmt.Errorf("connection %d: %w", index, err)
					return
				}
				lock.Lock()
				result.Whole++
				result.Bytes += tally.bytes
				result.Hash = tally.sum()
				lock.Unlock()
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// forwardOnce half-closes behind what it sends and reads to the end.
func forwardOnce(local uint16, seed uint64, bytes int64) (*tally, error) {
	connection, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", local))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	sent, received := newNoise(seed), newTally(func() {})
	sending := make(chan error, 1)
	go func() {
		_, err := io.CopyN(connection, sent, bytes)
		sending <- errors.Join(err, connection.(*net.TCPConn).CloseWrite())
	}()
	if _, err := io.Copy(received, connection); err != nil {
		return nil, err
	}
	if err := <-sending; err != nil {
		return nil, err
	}
	if received.bytes != bytes || received.sum() != sent.sum() {
		return nil, fmt.Errorf("sent %d bytes %s, received %d bytes %s", bytes, sent.sum(), received.bytes, received.sum())
	}
	return received, nil
}
