//! What the function tables say about one PC: frame geometry, stack maps, stack objects. Built once per distinct PC, shared by all
//! goroutines that stand there.
//!
//! Everything is relative to the *canonical frame address* (CFA), the caller's SP (`stkframe.fp`), because that is how DWARF names
//! slots: a slot's offset from it is a property of the PC, not of the goroutine. Source: `(*stkframe).getStackMap`,
//! `(*unwinder).resolveInternal`.

use super::bits::Bits;
use crate::architecture::Architecture;
use std::sync::Arc;

/// `abi.FuncFlag`: outermost function of its stack.
pub const FLAG_TOP_FRAME: u8 = 1;
/// `abi.FuncFlag`: writes SP, cannot be unwound through.
pub const FLAG_SP_WRITE: u8 = 2;

/// Functions that the unwinder and the scan treat specially (`abi.FuncID`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// None of the others.
    Normal,
    /// `runtime.sigpanic`: its caller continues at its deferreturn call or never.
    SigPanic,
    /// `runtime.asyncPreempt`, `runtime.debugCallV2`: injected calls; they and their caller are scanned conservatively.
    Injected,
    /// `runtime.cgocallback`: keeps both stacks unwindable although it writes SP.
    CgoCallback,
    /// `runtime.sigtramp`, `runtime.cgoSigtramp`: their caller is the kernel's signal frame.
    SigTramp,
    /// `runtime.sigreturn`, to which the former return: SP is at the kernel's signal frame.
    SigReturn,
    /// `gogo`: takes SP from `g.sched` and jumps to the PC there, so that it has no caller on the stack it leads to.
    Gogo,
}

impl Role {
    /// Called by a signal handler in the name of the function that it interrupted (`isInjectedCall`).
    #[must_use]
    pub const fn is_injected(self) -> bool {
        matches!(self, Self::SigPanic | Self::Injected)
    }
}

/// A stack object: an address-taken variable or a temporary whose address is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackObject {
    /// Offset from the CFA.
    pub offset: i64,
    /// Size in bytes.
    pub size: u64,
    /// Pointer words from its start.
    pub mask: Bits,
}

/// Live pointer words of a frame that continues at a PC, and its stack objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackMaps {
    /// Bit `i` is the word at `locals_offset + 8 * i`.
    pub locals: Bits,
    /// CFA offset of the first bit of `locals`.
    pub locals_offset: i64,
    /// Bit `i` is the word at `FrameCode::argp + 8 * i`.
    pub args: Bits,
    /// In table order.
    pub objects: Vec<StackObject>,
    /// There is a map or a table whose memory cannot be read.
    pub unread: bool,
}

/// One PC.
#[derive(Clone, Debug)]
pub struct FrameCode {
    /// The PC.
    pub pc: u64,
    /// Canonical function number.
    pub func: u32,
    /// Function name.
    pub name: Arc<str>,
    /// Entry PC.
    pub entry: u64,
    /// `abi.FuncFlag` bits.
    pub flag: u8,
    /// Special treatment.
    pub role: Role,
    /// The function has no SP table: the stack ends here (`f.pcsp == 0`).
    pub no_sp_table: bool,
    /// The function's frame is not there: its prologue, or it never makes one. Only what calls push lies above SP.
    pub frameless: bool,
    /// SP as an offset from the CFA: minus `spdelta` and what a call pushes.
    pub sp: i64,
    /// Top of the locals as an offset from the CFA.
    pub varp: i64,
    /// End of the words that a conservative scan takes from SP on, as an offset from the CFA: `varp`, and in an injected call also
    /// the link register that the signal handler pushed. Collectors before Go 1.26.6 forget that one and may free what only it
    /// holds, but the program goes on with it.
    pub conservative_end: i64,
    /// Arguments as an offset from the CFA.
    pub argp: i64,
    /// Words of arguments, results and spill slots; `None` if only a reflect call record knows.
    pub arg_words: Option<u32>,
    /// Where it continues after a recovered panic: `entry + deferreturn + 1`; `None` if never.
    pub deferreturn_pc: Option<u64>,
    /// Maps of a frame that continues at this PC.
    pub maps: StackMaps,
}

impl FrameCode {
    /// The geometry of a frame with `spdelta` bytes below its CFA, return address not counted; all else is empty.
    ///
    /// * `spdelta`: `None` (missing or damaged tables) gives a frame that ends below its SP: the unwinder stops there.
    #[must_use]
    pub fn with_geometry(architecture: &Architecture, role: Role, spdelta: Option<i32>) -> Self {
        let call = architecture.call_pushes;
        // A frame keeps its caller's frame pointer in its uppermost word: on arm64, where the frame pointer is SP-8, in the same place.
        let saved_fp = if spdelta.is_some_and(|d| d > 0) { 8 } else { 0 };
        let varp = -call - saved_fp;
        let pushed = if role.is_injected() { architecture.injected_call } else { 0 };
        Self {
            pc: 0,
            func: 0,
            name: "".into(),
            entry: 0,
            flag: 0,
            role,
            no_sp_table: false,
            frameless: spdelta == Some(0),
            sp: spdelta.map_or(8, |d| -(i64::from(d) + call)),
            varp,
            conservative_end: varp + pushed,
            argp: architecture.min_frame_size,
            arg_words: None,
            deferreturn_pc: None,
            maps: StackMaps::default(),
        }
    }

    /// Words of the frame proper from SP up to the arguments' end, as far as statically known: bounds every slot of the frame.
    #[must_use]
    pub fn span_words(&self) -> u64 {
        let args = i64::from(self.arg_words.unwrap_or(0)) * 8;
        ((self.argp + args - self.sp).max(0) / 8) as u64
    }
}

/// Index of a [`FrameCode`] in a worker's view of the function tables.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct CodeId(pub u32);

/// The unwinder's only view of the function tables. Ids instead of references, so that a frame takes two words and no reference
/// count is shared between workers.
pub trait FrameCodes {
    /// The machine whose code this is.
    fn architecture(&self) -> &'static Architecture;
    /// The code at `pc`, `None` if no module's function holds it.
    fn find(&mut self, pc: u64) -> Option<CodeId>;
    /// The code with this id.
    fn code(&self, id: CodeId) -> &FrameCode;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64};

    /// SP, varp, conservative end and arguments, as `resolveInternal` computes them from a CFA of 0.
    fn geometry(machine: &Architecture, role: Role, spdelta: i32) -> [i64; 4] {
        let code = FrameCode::with_geometry(machine, role, Some(spdelta));
        assert_eq!(code.frameless, spdelta == 0);
        [code.sp, code.varp, code.conservative_end, code.argp]
    }

    #[test]
    fn frames_of_amd64_have_their_return_address_at_the_top() {
        assert_eq!(geometry(&AMD64, Role::Normal, 0), [-8, -8, -8, 0]);
        assert_eq!(geometry(&AMD64, Role::Normal, 40), [-48, -16, -16, 0]);
        assert_eq!(geometry(&AMD64, Role::Injected, 40), [-48, -16, -16, 0]);
    }

    #[test]
    fn frames_of_arm64_have_it_at_the_bottom() {
        assert_eq!(geometry(&ARM64, Role::Normal, 0), [0, 0, 0, 8]);
        assert_eq!(geometry(&ARM64, Role::Normal, 48), [-48, -8, -8, 8]);
        assert_eq!(geometry(&ARM64, Role::Injected, 48), [-48, -8, 8, 8]);
        assert_eq!(geometry(&ARM64, Role::SigPanic, 48), [-48, -8, 8, 8]);
    }
}
