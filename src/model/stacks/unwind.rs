//! Unwinds one goroutine stack by the function tables, as `runtime.unwinder` does for the collector (traceback.go).
//!
//! Frames go from the innermost outwards. Each frame's CFA lies above the last one's, inside the stack, so a hostile stack ends
//! after at most one frame per word of it.

use super::code::{CodeId, FLAG_SP_WRITE, FLAG_TOP_FRAME, FrameCodes, Role};
use super::memory::StackMemory;
use crate::architecture::Architecture;

/// Where to start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// PC of the innermost frame.
    pub pc: u64,
    /// SP of the innermost frame.
    pub sp: u64,
    /// The link register there: where the innermost function was called, unless it has saved that in its frame. 0 if unknown, or if
    /// the machine has none.
    pub lr: u64,
    /// The pair is `g.syscallpc`, `g.syscallsp`.
    pub is_syscall: bool,
    /// The PC is any instruction (registers of a running thread), not a safe point: no map describes the innermost frame.
    pub any_pc: bool,
}

impl Start {
    /// At any instruction, with these registers (DWARF numbering).
    #[must_use]
    pub fn at_registers(pc: u64, registers: &[u64], architecture: &Architecture) -> Self {
        let (sp, lr) = (architecture.stack_pointer(registers), architecture.link_register(registers));
        Self { pc, sp, lr, is_syscall: false, any_pc: true }
    }
}

/// How a frame's words are to be found.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameMode {
    /// By the maps at the frame's own PC, a return address or a function's entry.
    Exact,
    /// It called `sigpanic`: by the maps at its deferreturn call, or never again.
    Trapped,
    /// Every word, at a return address.
    Conservative,
    /// Every word, at any instruction.
    ConservativeAnyPc,
}

/// One physical frame.
#[derive(Copy, Clone, Debug)]
pub struct Frame {
    /// The caller's SP.
    pub cfa: u64,
    /// The code it stands at.
    pub code: CodeId,
    /// How to scan it.
    pub mode: FrameMode,
}

/// Why unwinding ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The outermost function.
    Top,
    /// The first PC is in no module.
    UnknownPc,
    /// A return address is in no module.
    UnknownReturn,
    /// A function that writes SP.
    SpWrite,
    /// A frame leaves the stack, or the image lacks a word of it.
    OutOfStack,
}

impl End {
    /// The incident cause, `None` for the ordinary end.
    #[must_use]
    pub const fn cause(self) -> Option<&'static str> {
        match self {
            Self::Top => None,
            Self::UnknownPc => Some("stack.unknown_pc"),
            Self::UnknownReturn => Some("stack.unknown_return_pc"),
            Self::SpWrite => Some("stack.sp_write"),
            Self::OutOfStack => Some("stack.frame_outside_stack"),
        }
    }
}

