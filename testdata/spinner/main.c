/* Computes without any system call, all vector registers full, until SIGTERM; then looks whether they still hold what they held.
 * Exit status: 0 if so, 1 if not, 2 if the machine has no vectors that are worth it. Its first line says that it has begun. */

#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void end(int signal) {
	(void)signal;
	over = 1;
}

#if defined(__aarch64__)
#include <sys/auxv.h>

static int has_vectors(void) { return (getauxval(AT_HWCAP) >> 22 & 1) != 0; /* HWCAP_SVE */ }

static uint64_t spin(void) {
	uint64_t wrong;
	__asm__ volatile(
	    ".arch armv8-a+sve\n"
	    "	index z0.d, #0, #1\n"
	    "	index z31.d, #5, #3\n"
	    "	ptrue p7.d\n"
	    "1:	ldr w9, [%1]\n"
	    "	cbz w9, 1b\n"
	    "	ptrue p0.d\n"
	    "	index z1.d, #0, #1\n"
	    "	cmpne p1.d, p0/z, z0.d, z1.d\n"
	    "	cntp %0, p0, p1.d\n"
	    "	index z1.d, #5, #3\n"
	    "	cmpne p1.d, p0/z, z31.d, z1.d\n"
	    "	cntp x9, p0, p1.d\n"
	    "	add %0, %0, x9\n"
	    "	not p1.b, p0/z, p7.b\n"
	    "	cntp x9, p0, p1.d\n"
	    "	add %0, %0, x9\n"
	    : "=&r"(wrong)
	    : "r"(&over)
	    : "x9", "v0", "v1", "v31", "cc", "memory");
	return wrong;
}
#else
static int has_vectors(void) { return __builtin_cpu_supports("avx2") != 0; }

static uint64_t spin(void) {
	uint64_t wrong;
	__asm__ volatile(
	    "	vpcmpeqb %%ymm15, %%ymm15, %%ymm15\n"
	    "	vpsrlq $7, %%ymm15, %%ymm3\n"
	    "1:	movl (%1), %%eax\n"
	    "	testl %%eax, %%eax\n"
	    "	jz 1b\n"
	    "	vpcmpeqb %%ymm14, %%ymm14, %%ymm14\n"
	    "	vpcmpeqb %%ymm14, %%ymm15, %%ymm15\n"
	    "	vpsrlq $7, %%ymm14, %%ymm14\n"
	    "	vpcmpeqb %%ymm14, %%ymm3, %%ymm3\n"
	    "	vpand %%ymm3, %%ymm15, %%ymm15\n"
	    "	vpmovmskb %%ymm15, %%eax\n"
	    "	notl %%eax\n"
	    "	vzeroupper\n"
	    : "=&a"(wrong)
	    : "r"(&over)
	    : "xmm3", "xmm14", "xmm15", "cc", "memory");
	return (uint32_t)wrong;
}
#endif

int main(void) {
	signal(SIGTERM, end);
	if (!has_vectors()) {
		return 2;
	}
	if (write(1, "SPINS\n", 6) != 6) {
		return 3;
	}
	return spin() != 0;
}
