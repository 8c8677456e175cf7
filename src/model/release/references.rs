//! Which static addresses machine code refers to. Not a disassembler: what looks like a reference is one, and whoever asks checks what
//! lies there.

use crate::address::AddrRange;
use crate::architecture::Architecture;
use rustc_hash::FxHashMap;

/// An instruction set that executables come in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in crate::model) enum Machine {
    /// x86-64: operands relative to the next instruction.
    Amd64,
    /// AArch64: a page by `ADRP`, the rest by the instruction that uses it.
    Arm64,
}

impl Machine {
    /// The one of `architecture`.
    pub(in crate::model) fn of(architecture: &Architecture) -> Option<Self> {
        match architecture.name {
            "amd64" => Some(Self::Amd64),
            "arm64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// The addresses inside `within` that `code` at `pc` seems to refer to, sorted, each once.
    pub(super) fn references(self, code: &[u8], pc: u64, within: &[AddrRange]) -> Vec<u64> {
        let mut found = Vec::new();
        let mut add = |target: u64| {
            if within.iter().any(|range| range.contains(crate::address::Addr(target))) {
                found.push(target);
            }
        };
        match self {
            Self::Amd64 => {
                for (i, bytes) in code.windows(4).enumerate() {
                    let displacement = i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                    let next = pc.wrapping_add(i as u64 + 4).wrapping_add_signed(displacement);
                    // The displacement ends the instruction, or a constant of a byte does.
                    add(next);
                    add(next.wrapping_add(1));
                }
            }
            Self::Arm64 => each_access(code, pc, |target, _| add(target)),
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Calls `f` for each address that `code` at `pc` seems to put into a register, in the order of the instructions.
    pub(in crate::model) fn each_address(self, code: &[u8], pc: u64, mut f: impl FnMut(u64)) {
        match self {
            Self::Amd64 => {
                // LEAQ displacement(IP), register: a prefix, the opcode, the register, the displacement.
                for at in memchr::memchr_iter(0x8d, code) {
                    if let Some(&[prefix, _, operand, a, b, c, d]) =
                        at.checked_sub(1).and_then(|at| code.get(at..at + 7)?.first_chunk())
                        && prefix & 0xf8 == 0x48
                        && operand & 0xc7 == 5
                    {
                        let displacement = i64::from(i32::from_le_bytes([a, b, c, d]));
                        f(pc.wrapping_add(at as u64 + 6).wrapping_add_signed(displacement));
                    }
                }
            }
            Self::Arm64 => each_access(code, pc, |target, access| {
                if access == Access::Address {
                    f(target);
                }
            }),
        }
    }

    /// Counts, by address, what may be a test of `runtime.writeBarrier.enabled`.
    pub(super) fn count_flag_tests(self, code: &[u8], pc: u64, counts: &mut FxHashMap<u64, u32>) {
        match self {
            Self::Amd64 => {
                // CMPL $0, displacement(IP)
                for (i, bytes) in code.windows(7).enumerate() {
                    if let [0x83, 0x3d, a, b, c, d, 0] = *bytes {
                        let displacement = i64::from(i32::from_le_bytes([a, b, c, d]));
                        let target = pc.wrapping_add(i as u64 + 7).wrapping_add_signed(displacement);
                        *counts.entry(target).or_insert(0) += 1;
                    }
                }
            }
            Self::Arm64 => each_access(code, pc, |target, access| {
                if access == Access::Load32 {
                    *counts.entry(target).or_insert(0) += 1;
                }
            }),
        }
    }
}

/// What an AArch64 instruction does with an address.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Access {
    Address,
    Load32,
    Other,
}

/// Calls `f` for each address made by `ADRP` and a following instruction with the same register. Up to Go 1.19 that is an `ADD`, and the
/// access comes behind it.
fn each_access(code: &[u8], pc: u64, mut f: impl FnMut(u64, Access)) {
    let mut pages: [Option<u64>; 32] = [None; 32];
    for (i, word) in (0u64..).zip(code.chunks_exact(4)) {
        let insn = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let (rd, rn) = ((insn & 31) as usize, (insn >> 5 & 31) as usize);
        if insn & 0x9f00_0000 == 0x9000_0000 {
            let imm = (insn >> 5 & 0x7_ffff) << 2 | insn >> 29 & 3;
            // 21 bits with a sign, in pages of 4 KiB.
            let pages_off = i64::from((imm << 11).cast_signed() >> 11);
            pages[rd] = Some((pc.wrapping_add(i * 4) & !0xfff).wrapping_add_signed(pages_off << 12));
            continue;
        }
        let imm12 = u64::from(insn >> 10 & 0xfff);
        let access = match insn & 0xffc0_0000 {
            0x9100_0000 => Some((imm12, Access::Address)),
            0xf940_0000 | 0xf900_0000 => Some((imm12 * 8, Access::Other)),
            0xb940_0000 => Some((imm12 * 4, Access::Load32)),
            0xb900_0000 => Some((imm12 * 4, Access::Other)),
            0x3940_0000 | 0x3900_0000 => Some((imm12, Access::Other)),
            _ => None,
        };
        if let Some((offset, access)) = access
            && let Some(page) = pages[rn]
        {
            f(page.wrapping_add(offset), access);
            if access == Access::Address && rd == rn {
                pages[rd] = Some(page.wrapping_add(offset));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Addr;

    const DATA: [AddrRange; 1] = [AddrRange { start: Addr(0x2000), len: 0x1000 }];

    #[test]
    fn amd64() {
        // MOVQ 0xff9(IP), AX; CMPL $0, 0x1000(IP); NOP.
        let code = [0x48, 0x8b, 0x05, 0xf9, 0x0f, 0, 0, 0x83, 0x3d, 0, 0x10, 0, 0, 0, 0x90];
        let found = Machine::Amd64.references(&code, 0x1000, &DATA);
        assert!(found.contains(&0x2000) && found.contains(&0x200e), "{found:x?}");
        let mut counts = FxHashMap::default();
        Machine::Amd64.count_flag_tests(&code, 0x1000, &mut counts);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(0x200e, 1)]);
    }

    #[test]
    fn arm64() {
        // ADRP R27, +1 page; MOVWU 0x10(R27), R1; ADRP R0, -1 page; ADD $0x20, R0, R0.
        let code: Vec<u8> =
            [0xb000_001b_u32, 0xb940_1361, 0xf0ff_ffe0, 0x9100_8000].into_iter().flat_map(u32::to_le_bytes).collect();
        let within = [AddrRange { start: Addr(0), len: 0x4000 }];
        assert_eq!(Machine::Arm64.references(&code, 0x1000, &within), [0x20, 0x2010]);
        let mut counts = FxHashMap::default();
        Machine::Arm64.count_flag_tests(&code, 0x1000, &mut counts);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(0x2010, 1)]);
    }

    #[test]
    fn addresses_in_order() {
        // LEAQ 0x2ff9(IP), AX; MOVQ 0x10(IP), CX; LEAQ -0x1015(IP), R9; LEAQ 8(SP), AX.
        let amd64 = [
            0x48, 0x8d, 0x05, 0xf9, 0x2f, 0, 0, 0x48, 0x8b, 0x0d, 0x10, 0, 0, 0, 0x4c, 0x8d, 0x0d, 0xeb, 0xef, 0xff,
            0xff, 0x48, 0x8d, 0x44, 0x24, 8,
        ];
        let mut found = Vec::new();
        Machine::Amd64.each_address(&amd64, 0x1000, |addr| found.push(addr));
        assert_eq!(found, [0x4000, 0]);
        // ADRP R1, +1 page; MOVWU 0x10(R1), R2; ADRP R0, -1 page; ADD $0x20, R0, R0.
        let arm64 = [0xb000_0001_u32, 0xb940_1022, 0xf0ff_ffe0, 0x9100_8000].into_iter().flat_map(u32::to_le_bytes);
        found.clear();
        Machine::Arm64.each_address(&arm64.collect::<Vec<_>>(), 0x1000, |addr| found.push(addr));
        assert_eq!(found, [0x20]);
    }

    /// As Go 1.18 has it.
    #[test]
    fn arm64_with_the_address_in_a_register() {
        // ADRP R27, +1 page; ADD $0xc0, R27, R27; MOVWU (R27), R1.
        let code: Vec<u8> =
            [0xb000_001b_u32, 0x9103_037b, 0xb940_0361].into_iter().flat_map(u32::to_le_bytes).collect();
        let mut counts = FxHashMap::default();
        Machine::Arm64.count_flag_tests(&code, 0x1000, &mut counts);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(0x20c0, 1)]);
    }

    #[test]
    fn any_bytes_do() {
        for machine in [Machine::Amd64, Machine::Arm64] {
            for len in 0..40 {
                let code = vec![0xff; len];
                machine.references(&code, u64::MAX - 3, &DATA);
                machine.each_address(&code, u64::MAX - 3, |_| {});
                machine.count_flag_tests(&code, u64::MAX, &mut FxHashMap::default());
            }
        }
    }
}
