package main

import (
	"strings"
	"sync/atomic"

	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
)

// lists is a service of the library, once with unary lists and once with streaming ones.
type lists[Service any] struct {
	unary, streaming Service
}

func twice[Service any](build func(stream bool) (Service, error)) (lists[Service], error) {
	unary, err := build(false)
	if err != nil {
		return lists[Service]{}, err
	}
	streaming, err := build(true)
	return lists[Service]{unary, streaming}, err
}

// fallback is what the library logged when a runtime lacked a streaming list: it calls the unary one instead, from then on, and says so nowhere
// else.
var fallback atomic.Value

func init() {
	watch := func(_, line string) {
		if strings.Contains(line, "falling back") {
			fallback.Store(line)
		}
	}
	klog.SetLoggerWithOptions(funcr.New(watch, funcr.Options{}), klog.ContextualLogger(true))
}

// sendList answers a streaming list with all in one message, if that is what it came from.
func sendList[Message any](stream grpc.ServerStreamingServer[Message], message *Message, err error) error {
	if err != nil {
		return err
	}
	if line := fallback.Load(); line != nil {
		return status.Errorf(codes.Unimplemented, "no streaming list: %s", line)
	}
	return stream.Send(message)
}
