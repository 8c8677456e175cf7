//! The machines that programs ran on: what Linux and Go's ABI say about registers and frames of each. Every difference between
//! machines is a field of [`Architecture`]; code asks for the field, not for the machine.
//!
//! Sources: `struct user_regs_struct`/`user_pt_regs` and the signal frames of Linux, `cmd/compile/abi-internal.md`, and traceback.go,
//! stkframe.go and `signal_*.go` of the Go runtime.

/// Where a structure of the kernel keeps the registers of a thread: words, counted from `offset`.
#[derive(Debug, PartialEq, Eq)]
pub struct SavedRegisters {
    /// Bytes from the start of the structure to word 0.
    pub offset: u64,
    /// Word of the program counter.
    pub pc: u64,
    /// Words of the general registers in DWARF numbering.
    pub dwarf: &'static [u64],
}

impl SavedRegisters {
    /// Program counter and general registers, the latter in DWARF numbering; `None` if `word` has not all of them.
    ///
    /// * `word`: reads the word at an offset in bytes from the start of the structure.
    pub fn read(&self, word: impl Fn(u64) -> Option<u64>) -> Option<(u64, Vec<u64>)> {
        let at = |i: &u64| word(self.offset + i * 8);
        Some((at(&self.pc)?, self.dwarf.iter().map(at).collect::<Option<_>>()?))
    }
}

/// What differs between machines. All are 64-bit and little-endian.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// `GOARCH`.
    pub name: &'static str,
    /// `e_machine` of its ELF files.
    pub e_machine: u16,
    /// Registers in `struct elf_prstatus` (NT_PRSTATUS).
    pub prstatus: SavedRegisters,
    /// Registers that a signal interrupted, from the CFA of the handler (`runtime.sigtramp`) on.
    pub signal_frame: SavedRegisters,
    /// Bytes from there to `uc_stack` of the ucontext, whose `uc_link` is the word before.
    pub signal_stack: u64,
    /// Code of the C library's and the kernel's functions that handlers return to: the last instruction is the system call.
    pub sigreturn: &'static [u8],
    /// Bytes of that last instruction.
    pub syscall_len: usize,
    /// DWARF number of the stack pointer.
    pub dwarf_sp: usize,
    /// DWARF number of the register for closures (`REGCTXT`).
    pub dwarf_ctxt: usize,
    /// DWARF number of the register that holds `g` in all Go code, assembly included, and gets a new one before SP does; `None` where
    /// only compiled code keeps it.
    pub dwarf_g: Option<usize>,
    /// DWARF number of the link register, on machines whose calls leave the return address there (`usesLR`).
    pub dwarf_lr: Option<usize>,
    /// Bytes that a call pushes: the return address, or nothing.
    pub call_pushes: i64,
    /// Bytes between a function's CFA and its arguments (`sys.MinFrameSize`): the caller's own slot for the return address.
    pub min_frame_size: i64,
    /// Frames with no more bytes than that below `varp` have no map of locals.
    pub min_locals: i64,
    /// Bytes that a signal handler pushes beside the return address when it makes the interrupted function call another one
    /// (`(*sigctxt).pushCall`): the link register that this call destroys.
    pub injected_call: i64,
    /// Integer registers for arguments.
    pub int_args: u32,
    /// Floating-point registers for arguments.
    pub float_args: u32,
}

impl Architecture {
    /// The one with this `e_machine`, if it is supported.
    #[must_use]
    pub fn of_machine(e_machine: u16) -> Option<&'static Self> {
        [&AMD64, &ARM64].into_iter().find(|a| a.e_machine == e_machine)
    }

    /// The value of the link register among `dwarf_regs`; 0 if there is none.
    #[must_use]
    pub fn link_register(&self, dwarf_regs: &[u64]) -> u64 {
        self.dwarf_lr.and_then(|i| dwarf_regs.get(i)).copied().unwrap_or(0)
    }

    /// The value of the stack pointer among `dwarf_regs`; 0 if it is not there.
    #[must_use]
    pub fn stack_pointer(&self, dwarf_regs: &[u64]) -> u64 {
        dwarf_regs.get(self.dwarf_sp).copied().unwrap_or(0)
    }
}

/// linux/amd64. DWARF numbers: rax rdx rcx rbx rsi rdi rbp rsp r8..r15.
pub static AMD64: Architecture = Architecture {
    name: "amd64",
    e_machine: 62,
    // r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp
    prstatus: SavedRegisters { offset: 112, pc: 16, dwarf: &[10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0] },
    // The return address and then the ucontext; in it uc_flags, uc_link, uc_stack and r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip.
    signal_frame: SavedRegisters { offset: 40, pc: 16, dwarf: &[13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7] },
    signal_stack: 16,
    sigreturn: &[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05], // mov $15, %rax; syscall
    syscall_len: 2,
    dwarf_sp: 7,
    dwarf_ctxt: 1,
    dwarf_g: None,
    dwarf_lr: None,
    call_pushes: 8,
    min_frame_size: 0,
    min_locals: 0,
    injected_call: 0,
    int_args: 9,    // RAX RBX RCX RDI RSI R8 R9 R10 R11
    float_args: 15, // X0..X14
};

/// linux/arm64. DWARF numbers: x0..x30 (x30 is the link register), sp.
pub static ARM64: Architecture = Architecture {
    name: "arm64",
    e_machine: 183,
    // x0..x30 sp pc pstate
    prstatus: SavedRegisters { offset: 112, pc: 32, dwarf: &X0_TO_SP },
    // siginfo (128 bytes), and the ucontext: uc_flags, uc_link, uc_stack, uc_sigmask (128 bytes with its reserve), 8 bytes of
    // padding, fault_address, and the same registers.
    signal_frame: SavedRegisters { offset: 128 + 176 + 8, pc: 32, dwarf: &X0_TO_SP },
    signal_stack: 128 + 16,
    sigreturn: &[0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4], // mov x8, #139; svc #0
    syscall_len: 4,
    dwarf_sp: 31,
    dwarf_ctxt: 26,
    dwarf_g: Some(28),
    dwarf_lr: Some(30),
    call_pushes: 0,
    min_frame_size: 8,
    min_locals: 16,
    injected_call: 16,
    int_args: 16,   // R0..R15
    float_args: 16, // F0..F15
};

const X0_TO_SP: [u64; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < words.len() {
        words[i] = i as u64;
        i += 1;
    }
    words
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_known_by_their_elf_number() {
        assert_eq!(Architecture::of_machine(62), Some(&AMD64));
        assert_eq!(Architecture::of_machine(183), Some(&ARM64));
        assert_eq!(Architecture::of_machine(40), None);
    }

    #[test]
    fn every_register_has_a_word_of_its_own() {
        for machine in [&AMD64, &ARM64] {
            for saved in [&machine.prstatus, &machine.signal_frame] {
                let mut words: Vec<u64> = saved.dwarf.iter().copied().chain([saved.pc]).collect();
                words.sort_unstable();
                words.dedup();
                assert_eq!(words.len(), saved.dwarf.len() + 1, "{}", machine.name);
            }
            let (pc, registers) = machine.prstatus.read(Some).expect("all words are there");
            assert_eq!(pc, 112 + machine.prstatus.pc * 8);
            assert_eq!(machine.stack_pointer(&registers), registers[machine.dwarf_sp]);
            assert_eq!(machine.prstatus.read(|at| (at < 112).then_some(0)), None);
        }
    }
}
