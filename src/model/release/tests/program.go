// Uses what makes the toolchain describe the structs of the runtime that a table has.
package main

import (
	"os"
	"reflect"
	"runtime"
	"sync"
	"time"
)

var (
	pool  = sync.Pool{New: func() interface{} { return new([]byte) }}
	table = map[string]*int{}
	queue = make(chan *int, 4)
	timer = time.NewTimer(time.Hour)
)

func main() {
	n := new(int)
	runtime.SetFinalizer(n, func(*int) {})
	table[os.Args[0]] = n
	pool.Put(pool.Get())
	go func() { queue <- n }()
	select {
	case m := <-queue:
		table["m"] = m
	case <-timer.C:
	}
	defer func() { recover() }()
	f := reflect.MakeFunc(reflect.TypeOf(newer), func([]reflect.Value) []reflect.Value { return nil })
	f.Call(nil)
	for key := range table {
		delete(table, key)
	}
}
