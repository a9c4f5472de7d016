package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
)

// runServe gives back what it gets, and ends each connection when the client half-closes: the other end of forward, for a container to run.
// Unlike a shell's tools it takes many connections at once.
func runServe(ctx context.Context, flags *flag.FlagSet, args []string) error {
	port := flags.Int("port", 0, "to listen on, on every address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	fmt.Println("listening")
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			io.Copy(connection, connection)
		}()
	}
}
