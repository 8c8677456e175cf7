//go:build go1.24

package main

import (
	"iter"
	"runtime"
	"sync"
	"unique"
	"weak"
)

var (
	handle unique.Handle[string]
	shared sync.Map
)

func newer() {
	n := new(int)
	shared.Store(weak.Make(n), n)
	handle = unique.Make("text")
	runtime.AddCleanup(n, func(int) {}, 1)
	next, stop := iter.Pull(func(yield func(int) bool) { yield(*n) })
	next()
	stop()
}
