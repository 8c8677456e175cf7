//go:build cgo

package main

/*
#include <sys/wait.h>
#include <unistd.h>

static int child(int ms) {
	int status = 0;
	pid_t pid = vfork();
	if (pid == 0) {
		usleep(ms * 1000);
		_exit(5);
	}
	return waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : -1;
}
*/
import "C"

func init() {
	vfork = func(ms int) int { return int(C.child(C.int(ms))) }
}
