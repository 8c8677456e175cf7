//go:build cgo

package main

/*
#include <errno.h>
#include <stdint.h>
#include <time.h>

static int sleepInC(long ns) {
	struct timespec left = {0, ns};
	while (nanosleep(&left, &left) != 0) {
		if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

// Keeps the registers busy, those for floating point too.
static double computeInC(uint64_t seed, long steps) {
	double a = 1, b = 2, c = 3, d = 4;
	while (steps-- > 0) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		a += (double)(seed & 0xff) * 0.25;
		b = b * 0.999 + a * 0.001;
		c += b * 0.5 - c * 0.125;
		d = (d + c) * 0.5;
	}
	return a + b + c + d + (double)(seed >> 40);
}

extern int goBack(int n);

static int throughC(int n) { return goBack(n); }
*/
import "C"

import (
	"fmt"
	"time"
)

var cSleeps, cComputations, cCallbacks int64

func init() {
	kinds = append(kinds, &cSleeps, &cComputations, &cCallbacks)
	more = append(more, startC)
}

//export goBack
func goBack(n C.int) C.int {
	if n > 0 {
		return C.throughC(n-1) + 1
	}
	return 0
}

func startC() {
	work(&cSleeps, func() {
		start := time.Now()
		if errno := C.sleepInC(20_000_000); errno != 0 {
			fault("nanosleep in C", errno)
		}
		if slept := time.Since(start); slept < 20*time.Millisecond {
			fault("nanosleep in C ended early", slept)
		}
	}, undisturbed)
	expected := C.computeInC(88172645463325252, 300_000)
	work(&cComputations, func() {
		if found := C.computeInC(88172645463325252, 300_000); found != expected {
			fault("computation in C", fmt.Sprint(found, expected))
		}
	})
	work(&cCallbacks, func() {
		if n := C.throughC(5); n != 5 {
			fault("callbacks", n)
		}
		time.Sleep(time.Millisecond)
	})
}
