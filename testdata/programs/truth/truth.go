// Package truth makes the Go collector the referee: Point brings the program to rest, writes down what the collector counts
// as live, and waits for the core to be taken. Nothing in it allocates between the last collection and the check after release.
package truth

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// Everything Point needs is static: a local buffer could escape, and an escape is an allocation. With -asan whatever is converted to
// unsafe.Pointer escapes.
var (
	stats       runtime.MemStats
	line        [256]byte
	input       [1]byte
	statPath    = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 's', 't', 'a', 't', 0}
	statText    [512]byte
	pause       syscall.Timespec
	gcTimes     [5]int64
	beforeLast  [16]func()
	nBeforeLast int
)

// BeforeLast registers f to run between the last two collections before the truth is read (and again before the check after
// release): what a pool is given there survives in its victim cache. f may allocate, but must leave no garbage that depends on
// anything but the number of earlier calls.
func BeforeLast(f func()) {
	beforeLast[nBeforeLast] = f
	nBeforeLast++
}

// Point never returns. Environment: GOREF_GC_TIMES=1 prints the median wall time of five forced collections first.
//
// Lines on stdout, in this order:
//
//	GCTIME median_ns=N procs=P        (only when asked for)
//	TRUTH heapalloc=N objects=N       what the collector counts as live now
//	WAIT                              the core is taken here; one byte on stdin (or its end) releases
//	OK | CHANGED heapalloc=N objects=N        without a collection since: must be OK, else the core is worthless
//	AGAIN heapalloc=N objects=N       the same after the same sequence of collections
func Point() {
	debug.SetGCPercent(-1)
	if v, ok := syscall.Getenv("GOREF_GC_TIMES"); ok && v == "1" {
		timeCollections()
	}
	for i := 0; i < 3; i++ {
		settle()
		collect()
	}
	alloc, objects := stats.HeapAlloc, stats.HeapObjects
	say("TRUTH", alloc, objects)
	write(append(line[:0], "WAIT\n"...))
	for {
		n, err := syscall.Read(0, input[:])
		if err == syscall.EINTR || err == syscall.EAGAIN {
			nanosleep(10_000_000)
			continue
		}
		_ = n
		break
	}
	runtime.ReadMemStats(&stats)
	if stats.HeapAlloc == alloc && stats.HeapObjects == objects {
		say("OK", stats.HeapAlloc, stats.HeapObjects)
	} else {
		say("CHANGED", stats.HeapAlloc, stats.HeapObjects)
	}
	collect()
	say("AGAIN", stats.HeapAlloc, stats.HeapObjects)
	os.Exit(0)
}

// Settle writes the truth as Point does, and returns: nothing may be allocated from here on but by a crash that is to follow.
func Settle() {
	debug.SetGCPercent(-1)
	for i := 0; i < 3; i++ {
		settle()
		collect()
	}
	say("TRUTH", stats.HeapAlloc, stats.HeapObjects)
}

// Kill sends the process a signal that kills it: SIGABRT to this thread, any other to the thread that the kernel chooses.
func Kill(signal syscall.Signal) {
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	if signal == syscall.SIGABRT {
		tid, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
		syscall.RawSyscall(syscall.SYS_TGKILL, pid, tid, uintptr(signal))
	} else {
		syscall.RawSyscall(syscall.SYS_KILL, pid, uintptr(signal), 0)
	}
	for {
		nanosleep(100_000_000)
	}
}

// collect runs the collections of one truth: two, then the registered functions, then the last.
func collect() {
	runtime.GC()
	runtime.GC()
	if nBeforeLast > 0 {
		for _, f := range beforeLast[:nBeforeLast] {
			f()
		}
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
}

// settle returns when heap, goroutines and threads held still for 20 rounds of 5 ms (and at least one collection happened).
func settle() {
	runtime.GC()
	var heap, objects uint64
	var goroutines, threads, still int
	for still < 20 {
		nanosleep(5_000_000)
		runtime.Gosched()
		runtime.ReadMemStats(&stats)
		g, t := runtime.NumGoroutine(), numThreads()
		if stats.HeapAlloc == heap && stats.HeapObjects == objects && g == goroutines && t == threads {
			still++
			continue
		}
		still = 0
		heap, objects, goroutines, threads = stats.HeapAlloc, stats.HeapObjects, g, t
	}
}

// nanosleep sleeps without the runtime's timers and without handing the P over: nothing is started on its behalf.
func nanosleep(ns int64) {
	pause.Nsec = ns
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
}

// numThreads is num_threads of /proc/self/stat, the 18th field after the parenthesised name.
func numThreads() int {
	const atFdCwd = ^uintptr(99) // -100
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, atFdCwd, uintptr(unsafe.Pointer(&statPath)), syscall.O_RDONLY, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	n, _, _ := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&statText)), uintptr(len(statText)))
	syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	if n > uintptr(len(statText)) {
		return -1
	}
	end := -1
	for i, c := range statText[:n] {
		if c == ')' {
			end = i
		}
	}
	threads, field := 0, 0
	for _, c := range statText[end+1 : n] {
		if c == ' ' {
			field++
		} else if field == 18 {
			threads = threads*10 + int(c-'0')
		}
	}
	return threads
}

func timeCollections() {
	runtime.GC()
	runtime.GC()
	for i := range gcTimes {
		start := time.Now()
		runtime.GC()
		gcTimes[i] = int64(time.Since(start))
	}
	for i := range gcTimes {
		for j := i; j > 0 && gcTimes[j] < gcTimes[j-1]; j-- {
			gcTimes[j], gcTimes[j-1] = gcTimes[j-1], gcTimes[j]
		}
	}
	b := append(line[:0], "GCTIME median_ns="...)
	b = strconv.AppendInt(b, gcTimes[len(gcTimes)/2], 10)
	b = append(b, " procs="...)
	b = strconv.AppendInt(b, int64(runtime.GOMAXPROCS(0)), 10)
	write(append(b, '\n'))
}

func say(word string, heapAlloc, objects uint64) {
	b := append(line[:0], word...)
	b = append(b, " heapalloc="...)
	b = strconv.AppendUint(b, heapAlloc, 10)
	b = append(b, " objects="...)
	b = strconv.AppendUint(b, objects, 10)
	write(append(b, '\n'))
}

func write(b []byte) {
	for len(b) > 0 {
		n, err := syscall.Write(1, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			os.Exit(9)
		}
		b = b[n:]
	}
}
