// Gen builds a heap of a given shape and size, prints how long forced collections of it take and what the collector counts as
// live, and waits for a core to be taken (see truth.Point).
//
//	gen -shape mix -size 20000000 -procs 1,2
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"goref.test/fixtures/truth"
)

// shapes: name to what fills a heap with n things of that kind.
var shapes = map[string]func(n int){
	"mix":        buildMix,
	"list":       buildList,
	"tree":       buildTree,
	"slice":      buildSlice,
	"strings":    buildStrings,
	"maps":       buildMaps,
	"bigmap":     buildBigMap,
	"closures":   buildClosures,
	"goroutines": buildGoroutines,
	"selfish":    buildSelfish,
}

func main() {
	shape := flag.String("shape", "mix", "one of "+strings.Join(names(), ", "))
	size := flag.Int("size", 1_000_000, "how many things of that kind (of mix: objects, about)")
	procs := flag.String("procs", "", "time forced collections with each of these GOMAXPROCS, separated by commas")
	flag.Parse()
	build, ok := shapes[*shape]
	if !ok {
		fmt.Fprintf(os.Stderr, "unknown shape %q: one of %s\n", *shape, strings.Join(names(), ", "))
		os.Exit(2)
	}
	counts, err := parseCounts(*procs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "-procs:", err)
		os.Exit(2)
	}
	start := time.Now()
	// Garbage stays below the live heap, so that a core is at most about twice as large.
	debug.SetGCPercent(100)
	build(*size)
	fmt.Fprintf(os.Stderr, "built in %.1f s\n", time.Since(start).Seconds())
	timeCollections(counts)
	// What fmt and flag left behind is gone after two collections; nothing uses them again.
	truth.Point()
}

func names() []string {
	var all []string
	for name := range shapes {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
