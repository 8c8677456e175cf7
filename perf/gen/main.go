// Gen builds a heap of a given shape and size, prints how long a forced collection takes and what the collector counts as
// live, and waits for a core to be taken (see truth.Point).
//
//	gen -shape mix -objects 20000000
//
// GOMAXPROCS is taken from the environment as usual; give it the number of threads the analyzer will get.
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

// shapes: name to what fills a heap with about n objects of that kind.
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
	objects := flag.Int("objects", 1_000_000, "about how many objects")
	flag.Parse()
	build, ok := shapes[*shape]
	if !ok {
		fmt.Fprintf(os.Stderr, "unknown shape %q: one of %s\n", *shape, strings.Join(names(), ", "))
		os.Exit(2)
	}
	start := time.Now()
	debug.SetGCPercent(300)
	build(*objects)
	fmt.Fprintf(os.Stderr, "built in %.1f s\n", time.Since(start).Seconds())
	// os.Stderr's buffers and fmt's pools are gone after two collections; nothing uses them again.
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
