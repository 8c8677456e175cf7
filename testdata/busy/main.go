// Busy does everything that a debugger could spoil, and checks each step: requests over loopback, allocation on all processors, blocking
// reads and sleeps in raw system calls, timers, children that it waits for, one of which is dead from the beginning. It runs until a line comes on standard input, then says
// what it did and exits with status 7; any step that went wrong is counted and named.
//
// Its argument is the size of an additional heap in MiB. A ticker of 100 microseconds measures how long the process stood still;
// the line "GAP" on standard input has it print and reset the largest gap, "FORK" how long a fork of its own took.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Node is what the heap is made of.
type Node struct {
	next *Node
	data []byte
}

var (
	heap     []*Node
	stopping int32
	workers  sync.WaitGroup
	faults   int64
	first    atomic.Value
	gap      int64
	// Steps of each kind of work.
	requests, allocations, reads, sleeps, timers, children int64
)

// Kinds of work, by their steps; with cgo there are more, which more starts.
var (
	kinds = []*int64{&requests, &allocations, &reads, &sleeps, &timers, &children}
	more  []func()
)

// standsStill says how many kinds of work make no step any more; each gets ten seconds for it.
func standsStill() int {
	before := make([]int64, len(kinds))
	for i, steps := range kinds {
		before[i] = atomic.LoadInt64(steps)
	}
	still := 0
	for i, steps := range kinds {
		end := time.Now().Add(10 * time.Second)
		for atomic.LoadInt64(steps) == before[i] && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
		}
		if atomic.LoadInt64(steps) == before[i] {
			still++
		}
	}
	return still
}

func fault(what string, detail interface{}) {
	if atomic.AddInt64(&faults, 1) == 1 {
		first.Store(fmt.Sprint(what, ": ", detail))
	}
}

// work runs step until the end, after begin if there is one.
func work(counter *int64, step func(), begin ...func()) {
	workers.Add(1)
	go func() {
		defer workers.Done()
		for _, f := range begin {
			f()
		}
		for atomic.LoadInt32(&stopping) == 0 {
			step()
			atomic.AddInt64(counter, 1)
		}
	}()
}

func serve() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			fault("body", err)
		}
		fmt.Fprintf(w, "%d", len(body))
	}
	go http.Serve(listener, http.HandlerFunc(answer))
	return "http://" + listener.Addr().String()
}

func request(client *http.Client, url string) {
	text := make([]byte, 3000)
	response, err := client.Post(url, "text/plain", &reader{text})
	if err != nil {
		fault("request", err)
		return
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "3000" {
		fault("answer", fmt.Sprint(string(body), err))
	}
}

// reader hides the length, so that the body is sent in chunks.
type reader struct{ rest []byte }

func (r *reader) Read(to []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(to, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func allocate() {
	var list *Node
	for i := 0; i < 200; i++ {
		list = &Node{next: list, data: make([]byte, 16+i%300)}
		list.data[0] = byte(i)
	}
	for i := 199; list != nil; i, list = i-1, list.next {
		if list.data[0] != byte(i) {
			fault("memory", i)
		}
	}
}

// pipe blocks in read(2), which nothing may interrupt: all handlers of the runtime restart it.
func pipe() {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		panic(err)
	}
	work(&reads, func() {
		var b [1]byte
		if n, err := syscall.Read(fds[0], b[:]); n != 1 || err != nil {
			fault("read", fmt.Sprint(n, err))
		}
	})
	go func() {
		for i := 0; ; i++ {
			time.Sleep(7 * time.Millisecond)
			syscall.Write(fds[1], []byte{byte(i)})
		}
	}()
}

// undisturbed gives the goroutine a thread of its own that gets no signals, so that nothing but a debugger could interrupt it.
func undisturbed() {
	runtime.LockOSThread()
	all, size := ^uint64(0), uintptr(8)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&all)), 0, size, 0, 0)
}

// blocked is the thread's set of blocked signals.
func blocked() (mask uint64) {
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, 0, uintptr(unsafe.Pointer(&mask)), 8, 0, 0)
	return mask
}

