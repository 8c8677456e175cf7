// Restless changes while it is looked at.
//
//	restless execute N   executes itself N times, then exits with status 7
//	restless vfork MS    makes children that live for MS milliseconds and keep their parent's thread waiting in vfork (with cgo), each after
//	                     the line CHILD
//	restless headless MS ends its first thread, says HEADLESS, and exits with status 7 after MS milliseconds
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var keep []*[64]int

// vfork makes one child; nil without cgo.
var vfork func(ms int) int

func init() {
	// The first goroutine stays on the first thread; else any thread may be the one that executes.
	if len(os.Args) > 1 && os.Args[1] == "headless" {
		runtime.LockOSThread()
	}
}

// headless ends the first thread and never returns.
func headless(ms int) {
	go func() {
		for {
			stat, _ := os.ReadFile("/proc/self/stat")
			if strings.Contains(string(stat), ") Z ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println("HEADLESS")
		time.Sleep(time.Duration(ms) * time.Millisecond)
		os.Exit(7)
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

func main() {
	for i := 0; i < 5000; i++ {
		keep = append(keep, new([64]int))
	}
	for i := 0; i < 8; i++ {
		go func() {
			for {
				time.Sleep(time.Millisecond)
			}
		}()
	}
	n, _ := strconv.Atoi(os.Args[2])
	switch os.Args[1] {
	case "headless":
		headless(n)
	case "vfork":
		for {
			fmt.Println("CHILD")
			if status := vfork(n); status != 5 {
				panic(status)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	time.Sleep(time.Duration(10+n%7*5) * time.Millisecond)
	if n > 0 {
		panic(syscall.Exec("/proc/self/exe", []string{os.Args[0], "execute", strconv.Itoa(n - 1)}, os.Environ()))
	}
	os.Exit(7)
}
