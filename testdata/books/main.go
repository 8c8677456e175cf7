// A program that states its own books: what the collector counts as live, then garbage of known sizes and kinds made after the last
// collection, then runtime.MemStats. With the argument "dirty" more is allocated after that, so that the allocation caches are
// not flushed. tests/books.rs takes the core at WAIT and compares.
//
// Lines on stdout: TRUTH (truth.Settle), BOOKS key=value ..., WAIT; after a byte on stdin BOOKS again, without a collection.
package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"weak"

	"goref.test/fixtures/truth"
)

// Small is 48 bytes.
type Small struct {
	Next *Small
	n    [5]uint64
}

// Big is 1000 bytes, 1024 with its malloc header.
type Big struct {
	Next *Small
	n    [124]uint64
}

// Weight is 3072 bytes without pointers.
type Weight [384]uint64

// Holder is 16 bytes with pointers.
type Holder struct {
	Weight *Weight
	Self   *Holder
}

const (
	smalls      = 100 // chained in pairs
	bigs        = 7
	byteSlices  = 10 // of 3000 bytes: 3072
	pointers    = 2  // slices of 8192 pointers: 65536 bytes
	largeBytes  = 1  // of 100000 bytes: 106496
	finalizable = 5  // Holder, each keeps a Weight
	finalBigs   = 3  // Big with a finalizer
	cleanable   = 4  // Small with a cleanup
	late        = 33 // Small, when dirty
	lateNoscan  = 21 // of 64 bytes, when dirty
	queued      = 20 // Holder, each with a Weight; one of them is in the running finalizer
	cleanups    = 4  // with a Weight as argument
)

var (
	sink     any
	bytes    []byte
	slice    []*Small
	settled  runtime.MemStats
	before   runtime.MemStats
	after    runtime.MemStats
	now      runtime.MemStats
	line     [1024]byte
	input    [1]byte
	kept     = new(Small)
	targets  [16]*Small
	tiny     *int32
	blocked  = make(chan struct{})
	blocking = make(chan struct{})
	release  = make(chan struct{})
)

func hold(h *Holder) { h.Self = nil }

//go:noinline
func garbage() {
	for range smalls / 2 {
		sink = &Small{Next: new(Small)}
	}
	for range bigs {
		sink = new(Big)
	}
	for range byteSlices {
		bytes = make([]byte, 3000)
	}
	for range pointers {
		slice = make([]*Small, 8192)
	}
	for range largeBytes {
		bytes = make([]byte, 100000)
	}
	for range finalizable {
		h := &Holder{Weight: new(Weight)}
		runtime.SetFinalizer(h, hold)
	}
	for range finalBigs {
		b := new(Big)
		runtime.SetFinalizer(b, func(b *Big) { b.n[0]++ })
	}
	sink, bytes, slice = nil, nil, nil
}

//go:noinline
func withCleanups() {
	for range cleanable {
		runtime.AddCleanup(new(Small), func(int) {}, 7)
	}
}

//go:noinline
func dirty() {
	for range late {
		sink = new(Small)
	}
	for range lateNoscan {
		sink = new([8]uint64)
	}
	tiny = new(int32) // opens a block of 16 bytes, which the allocation cache holds
	sink, tiny = nil, nil
}

// queue leaves finalizers and cleanups queued behind one of each that blocks.
//
//go:noinline
func queue() {
	for range queued {
		h := &Holder{Weight: new(Weight)}
		runtime.SetFinalizer(h, func(h *Holder) {
			select {
			case blocked <- struct{}{}:
			default:
			}
			<-release
			h.Weight[0]++
		})
	}
}

//go:noinline
func queueCleanups() {
	for range cleanups {
		runtime.AddCleanup(new(Small), func(w *Weight) {
			select {
			case blocking <- struct{}{}:
			default:
			}
			<-release
			w[0]++
		}, new(Weight))
	}
}

func until(c chan struct{}) {
	done := make(chan struct{})
	go func() { <-c; close(done) }()
	for {
		runtime.GC()
		select {
		case <-done:
			return
		default:
			runtime.Gosched()
		}
	}
}

func main() {
	runtime.SetFinalizer(kept, func(*Small) {})
	runtime.AddCleanup(kept, func(int) {}, 1)
	for i := range targets {
		targets[i] = new(Small)
		weak.Make(targets[i]) // nobody keeps the pointer; its handle lives as long as the target
	}
	queueCleanups()
	if runtime.Version() >= "go1.25" {
		until(blocking)
	} else {
		blocking = blocked // one goroutine runs finalizers and cleanups: whatever comes first blocks
	}
	queue()
	until(blocked)
	truth.Settle()
	runtime.ReadMemStats(&settled)
	garbage()
	runtime.ReadMemStats(&before)
	withCleanups()
	runtime.ReadMemStats(&after)
	lateBytes, lateObjects := uint64(0), uint64(0)
	now = after
	if len(os.Args) > 1 && os.Args[1] == "dirty" {
		dirty()
		lateBytes, lateObjects = late*48+lateNoscan*64+16, late+lateNoscan+1
	}
	say(lateBytes, lateObjects)
	write(append(line[:0], "WAIT\n"...))
	for {
		n, err := syscall.Read(0, input[:])
		if err != syscall.EINTR && err != syscall.EAGAIN {
			_ = n
			break
		}
	}
	runtime.ReadMemStats(&now)
	say(0, 0)
	runtime.KeepAlive(kept)
}

// say writes what there is: now, and what was allocated since.
func say(lateBytes, lateObjects uint64) {
	b := append(line[:0], "BOOKS"...)
	for _, v := range [...]struct {
		key   string
		value uint64
	}{
		{"HeapAlloc", now.HeapAlloc + lateBytes},
		{"HeapObjects", now.HeapObjects + lateObjects},
		{"HeapInuse", now.HeapInuse},
		{"HeapIdle", now.HeapIdle},
		{"HeapReleased", now.HeapReleased},
		{"StackInuse", now.StackInuse},
		{"StackSys", now.StackSys},
		{"MSpanInuse", now.MSpanInuse},
		{"MSpanSys", now.MSpanSys},
		{"MCacheInuse", now.MCacheInuse},
		{"MCacheSys", now.MCacheSys},
		{"BuckHashSys", now.BuckHashSys},
		{"GCSys", now.GCSys},
		{"OtherSys", now.OtherSys},
		{"Sys", now.Sys},
		// What is garbage by construction, to check against what the counters say.
		{"settled_bytes", settled.HeapAlloc},
		{"settled_objects", settled.HeapObjects},
		{"made_bytes", before.HeapAlloc - settled.HeapAlloc},
		{"made_objects", before.HeapObjects - settled.HeapObjects},
		{"cleanups_bytes", after.HeapAlloc - before.HeapAlloc},
		{"cleanups_objects", after.HeapObjects - before.HeapObjects},
		{"late_bytes", now.HeapAlloc + lateBytes - after.HeapAlloc},
		{"late_objects", now.HeapObjects + lateObjects - after.HeapObjects},
	} {
		b = append(b, ' ')
		b = append(b, v.key...)
		b = append(b, '=')
		b = strconv.AppendUint(b, v.value, 10)
	}
	write(append(b, '\n'))
}

func write(b []byte) {
	for len(b) > 0 {
		n, err := syscall.Write(1, b)
		if err == nil && n > 0 {
			b = b[n:]
		} else if err != syscall.EINTR {
			os.Exit(9)
		}
	}
}
