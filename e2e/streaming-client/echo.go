package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/tools/remotecommand"
)

// report of a bulk command, as JSON.
type report struct {
	// Sessions or connections that were whole.
	Whole int `json:"whole"`
	// Bytes that came back, of all of them.
	Bytes int64 `json:"bytes"`
	// SHA-256 of what came back on the last one.
	Hash   string `json:"hash"`
	Millis int64  `json:"millis"`
}

func (r *report) print(start time.Time) error {
	r.Millis = time.Since(start).Milliseconds()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// runEcho opens all sessions, sends through each what `cat` must give back, and closes stdin only when every one has answered: they are all
// open at once.
func runEcho(ctx context.Context, flags *flag.FlagSet, args []string) error {
	common := commonFlags(flags)
	bytes := flags.Int64("bytes", 1024, "to send through each, at least 1")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var addresses []string
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		addresses = append(addresses, lines.Text())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var result report
	var lock sync.Mutex
	var sessions, answered sync.WaitGroup
	answered.Add(len(addresses))
	errs := make([]error, len(addresses))
	start := time.Now()
	for index, address := range addresses {
		sessions.Go(func() {
			tally, err := echoOnce(ctx, common, address, uint64(index), *bytes, &answered)
			if err != nil {
				errs[index] = fmt.Errorf("session %d: %w", index, err)
				cancel()
				return
			}
			lock.Lock()
			defer lock.Unlock()
			result.Whole++
			result.Bytes += tally.bytes
			result.Hash = tally.sum()
		})
	}
	sessions.Wait()
	return errors.Join(append(errs, result.print(start))...)
}

func echoOnce(ctx context.Context, common *options, address string, seed uint64, bytes int64, answered *sync.WaitGroup) (*tally, error) {
	executor, err := common.executor(address)
	if err != nil {
		return nil, err
	}
	sent := newNoise(seed)
	received := newTally(answered.Done)
	input := io.MultiReader(io.LimitReader(sent, bytes), &endAfter{ctx: ctx, others: answered})
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: received}); err != nil {
		return nil, err
	}
	if received.bytes != bytes || received.sum() != sent.sum() {
		return nil, fmt.Errorf("sent %d bytes %s, received %d bytes %s", bytes, sent.sum(), received.bytes, received.sum())
	}
	return received, nil
}

// endAfter is an input that ends when all others have answered.
type endAfter struct {
	ctx    context.Context
	others *sync.WaitGroup
}

func (e *endAfter) Read([]byte) (int, error) {
	all := make(chan struct{})
	go func() {
		e.others.Wait()
		close(all)
	}()
	select {
	case <-all:
		return 0, io.EOF
	case <-e.ctx.Done():
		return 0, e.ctx.Err()
	}
}
