// Huge has a heap of huge pages: some of 2 MiB that are full, some that were written in one place, some that were only read (the
// kernel's huge zero page). With an argument it dies after TRUTH, else it waits for its core to be taken.
package main

import (
	"os"
	"runtime/debug"
	"syscall"
	"unsafe"

	"goref.test/fixtures/truth"
)

// V is 32 bytes.
type V [4]uint64

const (
	words    = 4 << 20
	hugePage = 2 << 20
)

var (
	//goref:expect path="$P.full" count=1 bytes=33554432
	//goref:expect path="$P.full -> [0]. (*$P.V)" count=1 bytes=32
	//goref:expect path="$P.full -> [10+]. (*$P.V)" count=1000 bytes=32000
	full []*V
	//goref:expect path="$P.sparse" count=1 bytes=33554432
	//goref:expect path="$P.sparse -> [10+]. (*$P.V)" count=8 bytes=256
	sparse []*V
	//goref:expect path="$P.unwritten" count=1 bytes=33554432
	unwritten []*V
	sum       uintptr
)

var text [4096]byte

// advise asks for huge pages in the whole ones of s.
func advise(s []*V) uintptr {
	from := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	aligned := (from + hugePage - 1) &^ (hugePage - 1)
	length := (from + uintptr(len(s))*8 - aligned) &^ (hugePage - 1)
	_, _, errno := syscall.RawSyscall(syscall.SYS_MADVISE, aligned, length, syscall.MADV_HUGEPAGE)
	if errno != 0 {
		println("madvise:", errno)
	}
	return (aligned - from) / 8
}

func main() {
	// A collection while these are made makes the runtime give their pages back, one by one.
	debug.SetGCPercent(-1)
	full, sparse, unwritten = make([]*V, words), make([]*V, words), make([]*V, words)
	advise(full)
	for i := range 1000 {
		full[i*words/1000+10] = new(V)
	}
	full[0] = new(V)
	first := advise(sparse)
	for i := range uintptr(8) {
		sparse[first+i*2*hugePage/8+1000] = new(V)
	}
	advise(unwritten)
	for i := 0; i < words; i += 512 {
		sum += uintptr(unsafe.Pointer(unwritten[i]))
	}
	// How many of them the kernel gave: the test wants to know whether it tested anything.
	file, _ := syscall.Open("/proc/self/smaps_rollup", syscall.O_RDONLY, 0)
	n, _ := syscall.Read(file, text[:])
	syscall.Close(file)
	os.Stdout.WriteString("HUGE\n")
	os.Stdout.Write(text[:n])
	if len(os.Args) > 1 {
		truth.Settle()
		truth.Kill(syscall.SIGABRT)
	}
	truth.Point()
}
