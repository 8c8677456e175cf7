//! Unwinds one goroutine stack by the function tables, as `runtime.unwinder` does for the collector (traceback.go).
//!
//! Frames go from the innermost outwards. Each frame's CFA lies above the last one's, inside the stack, so a hostile stack ends
//! after at most one frame per word of it.

use super::code::{CodeId, FLAG_SP_WRITE, FLAG_TOP_FRAME, FrameCodes, Role};
use super::memory::StackMemory;

/// Where to start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// PC of the innermost frame.
    pub pc: u64,
    /// SP of the innermost frame.
    pub sp: u64,
    /// The pair is `g.syscallpc`, `g.syscallsp`.
    pub is_syscall: bool,
    /// The PC is any instruction (registers of a running thread), not a safe point: no map describes the innermost frame.
    pub any_pc: bool,
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
    let (mut pc, mut sp) = (start.pc, start.sp);
    if pc == 0 {
        // A call of a nil func value: the return address is on top of the stack.
        match stack.word(sp) {
            Some(ret) => (pc, sp) = (ret, sp.wrapping_add(8)),
            None => return End::OutOfStack,
        }
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
        if cfa <= sp || cfa > stack.end() {
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
        callee = code.role;
        frames.push(Frame { cfa, code: id, mode });
        if flag & FLAG_TOP_FRAME != 0 {
            return End::Top;
        }
        if flag & FLAG_SP_WRITE != 0 && !innermost {
            return End::SpWrite;
        }
        let Some(ret) = stack.word(cfa.wrapping_sub(8)) else { return End::OutOfStack };
        if ret == 0 {
            return End::Top;
        }
        id = match codes.find(ret) {
            Some(caller) => caller,
            None => return End::UnknownReturn,
        };
        sp = cfa;
        innermost = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::stacks::code::{FrameCode, StackMaps};

    #[derive(Default)]
    struct Codes(Vec<FrameCode>);

    impl Codes {
        fn add(&mut self, pc: u64, spdelta: i64, flag: u8, role: Role) -> &mut Self {
            self.0.push(FrameCode {
                pc,
                func: pc as u32,
                name: format!("f{pc}").into(),
                entry: pc & !0xf,
                flag,
                role,
                no_sp_table: false,
                sp: -(spdelta + 8),
                varp: if spdelta > 0 { -16 } else { -8 },
                argp: 0,
                arg_words: Some(0),
                deferreturn_pc: None,
                maps: StackMaps::default(),
            });
            self
        }
    }

    impl FrameCodes for Codes {
        fn find(&mut self, pc: u64) -> Option<CodeId> {
            self.0.iter().position(|c| c.pc == pc).map(|i| CodeId(i as u32))
        }

        fn code(&self, id: CodeId) -> &FrameCode {
            &self.0[id.0 as usize]
        }
    }

    fn stack(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    fn run(start: (u64, u64), any_pc: bool, words: &[u64], codes: &mut Codes) -> (Vec<(u64, u64, FrameMode)>, End) {
        let bytes = stack(words);
        let mut frames = Vec::new();
        let start = Start { pc: start.0, sp: start.1, is_syscall: false, any_pc };
        let end = unwind(start, StackMemory::new(0x1000, &bytes), codes, &mut frames);
        (frames.into_iter().map(|f| (codes.code(f.code).pc, f.cfa, f.mode)).collect(), end)
    }

    #[test]
    fn follows_return_addresses_to_the_top_frame() {
        let mut codes = Codes::default();
        codes.add(1, 16, 0, Role::Normal).add(2, 0, 0, Role::Normal).add(3, 8, FLAG_TOP_FRAME, Role::Normal);
        let (frames, end) = run((1, 0x1000), false, &[0, 0, 2, 3, 0, 0], &mut codes);
        assert_eq!(end, End::Top);
        use FrameMode::Exact;
        assert_eq!(frames, [(1, 0x1018, Exact), (2, 0x1020, Exact), (3, 0x1030, Exact)]);
    }

    #[test]
    fn nil_call_starts_at_the_pushed_return_address() {
        let mut codes = Codes::default();
        codes.add(7, 0, FLAG_TOP_FRAME, Role::Normal);
        let (frames, end) = run((0, 0x1000), false, &[7, 0, 0], &mut codes);
        assert_eq!((frames.len(), frames[0].1, end), (1, 0x1010, End::Top));
    }

    #[test]
    fn sigpanic_and_preemption_change_the_callers_mode() {
        let mut codes = Codes::default();
        codes.add(1, 0, 0, Role::SigPanic).add(2, 0, 0, Role::Normal).add(3, 0, 0, Role::Injected);
        codes.add(4, 0, 0, Role::Normal).add(5, 0, FLAG_TOP_FRAME, Role::Normal);
        let (frames, _) = run((1, 0x1000), false, &[2, 3, 4, 5, 0], &mut codes);
        use FrameMode::*;
        let modes: Vec<_> = frames.iter().map(|f| f.2).collect();
        assert_eq!(modes, [Exact, Trapped, Conservative, ConservativeAnyPc, Exact]);
    }

    #[test]
    fn registers_make_only_the_innermost_frame_conservative() {
        let mut codes = Codes::default();
        codes.add(1, 0, FLAG_SP_WRITE, Role::Normal).add(2, 0, 0, Role::Normal).add(3, 0, FLAG_SP_WRITE, Role::Normal);
        let (frames, end) = run((1, 0x1000), true, &[2, 3, 1, 1], &mut codes);
        use FrameMode::*;
        assert_eq!(frames.iter().map(|f| f.2).collect::<Vec<_>>(), [ConservativeAnyPc, Exact, Exact]);
        assert_eq!(end, End::SpWrite, "an outer function that writes SP ends it");
    }

    #[test]
    fn hostile_stacks_end() {
        let mut codes = Codes::default();
        codes.add(1, 0, 0, Role::Normal).add(2, i64::from(i32::MAX), 0, Role::Normal).add(3, -8, 0, Role::Normal);
        let (frames, end) = run((1, 0x1000), false, &[1; 100], &mut codes);
        assert_eq!((frames.len(), end), (100, End::OutOfStack));
        assert_eq!(run((2, 0x1000), false, &[1; 4], &mut codes), (vec![], End::OutOfStack));
        assert_eq!(run((3, 0x1000), false, &[3; 4], &mut codes), (vec![], End::OutOfStack));
        assert_eq!(run((1, u64::MAX - 3), false, &[1; 4], &mut codes).1, End::OutOfStack);
        assert_eq!(run((9, 0x1000), false, &[1; 4], &mut codes).1, End::UnknownPc);
        assert_eq!(run((1, 0x1000), false, &[9; 4], &mut codes).1, End::UnknownReturn);
    }
}
