//! Finds where a goroutine was when a signal came: in the registers that the kernel saved on the signal stack, for a thread at any
//! instruction of a handler.
//!
//! A handler of the runtime is unwound to `runtime.sigtramp`, which the kernel called: its CFA is where the signal frame is. Handlers
//! nest: one that dies of its signal raises it once more. Code of C cannot be unwound (a handler that the runtime forwards signals
//! to, or the one that was there first), but what interrupted the goroutine itself is the first signal on that stack, so its frame lies
//! where the stack begins, and `uc_stack` in it says which stack that is.

use super::code::{FrameCodes, Role};
use super::memory::StackMemory;
use super::unwind::{Start, unwind};
use crate::address::Addr;
use crate::image::{Image, Thread};

/// How far up a signal stack is looked; the runtime's own is 32 KiB.
const SIGNAL_STACK_BYTES: u64 = 64 << 10;
/// Signal handlers that are followed within each other: each needs a kilobyte of the signal stack for its context alone.
const NESTED_SIGNALS: usize = 16;
/// Flags of `uc_flags` that kernels set.
const UC_FLAGS: u64 = 7;
/// The only flag of `uc_stack.ss_flags` unless the signal came while another was handled on the same stack (`SS_ONSTACK`).
const SS_AUTODISARM: u32 = 1 << 31;
/// Sizes that are believed: at least `MINSIGSTKSZ`, which kernels ask for.
const SIGNAL_STACK_SIZES: std::ops::RangeInclusive<u64> = 2048..=1 << 20;
/// Signal frames are aligned to that.
const FRAME_ALIGNMENT: u64 = 16;

/// PC and registers (DWARF numbering) of a goroutine that a signal interrupted, if `thread` is in a signal handler and SP was on the
/// goroutine's stack (`on_stack`).
pub(super) fn interrupted(
    thread: &Thread,
    on_stack: &dyn Fn(u64) -> bool,
    image: &dyn Image,
    codes: &mut dyn FrameCodes,
) -> Option<(u64, Vec<u64>)> {
    let architecture = codes.architecture();
    let (mut pc, mut registers) = (thread.pc, thread.dwarf_regs.clone());
    for _ in 0..NESTED_SIGNALS {
        let start = Start::at_registers(pc, &registers, architecture);
        let bytes = read_up(start.sp, image);
        let Some(found) = by_frames(start, StackMemory::new(start.sp, &bytes), image, codes) else { break };
        (pc, registers) = found;
        if on_stack(architecture.stack_pointer(&registers)) {
            return Some((pc, registers));
        }
    }
    let bytes = read_up(thread.sp, image);
    by_looks(StackMemory::new(thread.sp, &bytes), on_stack, codes)
}

/// The stack from `sp` on. It may end anywhere: page by page, as far as there is memory.
fn read_up(sp: u64, image: &dyn Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut page = [0; 4096];
    while (bytes.len() as u64) < SIGNAL_STACK_BYTES {
        let Some(at) = sp.checked_add(bytes.len() as u64) else { break };
        let len = 4096 - (at % 4096) as usize;
        if image.read(Addr(at), &mut page[..len]).is_err() {
            break;
        }
        bytes.extend_from_slice(&page[..len]);
    }
    bytes
}

/// What the innermost signal handler on the stack at `start` interrupted.
fn by_frames(
    start: Start,
    stack: StackMemory<'_>,
    image: &dyn Image,
    codes: &mut dyn FrameCodes,
) -> Option<(u64, Vec<u64>)> {
    if returns(start.pc, image, codes) {
        return read(stack, start.sp, codes);
    }
    let mut frames = Vec::new();
    unwind(start, stack, codes, &mut frames);
    let handler = frames.iter().find(|f| codes.code(f.code).role == Role::SigTramp)?.cfa;
    read(stack, handler, codes)
}

/// Whether the handler has returned to what returns from the signal: then SP is where its CFA was.
fn returns(pc: u64, image: &dyn Image, codes: &mut dyn FrameCodes) -> bool {
    if let Some(id) = codes.find(pc) {
        return codes.code(id).role == Role::SigReturn;
    }
    let architecture = codes.architecture();
    let code = architecture.sigreturn;
    // Before its first instruction, at the system call, in it.
    [0, code.len() - architecture.syscall_len, code.len()].into_iter().any(|done| {
        let mut bytes = vec![0; code.len()];
        let at = pc.checked_sub(done as u64);
        at.is_some_and(|at| image.read(Addr(at), &mut bytes).is_ok() && bytes == code)
    })
}

/// What the kernel saved in the signal frame at `handler`, the CFA of the handler.
fn read(stack: StackMemory<'_>, handler: u64, codes: &dyn FrameCodes) -> Option<(u64, Vec<u64>)> {
    let architecture = codes.architecture();
    let word = |offset: u64| stack.word(handler.checked_add(offset)?);
    // The kernel sets no `uc_link`: whoever else called the handler did not leave a signal frame.
    if word(architecture.signal_stack.checked_sub(8)?)? != 0 {
        return None;
    }
    architecture.signal_frame.read(word)
}

