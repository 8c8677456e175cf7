// Restless changes while it is looked at.
//
//	restless execute N   executes itself N times, then exits with status 7
//	restless vfork MS    makes children that live for MS milliseconds and keep their parent's thread waiting in vfork (with cgo), each after
//	                     the line CHILD
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

var keep []*[64]int

// vfork makes one child; nil without cgo.
var vfork func(ms int) int

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
	if os.Args[1] == "vfork" {
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
