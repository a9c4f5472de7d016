package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

// options of every command.
type options struct {
	protocol string
	caFile   string
}

func commonFlags(flags *flag.FlagSet) *options {
	var common options
	flags.StringVar(&common.protocol, "protocol", "spdy", "spdy, spdy-v1 to -v4, websocket, websocket-v1, -v4, fallback; forward: spdy, tunnel, fallback")
	flags.StringVar(&common.caFile, "ca", "", "file with the authority that signed the server's certificate")
	return &common
}

func (o *options) config(target *url.URL) *rest.Config {
	return &rest.Config{Host: target.Scheme + "://" + target.Host, TLSClientConfig: rest.TLSClientConfig{CAFile: o.caFile}}
}

var spdyVersions = map[string]string{
	"spdy-v1": "channel.k8s.io",
	"spdy-v2": "v2.channel.k8s.io",
	"spdy-v3": "v3.channel.k8s.io",
	"spdy-v4": "v4.channel.k8s.io",
}

// executor speaks the chosen protocol to the address of an exec or attach.
func (o *options) executor(address string) (remotecommand.Executor, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	config := o.config(target)
	switch o.protocol {
	case "spdy":
		return remotecommand.NewSPDYExecutor(config, http.MethodPost, target)
	case "spdy-v1", "spdy-v2", "spdy-v3", "spdy-v4":
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, http.MethodPost, target, spdyVersions[o.protocol])
	case "websocket":
		return remotecommand.NewWebSocketExecutor(config, http.MethodGet, address)
	case "websocket-v1":
		return remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, address, "channel.k8s.io")
	case "websocket-v4":
		return remotecommand.NewWebSocketExecutorForProtocols(config, http.MethodGet, address, "v4.channel.k8s.io")
	case "fallback":
		websocket, err := remotecommand.NewWebSocketExecutor(config, http.MethodGet, address)
		if err != nil {
			return nil, err
		}
		overSpdy, err := remotecommand.NewSPDYExecutor(config, http.MethodPost, target)
		if err != nil {
			return nil, err
		}
		return remotecommand.NewFallbackExecutor(websocket, overSpdy, httpstream.IsUpgradeFailure)
	default:
		return nil, fmt.Errorf("exec and attach know no protocol %q", o.protocol)
	}
}

// dialer speaks the chosen protocol to the address of a port-forward.
func (o *options) dialer(address string) (httpstream.Dialer, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	config := o.config(target)
	switch o.protocol {
	case "spdy":
		transport, upgrader, err := spdy.RoundTripperFor(config)
		if err != nil {
			return nil, err
		}
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target), nil
	case "tunnel":
		return portforward.NewSPDYOverWebsocketDialer(target, config)
	default:
		return nil, fmt.Errorf("port-forward knows no protocol %q", o.protocol)
	}
}