/// What the first signal on the signal stack interrupted, if `stack` begins at a SP on that stack.
fn by_looks(stack: StackMemory<'_>, on_stack: &dyn Fn(u64) -> bool, codes: &dyn FrameCodes) -> Option<(u64, Vec<u64>)> {
    let architecture = codes.architecture();
    let sp = stack.base();
    let is_first = |handler: &u64| {
        // uc_flags, uc_link, ss_sp, ss_flags (an int), ss_size.
        let at = |i: u64| stack.word(handler.checked_add(architecture.signal_stack - 16 + i * 8)?);
        let words = (at(0), at(1), at(2), at(3), at(4));
        let (Some(uc_flags), Some(0), Some(ss_sp), Some(ss_flags), Some(ss_size)) = words else { return false };
        let holds = |addr: u64| addr.checked_sub(ss_sp).is_some_and(|at| at < ss_size);
        uc_flags <= UC_FLAGS
            && ss_flags & u64::from(!SS_AUTODISARM) == 0
            && SIGNAL_STACK_SIZES.contains(&ss_size)
            && holds(sp)
            && holds(*handler)
    };
    let first = sp.checked_next_multiple_of(FRAME_ALIGNMENT)?;
    let count = stack.end().saturating_sub(first) / FRAME_ALIGNMENT;
    let frames = (0..count).rev().map(|i| first + i * FRAME_ALIGNMENT);
    // Frames of signals that came later lie below it, and so does what is left of older ones.
    let interrupted = frames.filter(is_first).find_map(|handler| read(stack, handler, codes));
    interrupted.filter(|(_, registers)| on_stack(architecture.stack_pointer(registers)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64, Architecture};
    use crate::model::modules::testing::Bytes;
    use crate::model::stacks::code::FLAG_TOP_FRAME;
    use crate::model::stacks::testing::Codes;

    /// Where the memory of these tests begins, and how much there is of it.
    const BASE: u64 = 0x1000;
    const WORDS: usize = 512;

    /// What a thread handles at `pc` with SP at `BASE`. PC 1 has no frame (`raise`), PC 2 is a handler that called it, PC 3 `sigtramp`
    /// with 192 bytes, PC 16 its first instruction, PC 5 is `sigreturn`. The goroutine's stack is [0x7000, 0x8000).
    fn handling(machine: &'static Architecture, pc: u64, words: &[u64], lr: u64) -> Option<(u64, Vec<u64>)> {
        let mut codes = Codes::of(machine);
        codes.add(1, 0, 0, Role::Normal).add(2, 32, 0, Role::Normal).add(3, 192, FLAG_TOP_FRAME, Role::SigTramp);
        codes.add(16, 0, FLAG_TOP_FRAME, Role::SigTramp).add(5, 0, 0, Role::SigReturn);
        let mut registers = vec![0; machine.prstatus.dwarf.len()];
        registers[machine.dwarf_sp] = BASE;
        if let Some(i) = machine.dwarf_lr {
            registers[i] = lr;
        }
        let thread = Thread { tid: 1, pc, sp: BASE, dwarf_regs: registers, signal: 6 };
        let bytes = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let image = Bytes::new(vec![(BASE, bytes(words)), (0x9_0000, machine.sigreturn.to_vec())]);
        interrupted(&thread, &|sp| (0x7000..0x8000).contains(&sp), &image, &mut codes)
    }

    /// A stack where the handler's CFA is at word `at`, of a signal that came at PC `pc` and SP `sp`; its registers are 100, 101 ..
    fn signal(machine: &Architecture, at: usize, pc: u64, sp: u64) -> Vec<u64> {
        let mut words = vec![0; WORDS];
        push(&mut words, machine, at, pc, sp);
        words
    }

    fn push(words: &mut [u64], machine: &Architecture, at: usize, pc: u64, sp: u64) {
        let stack = at + machine.signal_stack as usize / 8;
        words[stack..stack + 3].copy_from_slice(&[BASE, 0, WORDS as u64 * 8]);
        let saved = &machine.signal_frame;
        let first = at + saved.offset as usize / 8;
        for (i, word) in saved.dwarf.iter().enumerate() {
            words[first + *word as usize] = 100 + i as u64;
        }
        words[first + saved.dwarf[machine.dwarf_sp] as usize] = sp;
        words[first + saved.pc as usize] = pc;
    }

    fn expected(machine: &Architecture) -> (u64, Vec<u64>) {
        let mut registers: Vec<u64> = (100..).take(machine.signal_frame.dwarf.len()).collect();
        registers[machine.dwarf_sp] = 0x7010;
        (77, registers)
    }

    #[test]
    fn signal_frames_of_arm64() {
        // The frame of PC 2 with its return address, that of sigtramp, siginfo and the ucontext up to fault_address.
        let mut words = vec![3, 0, 0, 0];
        words.resize(4 + 24 + 16 + 22 + 1, 0);
        let regs = words.len();
        words.extend((100..131).chain([0x7010, 77, 0]));
        words.resize(WORDS, 0);
        assert_eq!(handling(&ARM64, 1, &words, 2), Some(expected(&ARM64)));
        // SP on another stack, where no handler is.
        words[regs + 31] = BASE;
        assert_eq!(handling(&ARM64, 1, &words, 2), None);
        assert_eq!(handling(&ARM64, 1, &[3; 8], 2), None, "cut off");
    }

    #[test]
    fn signal_frames_of_amd64() {
        let mut words = vec![2, 0, 0, 0, 0, 3];
        // sigtramp's frame, its return address, the ucontext up to its registers.
        words.resize(6 + 24 + 1 + 5, 0);
        words.extend([8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2].map(|register| 100 + register));
        words.extend([0x7010, 77]);
        words.resize(WORDS, 0);
        assert_eq!(handling(&AMD64, 1, &words, 0), Some(expected(&AMD64)));
    }

    #[test]
    fn a_handler_that_has_not_begun_and_one_that_is_done() {
        // On amd64 the address of what it returns to lies below its CFA, until it has returned there.
        for (machine, begins) in [(&AMD64, 1), (&ARM64, 0)] {
            let words = signal(machine, begins, 77, 0x7010);
            assert_eq!(handling(machine, 16, &words, 0x5500), Some(expected(machine)), "{}", machine.name);
            let words = signal(machine, 0, 77, 0x7010);
            let done = machine.sigreturn.len() as u64;
            for pc in [5, 0x9_0000, 0x9_0000 + done, 0x9_0000 + done - machine.syscall_len as u64] {
                assert_eq!(handling(machine, pc, &words, 0), Some(expected(machine)), "{} at {pc:#x}", machine.name);
            }
        }
    }

    #[test]
    fn handlers_within_each_other() {
        for (machine, begins) in [(&AMD64, 1), (&ARM64, 0)] {
            // The second one came at the first instruction of the first.
            let mut words = signal(machine, 256, 77, 0x7010);
            push(&mut words, machine, begins, 16, BASE + (256 - begins as u64) * 8);
            assert_eq!(handling(machine, 16, &words, 0), Some(expected(machine)), "{}", machine.name);
            // A loop.
            push(&mut words, machine, begins, 16, BASE);
            words[begins + machine.signal_stack as usize / 8 + 1] = 1; // SS_ONSTACK
            assert!(handling(machine, 16, &words, 0).is_some(), "the first one is found by its looks");
            words[256 + machine.signal_stack as usize / 8 + 2] = 0;
            assert_eq!(handling(machine, 16, &words, 0), None, "hostile");
        }
    }

    #[test]
    fn code_of_c_on_a_signal_stack() {
        for machine in [&AMD64, &ARM64] {
            // PC 9 is in no function of Go's.
            let mut words = signal(machine, 300, 77, 0x7010);
            assert_eq!(handling(machine, 9, &words, 0), Some(expected(machine)), "{}", machine.name);
            // What is left of an older signal, below.
            push(&mut words, machine, 100, 78, 0x7020);
            assert_eq!(handling(machine, 9, &words, 0), Some(expected(machine)), "{}", machine.name);
            // The goroutine had left its stack when the signal came.
            push(&mut words, machine, 300, 77, 0x6010);
            assert_eq!(handling(machine, 9, &words, 0), None, "{}", machine.name);
            // Words that are no signal frame: a pointer for a size, a flag that no kernel sets, a `uc_link`.
            let stack = 300 + machine.signal_stack as usize / 8;
            for (at, word) in [(2, 0xc0_0011_5e30), (2, 0), (0, 0), (1, 1), (1, 2), (-1, BASE as i64), (-2, 8)] {
                let mut words = signal(machine, 300, 77, 0x7010);
                words[stack.wrapping_add_signed(at)] = word as u64;
                assert_eq!(handling(machine, 9, &words, 0), None, "{} {at} {word}", machine.name);
            }
            // The thread is on another stack.
            let mut words = signal(machine, 300, 77, 0x7010);
            words[300 + machine.signal_stack as usize / 8] = BASE + 8;
            assert_eq!(handling(machine, 9, &words, 0), None, "{}", machine.name);
        }
    }

    #[test]
    fn hostile_signal_stacks() {
        for machine in [&AMD64, &ARM64] {
            for words in [vec![u64::MAX; WORDS], vec![BASE; WORDS], vec![1; 3], vec![]] {
                for pc in [0, 1, 2, 3, 5, 9, 16, u64::MAX] {
                    assert_eq!(handling(machine, pc, &words, u64::MAX), None, "{} at {pc:#x}", machine.name);
                }
            }
        }
        assert!(read_up(u64::MAX - 3, &Bytes::new(vec![])).is_empty());
    }
}
