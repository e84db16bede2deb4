// Command llavaref tests implementations of LLaVA against golden values; llavaref --help is its manual.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/llavaref/llavaref/conformance/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	os.Exit(cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