/// Unwinds from `start`; appends the frames to `frames`, innermost first.
///
/// Cost: one lookup of the code per frame.
pub fn unwind(start: Start, stack: StackMemory<'_>, codes: &mut dyn FrameCodes, frames: &mut Vec<Frame>) -> End {
    let architecture = codes.architecture();
    // Whether calls leave the return address in a register, and the called function saves it at the bottom of its frame.
    let has_lr = architecture.dwarf_lr.is_some();
    let (mut pc, mut sp, mut lr) = (start.pc, start.sp, start.lr);
    if pc == 0 {
        // A call of a nil func value: continue where it was called.
        if !has_lr || lr == 0 {
            let Some(top) = stack.word(sp) else { return End::OutOfStack };
            pc = top;
            sp = sp.wrapping_add_signed(architecture.call_pushes);
        } else {
            pc = lr;
        }
        lr = 0;
    }
    let Some(mut id) = codes.find(pc) else { return End::UnknownPc };
    let mut innermost = true;
    // What the callee demands of this frame.
    let mut callee = Role::Normal;
    loop {
        let code = codes.code(id);
        if code.no_sp_table {
            return End::Top;
        }
        let cfa = sp.wrapping_sub_signed(code.sp);
        // Only a function that was interrupted may have nothing on the stack, or one that ends it.
        let ends = code.flag & FLAG_TOP_FRAME != 0 || code.role == Role::SigTramp;
        let may_be_empty = has_lr && (innermost || callee.is_injected() || ends);
        if cfa < sp || (cfa == sp && !may_be_empty) || cfa > stack.end() {
            return End::OutOfStack;
        }
        let mode = if callee == Role::Injected || (innermost && start.any_pc) {
            FrameMode::ConservativeAnyPc
        } else if code.role == Role::Injected {
            FrameMode::Conservative
        } else if callee == Role::SigPanic {
            FrameMode::Trapped
        } else {
            FrameMode::Exact
        };
        let flag = if code.role == Role::CgoCallback || (innermost && start.is_syscall) {
            code.flag & !FLAG_SP_WRITE
        } else {
            code.flag
        };
        let frameless = code.frameless;
        callee = code.role;
        frames.push(Frame { cfa, code: id, mode });
        // (`runtime.cgoSigtramp` has no flag.)
        if flag & FLAG_TOP_FRAME != 0 || callee == Role::SigTramp {
            return End::Top;
        }
        if flag & FLAG_SP_WRITE != 0 && !innermost {
            return End::SpWrite;
        }
        let saved_at = if has_lr { sp } else { cfa.wrapping_sub(8) };
        let ret = if has_lr && frameless && lr != 0 { Some(lr) } else { stack.word(saved_at) };
        let Some(ret) = ret else { return End::OutOfStack };
        if ret == 0 {
            return End::Top;
        }
        id = match codes.find(ret) {
            Some(caller) => caller,
            None => return End::UnknownReturn,
        };
        (sp, lr) = (cfa, 0);
        if has_lr && callee.is_injected() {
            // The signal handler saved the link register of the function that it made call.
            let Some(pushed) = stack.word(sp) else { return End::OutOfStack };
            lr = pushed;
            sp = sp.wrapping_add_signed(architecture.injected_call);
        }
        innermost = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64};
    use crate::model::stacks::testing::Codes;

    fn stack(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    type Found = (Vec<(u64, u64, FrameMode)>, End);

    fn run(start: (u64, u64), any_pc: bool, words: &[u64], codes: &mut Codes) -> Found {
        run_with_lr(start, 0, any_pc, words, codes)
    }

    fn run_with_lr((pc, sp): (u64, u64), lr: u64, any_pc: bool, words: &[u64], codes: &mut Codes) -> Found {
        let bytes = stack(words);
        let mut frames = Vec::new();
        let start = Start { pc, sp, lr, is_syscall: false, any_pc };
        let end = unwind(start, StackMemory::new(0x1000, &bytes), codes, &mut frames);
        (frames.into_iter().map(|f| (codes.code(f.code).pc, f.cfa, f.mode)).collect(), end)
    }

    #[test]
    fn follows_return_addresses_to_the_top_frame() {
        let mut codes = Codes::of(&AMD64);
        codes.add(1, 16, 0, Role::Normal).add(2, 0, 0, Role::Normal).add(3, 8, FLAG_TOP_FRAME, Role::Normal);
        let (frames, end) = run((1, 0x1000), false, &[0, 0, 2, 3, 0, 0], &mut codes);
        assert_eq!(end, End::Top);
        use FrameMode::Exact;
        assert_eq!(frames, [(1, 0x1018, Exact), (2, 0x1020, Exact), (3, 0x1030, Exact)]);
    }

    #[test]
    fn nil_call_starts_at_the_pushed_return_address() {
        let mut codes = Codes::of(&AMD64);
        codes.add(7, 0, FLAG_TOP_FRAME, Role::Normal);
        let (frames, end) = run((0, 0x1000), false, &[7, 0, 0], &mut codes);
        assert_eq!((frames.len(), frames[0].1, end), (1, 0x1010, End::Top));
    }

    #[test]
    fn sigpanic_and_preemption_change_the_callers_mode() {
        let mut codes = Codes::of(&AMD64);
        codes.add(1, 0, 0, Role::SigPanic).add(2, 0, 0, Role::Normal).add(3, 0, 0, Role::Injected);
        codes.add(4, 0, 0, Role::Normal).add(5, 0, FLAG_TOP_FRAME, Role::Normal);
        let (frames, _) = run((1, 0x1000), false, &[2, 3, 4, 5, 0], &mut codes);
        use FrameMode::*;
        let modes: Vec<_> = frames.iter().map(|f| f.2).collect();
        assert_eq!(modes, [Exact, Trapped, Conservative, ConservativeAnyPc, Exact]);
    }

    #[test]
    fn registers_make_only_the_innermost_frame_conservative() {
        let mut codes = Codes::of(&AMD64);
        codes.add(1, 0, FLAG_SP_WRITE, Role::Normal).add(2, 0, 0, Role::Normal).add(3, 0, FLAG_SP_WRITE, Role::Normal);
        let (frames, end) = run((1, 0x1000), true, &[2, 3, 1, 1], &mut codes);
        use FrameMode::*;
        assert_eq!(frames.iter().map(|f| f.2).collect::<Vec<_>>(), [ConservativeAnyPc, Exact, Exact]);
        assert_eq!(end, End::SpWrite, "an outer function that writes SP ends it");
    }

    #[test]
    fn hostile_stacks_end() {
        let mut codes = Codes::of(&AMD64);
        codes.add(1, 0, 0, Role::Normal).add(2, i32::MAX, 0, Role::Normal).add(3, -8, 0, Role::Normal);
        let (frames, end) = run((1, 0x1000), false, &[1; 100], &mut codes);
        assert_eq!((frames.len(), end), (100, End::OutOfStack));
        assert_eq!(run((2, 0x1000), false, &[1; 4], &mut codes), (vec![], End::OutOfStack));
        assert_eq!(run((3, 0x1000), false, &[3; 4], &mut codes), (vec![], End::OutOfStack));
        assert_eq!(run((1, u64::MAX - 3), false, &[1; 4], &mut codes).1, End::OutOfStack);
        assert_eq!(run((9, 0x1000), false, &[1; 4], &mut codes).1, End::UnknownPc);
        assert_eq!(run((1, 0x1000), false, &[9; 4], &mut codes).1, End::UnknownReturn);
    }

    #[test]
    fn link_register_leads_out_of_a_function_without_a_frame() {
        use FrameMode::*;
        let mut codes = Codes::of(&ARM64);
        // The last one has no frame (runtime.goexit).
        codes.add(1, 0, 0, Role::Normal).add(2, 32, 0, Role::Normal).add(3, 0, FLAG_TOP_FRAME, Role::Normal);
        // The caller at 2 saved its own return address at the bottom of its frame.
        let words = [3, 0, 0, 0, 0, 0, 0];
        let expected = vec![(1, 0x1000, Exact), (2, 0x1020, Exact), (3, 0x1020, Exact)];
        assert_eq!(run_with_lr((1, 0x1000), 2, false, &words, &mut codes), (expected, End::Top));
        // Where the frame is there, the link register may be anything.
        let expected = vec![(2, 0x1020, Exact), (3, 0x1020, Exact)];
        let words = [3, 9, 9, 9, 9, 9, 9];
        assert_eq!(run_with_lr((2, 0x1000), 9, false, &words, &mut codes), (expected, End::Top));
        // Unknown (a system call): on the stack.
        assert_eq!(run((1, 0x1000), false, &[3, 0, 0], &mut codes).0[1], (3, 0x1000, Exact));
    }

    #[test]
    fn registers_of_arm64_start_with_their_link_register() {
        let mut registers: Vec<u64> = (100..132).collect();
        registers[30] = 2;
        let start = Start::at_registers(1, &registers, &ARM64);
        assert_eq!(start, Start { pc: 1, sp: 131, lr: 2, is_syscall: false, any_pc: true });
        assert_eq!(Start::at_registers(1, &registers[..16], &AMD64).lr, 0);
        assert_eq!(Start::at_registers(1, &[], &ARM64).sp, 0, "hostile");
    }

    #[test]
    fn injected_calls_on_arm64_leave_the_link_register_above_them() {
        use FrameMode::*;
        let mut codes = Codes::of(&ARM64);
        codes.add(1, 32, 0, Role::Injected).add(2, 0, 0, Role::Normal).add(3, 16, 0, Role::Normal);
        codes.add(4, 16, FLAG_TOP_FRAME, Role::Normal).add(5, 32, 0, Role::SigPanic);
        // asyncPreempt (4 words), what was pushed (2 words), a function without a frame, its callers.
        let words = [2, 0, 0, 0, 3, 0, 4, 0, 0, 0, 0];
        let expected =
            vec![(1, 0x1020, Conservative), (2, 0x1030, ConservativeAnyPc), (3, 0x1040, Exact), (4, 0x1050, Exact)];
        assert_eq!(run((1, 0x1000), false, &words, &mut codes), (expected, End::Top));
        // sigpanic in a function with a frame: the pushed word is no return address of its caller.
        let words = [3, 0, 0, 0, 9, 9, 4, 0, 0, 0];
        let expected = vec![(5, 0x1020, Exact), (3, 0x1040, Trapped), (4, 0x1050, Exact)];
        assert_eq!(run((5, 0x1000), false, &words, &mut codes), (expected, End::Top));
    }

    #[test]
    fn nil_call_on_arm64_continues_at_the_link_register() {
        let mut codes = Codes::of(&ARM64);
        codes.add(7, 16, FLAG_TOP_FRAME, Role::Normal);
        let (frames, end) = run_with_lr((0, 0x1000), 7, true, &[0, 0, 0], &mut codes);
        assert_eq!((frames.len(), frames[0].1, end), (1, 0x1010, End::Top));
        let (frames, end) = run((0, 0x1000), true, &[7, 0, 0], &mut codes);
        assert_eq!((frames.len(), frames[0].1, end), (1, 0x1010, End::Top));
    }

    #[test]
    fn hostile_stacks_of_arm64_end() {
        let mut codes = Codes::of(&ARM64);
        codes.add(1, 0, 0, Role::Normal).add(2, 32, 0, Role::Injected).add(3, -16, 0, Role::Normal);
        // A function without a frame that calls itself; the link register says so, too.
        assert_eq!(
            run_with_lr((1, 0x1000), 1, false, &[1; 8], &mut codes),
            (vec![(1, 0x1000, FrameMode::Exact)], End::OutOfStack)
        );
        // Preempted in its preemption, again and again: each takes a part of the stack.
        let (frames, end) = run((2, 0x1000), false, &[2; 96], &mut codes);
        assert_eq!((frames.len(), end), (16, End::OutOfStack));
        // Such calls of a function without a frame.
        let words: Vec<u64> = [1, 0, 0, 0, 2, 0].repeat(10);
        let (frames, end) = run((2, 0x1000), false, &words, &mut codes);
        assert_eq!((frames.len(), end), (20, End::OutOfStack));
        assert_eq!(run((3, 0x1000), false, &[3; 4], &mut codes), (vec![], End::OutOfStack));
        assert_eq!(run((1, u64::MAX - 3), false, &[1; 4], &mut codes).1, End::OutOfStack);
    }
}
