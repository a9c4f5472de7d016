// cri-client passes every call of the CRI on through the kubelet's own client library, which checks the answers: a client of LISTEN sees
// what the kubelet would see of the runtime at ENDPOINT, and what the library refuses is an error in the library's words.
//
//	cri-client ENDPOINT LISTEN      (paths of unix sockets; ends with its stdin)
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	internalapi "k8s.io/cri-api/pkg/apis"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	client "k8s.io/cri-client/pkg"
)

// timeout is the kubelet's.
const timeout = 2 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("say ENDPOINT and LISTEN")
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		io.Copy(io.Discard, os.Stdin)
	}()
	runtime, images, err := connect(ctx, args[0])
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", args[1])
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, runtime)
	cri.RegisterImageServiceServer(server, images)
	context.AfterFunc(ctx, server.Stop)
	return server.Serve(listener)
}

// connect waits for the socket: the library gives up at once.
func connect(ctx context.Context, socket string) (*runtimeServer, *imageServer, error) {
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			connection.Close()
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, nil, err
	}
	runtime, err := twice(func(stream bool) (internalapi.RuntimeService, error) {
		return client.NewRemoteRuntimeServiceBuilder().WithEndpoint("unix://" + path).WithConnectionTimeout(timeout).WithUseStreaming(stream).Build(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	images, err := twice(func(stream bool) (internalapi.ImageManagerService, error) {
		return client.NewRemoteImageServiceBuilder().WithEndpoint("unix://" + path).WithConnectionTimeout(timeout).WithUseStreaming(stream).Build(ctx)
	})
	if err != nil {
		return nil, nil, err
	}
	return &runtimeServer{lists: runtime}, &imageServer{lists: images}, nil
}
