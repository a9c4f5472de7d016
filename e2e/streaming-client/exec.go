package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"k8s.io/client-go/tools/remotecommand"
)

// runExec connects its own stdio to an exec or attach. The first of -sizes is the window at the start, the next ones come with each SIGWINCH.
func runExec(ctx context.Context, flags *flag.FlagSet, args []string) error {
	common := commonFlags(flags)
	address := flags.String("url", "", "what Exec or Attach returned")
	stdin := flags.Bool("stdin", false, "the request asked for stdin")
	tty := flags.Bool("tty", false, "the request asked for a terminal")
	sizes := flags.String("sizes", "80x24", "windows, WIDTHxHEIGHT")
	if err := flags.Parse(args); err != nil {
		return err
	}
	executor, err := common.executor(*address)
	if err != nil {
		return err
	}
	streams := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: *tty}
	if *stdin {
		streams.Stdin = os.Stdin
	}
	if *tty {
		queue, err := newSizeQueue(ctx, *sizes)
		if err != nil {
			return err
		}
		streams.TerminalSizeQueue = queue
	} else {
		streams.Stderr = os.Stderr
	}
	return executor.StreamWithContext(ctx, streams)
}

type sizeQueue struct {
	ctx     context.Context
	changed chan os.Signal
	sizes   []remotecommand.TerminalSize
	told    int
}

func newSizeQueue(ctx context.Context, text string) (*sizeQueue, error) {
	queue := &sizeQueue{ctx: ctx, changed: make(chan os.Signal, 8)}
	for item := range strings.SplitSeq(text, ",") {
		var size remotecommand.TerminalSize
		if _, err := fmt.Sscanf(item, "%dx%d", &size.Width, &size.Height); err != nil {
			return nil, fmt.Errorf("-sizes: %q is no WIDTHxHEIGHT", item)
		}
		queue.sizes = append(queue.sizes, size)
	}
	signal.Notify(queue.changed, syscall.SIGWINCH)
	return queue, nil
}

// Next blocks until there is a new size; nil is the end.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	if q.told > 0 {
		select {
		case <-q.changed:
		case <-q.ctx.Done():
			return nil
		}
	}
	if q.told == len(q.sizes) {
		return nil
	}
	q.told++
	return &q.sizes[q.told-1]
}
