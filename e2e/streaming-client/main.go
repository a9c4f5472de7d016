// streaming-client drives the address that Exec, Attach or PortForward returned, with the libraries that kubectl is made of.
//
//	streaming-client exec    -url URL [-protocol P] [-stdin] [-tty] [-sizes 80x24,132x43]
//	streaming-client echo    [-protocol P] [-bytes N]                                       (addresses of `cat` on stdin, one a line)
//	streaming-client forward -url URL [-protocol P] -port N [-connections N] [-parallel N] [-bytes N]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/util/exec"
)

// clientFailed is the exit code when the session itself failed; else it is that of the process.
const clientFailed = 125

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	var exit exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.Exited():
		os.Exit(exit.ExitStatus())
	default:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(clientFailed)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say exec, echo or forward")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	switch args[0] {
	case "exec":
		return runExec(ctx, flags, args[1:])
	case "echo":
		return runEcho(ctx, flags, args[1:])
	case "forward":
		return runForward(ctx, flags, args[1:])
	default:
		return fmt.Errorf("unknown command %q: say exec, echo or forward", args[0])
	}
}
