package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The yardstick: how long the collector itself needs for this heap.
const (
	warmUps      = 2
	measuredRuns = 5
)

// parseCounts reads numbers of threads separated by commas; nothing is an empty list.
func parseCounts(text string) ([]int, error) {
	var counts []int
	for field := range strings.SplitSeq(text, ",") {
		if field == "" {
			continue
		}
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number of threads", field)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// timeCollections prints one line for each GOMAXPROCS of counts:
//
//	GCTIME median_ns=N min_ns=N max_ns=N procs=P
//
// A forced collection is a whole cycle: stop, mark, stop, sweep. It runs on all GOMAXPROCS threads here, for nothing else wants them:
// the caller waits, and idle threads help marking.
func timeCollections(counts []int) {
	percent := debug.SetGCPercent(-1)
	before := runtime.GOMAXPROCS(0)
	for _, procs := range counts {
		runtime.GOMAXPROCS(procs)
		for range warmUps {
			runtime.GC()
		}
		var times [measuredRuns]time.Duration
		for i := range times {
			start := time.Now()
			runtime.GC()
			times[i] = time.Since(start)
		}
		slices.Sort(times[:])
		fmt.Printf("GCTIME median_ns=%d min_ns=%d max_ns=%d procs=%d\n",
			times[measuredRuns/2], times[0], times[measuredRuns-1], procs)
	}
	runtime.GOMAXPROCS(before)
	debug.SetGCPercent(percent)
}
