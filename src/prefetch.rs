//! Hints to the memory system: start loading a cache line that a batch will need soon.
//!
//! A walk touches objects in an order that no hardware prefetcher guesses; without hints more than half of its time are stalls on the
//! first word of an object, its mask and its mark (perf/notes/0003).
#![allow(unsafe_code)]

/// Asks for the cache line of `value`. Never faults; does nothing where the machine has no such instruction.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let line = std::ptr::from_ref(value);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint for any address; it reads nothing the program can see and cannot fault. SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above; `prfm` has no effect but on caches.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = line;
}
