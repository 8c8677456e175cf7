// Signals has a goroutine that holds an object in its frame alone, and tells the truth. Then, as its argument says: "busy": the
// goroutine is in a loop, and its thread is sent one SIGURG after the other, as if it had to be preempted; "yields": two such goroutines
// give way to each other. Run it with GODEBUG=asyncpreemptoff=1, so that no other such signals come, under a debugger that stops it in
// the signal's handler or where the runtime switches stacks. Nothing is allocated after the truth.
package main

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"goref.test/fixtures/truth"
)

// V is 48 bytes.
type V struct {
	n    [4]uint64
	next *V
}

var (
	begin, holding int32
	tid            uintptr
	count          uint64
	pause          = syscall.Timespec{Nsec: 1_000_000}
)

//go:noinline
func newV() *V { return &V{next: &V{}} }

// hold has v in its frame while it calls.
//
//go:noinline
func hold(v *V, work func()) {
	atomic.AddInt32(&holding, 1)
	for atomic.LoadInt32(&begin) == 0 {
		runtime.Gosched()
	}
	work()
	v.n[0]++
}

//go:noinline
func busy() {
	id, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
	atomic.StoreUintptr(&tid, id)
	for atomic.LoadInt32(&begin) != 0 {
		count++
	}
}

//go:noinline
func yields() {
	for atomic.LoadInt32(&begin) != 0 {
		runtime.Gosched()
	}
}

// begun is where the debugger begins.
//
//go:noinline
func begun() { atomic.AddInt32(&holding, 0) }

func sleep() {
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
}

func main() {
	//goref:expect path="$P.main.local" count=1 bytes=48
	local := newV()
	work := yields
	if os.Args[1] == "busy" {
		work = busy
	}
	go hold(newV(), work)
	//goref:expect path="$P.hold.v" count=2 bytes=96
	//goref:expect path="$P.hold.v -> next. (*$P.V)" count=2 bytes=96
	go hold(newV(), yields)
	for atomic.LoadInt32(&holding) < 2 {
		runtime.Gosched()
	}
	truth.Settle()
	atomic.StoreInt32(&begin, 1)
	pid, _, _ := syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
	begun()
	for atomic.LoadInt32(&begin) != 0 {
		sleep()
		if to := atomic.LoadUintptr(&tid); to != 0 {
			syscall.RawSyscall(syscall.SYS_TGKILL, pid, to, uintptr(syscall.SIGURG))
		}
	}
	local.n[0]++
}