func sleep() {
	// All but SIGKILL and SIGSTOP.
	if mask := blocked(); mask != ^uint64(1<<8|1<<18) {
		fault("signal mask", mask)
	}
	start := time.Now()
	span := syscall.NsecToTimespec(int64(30 * time.Millisecond))
	if err := syscall.Nanosleep(&span, nil); err != nil {
		fault("nanosleep", err)
	}
	if slept := time.Since(start); slept < 30*time.Millisecond {
		fault("nanosleep ended early", slept)
	}
}

func timer() {
	start := time.Now()
	<-time.After(3 * time.Millisecond)
	if slept := time.Since(start); slept < 3*time.Millisecond {
		fault("timer", slept)
	}
}

// child runs a program and waits for it; between children there is none to wait for.
func child() {
	out, err := exec.Command("/bin/sh", "-c", "echo hello; exit 3").Output()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 3 || string(out) != "hello\n" {
		fault("child", fmt.Sprint(string(out), err))
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		fault("a child of someone else", fmt.Sprint(pid, err))
	}
	time.Sleep(5 * time.Millisecond)
}

// silent makes a child that no signal announces at its end, as package os does to try CLONE_PIDFD, and leaves it dead. The function that
// it returns says what became of it: it must still be there.
func silent() func() {
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return func() {
		const wclone = 0x80000000
		if found, err := syscall.Wait4(int(pid), nil, wclone, nil); errno != 0 || found != int(pid) {
			fault("silent child", fmt.Sprint(pid, errno, found, err))
		}
	}
}

// fork says how long the kernel needs to copy the page tables, which is what a snapshot costs at least.
func fork() time.Duration {
	start := time.Now()
	reap := silent()
	took := time.Since(start)
	reap()
	return took
}

// measure looks at the clock every 100 microseconds or so.
func measure() {
	last := time.Now()
	for atomic.LoadInt32(&stopping) == 0 {
		time.Sleep(100 * time.Microsecond)
		now := time.Now()
		if d := int64(now.Sub(last)); d > atomic.LoadInt64(&gap) {
			atomic.StoreInt64(&gap, d)
		}
		last = now
	}
}

func main() {
	mib, idle, reap := 0, false, func() {}
	for _, arg := range os.Args[1:] {
		if arg == "idle" {
			idle = true
		} else {
			mib, _ = strconv.Atoi(arg)
		}
	}
	for i := 0; i < mib; i++ {
		var list *Node
		for j := 0; j < 1<<20/1088; j++ {
			list = &Node{next: list, data: make([]byte, 1024)}
			list.data[0] = 1
		}
		heap = append(heap, list)
	}
	if !idle {
		reap = silent()
		url := serve()
		// Longer than anyone stops the machine.
		client := &http.Client{Timeout: 600 * time.Second}
		for i := 0; i < 4; i++ {
			work(&requests, func() { request(client, url) })
		}
		for i := 0; i < runtime.GOMAXPROCS(0); i++ {
			work(&allocations, allocate)
		}
		pipe()
		work(&sleeps, sleep, undisturbed)
		work(&timers, timer)
		work(&children, child)
		for _, start := range more {
			start()
		}
	}
	workers.Add(1)
	go func() { defer workers.Done(); measure() }()
	fmt.Println("RUNNING")
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err == nil && line == "GAP\n" {
			fmt.Printf("GAP %d us\n", atomic.SwapInt64(&gap, 0)/1000)
			continue
		}
		if err == nil && line == "FORK\n" {
			fmt.Printf("FORK %d us\n", fork()/time.Microsecond)
			continue
		}
		break
	}
	still := 0
	if !idle {
		still = standsStill()
	}
	atomic.StoreInt32(&stopping, 1)
	workers.Wait()
	reap()
	fmt.Printf("DONE faults=%d still=%d requests=%d allocations=%d reads=%d sleeps=%d timers=%d children=%d in_c=",
		faults, still, requests, allocations, reads, sleeps, timers, children)
	for _, steps := range kinds[6:] {
		fmt.Printf("%d,", *steps)
	}
	fmt.Printf(" nodes=%d first fault=%q\n", len(heap), first.Load())
	os.Exit(7)
}
