// Churn allocates in all ways on all processors while collections run, and dies of a SIGABRT after as many microseconds as its
// first argument says: in a mark phase, in a sweep, inside the allocator, wherever that is. The second argument says how: "kernel"
// ends it at once, no thread executes another instruction; "runtime" lets the runtime handle the signal, which stops what it can.
// Run it with GOTRACEBACK=crash and `ulimit -c unlimited`, or under a debugger that stops at SIGABRT.
//
// What stays is stated here and has a mark: lists of globals, of a local variable of each goroutine, of captured variables, a map's
// values. All of it must be reached.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// The mark of each kind is this and a small number; tests/churn.rs knows it.
const mark = 0x676f726566000000

// Global is in the size class of 1152 bytes.
type Global struct {
	next *Global
	mark uint64
	data [1080]byte
}

// Local is in the size class of 1408 bytes.
type Local struct {
	next *Local
	mark uint64
	data [1290]byte
}

// Value is in the size class of 1792 bytes and has no pointers.
type Value struct {
	mark uint64
	data [1750]byte
}

// Captured is in the size class of 2304 bytes.
type Captured struct {
	next *Captured
	mark uint64
	data [2200]byte
}

const (
	globals  = 300
	locals   = 50
	values   = 200
	captured = 20
	workers  = 4
)

var (
	//goref:expect path="$P.head" count=1 bytes=1152
	//goref:expect path="$P.head -> next. (*$P.Global)" count=299 bytes=344448
	head *Global
	//goref:expect path="$P.table -> $mapval. (*$P.Value)" count=200 bytes=358400
	table = map[int]*Value{}
	ready int32

	sink    interface{}
	strings unsafe.Pointer // *[]string
	tree    unsafe.Pointer // *Tree
)

type Tree struct {
	left, right *Tree
	name        string
	tags        []string
}

//go:noinline
func grow(depth, seed int) *Tree {
	if depth == 0 {
		return nil
	}
	return &Tree{grow(depth-1, seed*2), grow(depth-1, seed*2+1), strconv.Itoa(seed), make([]string, seed%7)}
}

//go:noinline
func list(n int) (l *Local) {
	for i := 0; i < n; i++ {
		l = &Local{next: l, mark: mark + 2}
	}
	return l
}

//go:noinline
func capture(n int) func() int {
	var l *Captured
	for i := 0; i < n; i++ {
		l = &Captured{next: l, mark: mark + 4}
	}
	return func() int {
		n := 0
		for c := l; c != nil; c = c.next {
			n++
		}
		return n
	}
}

func churn(id int) {
	mine := list(locals)
	count := capture(captured)
	atomic.AddInt32(&ready, 1)
	c := make(chan []byte, 8)
	for i := 0; ; i++ {
		m := map[string]*Tree{}
		for k := 0; k < 20; k++ {
			m[strconv.Itoa(k+i)] = grow(4, k)
		}
		s := make([]string, 0, 1)
		for k := 0; k < 100; k++ {
			s = append(s, strconv.Itoa(k*i))
		}
		atomic.StorePointer(&strings, unsafe.Pointer(&s))
		atomic.StorePointer(&tree, unsafe.Pointer(grow(8, i)))
		select {
		case c <- make([]byte, i*37%70_000):
		default:
			for k := 0; k < 8; k++ {
				<-c
			}
		}
		if i%16 == id {
			sink = make([]*Tree, 20_000) // a large object
			done := make(chan int)
			go func() { done <- deep(200, m) }()
			<-done
		}
		if mine.data[0] != 0 || count() != captured {
			panic("damaged")
		}
	}
}

// deep makes its goroutine's stack grow.
//
//go:noinline
func deep(n int, m map[string]*Tree) int {
	var room [16]uintptr
	room[n%16] = uintptr(n)
	if n == 0 {
		return len(m)
	}
	return deep(n-1, m) + int(room[(n+1)%16])
}

func main() {
	for i := 0; i < globals; i++ {
		head = &Global{next: head, mark: mark + 1}
	}
	for i := 0; i < values; i++ {
		table[i] = &Value{mark: mark + 3}
	}
	debug.SetGCPercent(10)
	for i := 0; i < workers; i++ {
		go churn(i)
	}
	go func() {
		for {
			runtime.GC()
		}
	}()
	for atomic.LoadInt32(&ready) < workers {
		runtime.Gosched()
	}
	us, _ := strconv.Atoi(os.Args[1])
	if os.Args[2] == "kernel" {
		var action [4]uintptr // the default one
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGABRT), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
	// A timer of the kernel's: a thread that sleeps would keep its processor, or wait for one.
	event := [8]uint64{1: uint64(syscall.SIGABRT)} // sigevent with SIGEV_SIGNAL
	var id int32
	syscall.RawSyscall(syscall.SYS_TIMER_CREATE, 1, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id)))
	at := [4]int64{2: int64(us) / 1_000_000, 3: int64(us) % 1_000_000 * 1000} // itimerspec
	os.Stdout.WriteString("TRUTH heapalloc=0 objects=0\n")
	syscall.RawSyscall6(syscall.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(&at)), 0, 0, 0)
	select {}
}
