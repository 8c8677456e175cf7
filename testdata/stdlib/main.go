// Stdlib is five programs that do real work with the standard library; its argument says which one it is. Each brings itself to
// a state in which work is under way (requests are served, handshakes done, jobs half delivered, timers set) and everybody waits; then
// the collector counts what is live, and the core is taken. One executable holds them all: they share a build and a link.
package main

import (
	"fmt"
	"os"

	"goref.test/stdlib/compressor"
	"goref.test/stdlib/jobs"
	"goref.test/stdlib/scheduler"
	"goref.test/stdlib/secure"
	"goref.test/stdlib/web"
)

func main() {
	programs := map[string]func(){
		"web":        web.Run,
		"secure":     secure.Run,
		"jobs":       jobs.Run,
		"compressor": compressor.Run,
		"scheduler":  scheduler.Run,
	}
	if len(os.Args) != 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: stdlib web|secure|jobs|compressor|scheduler")
		os.Exit(2)
	}
	programs[os.Args[1]]()
}
