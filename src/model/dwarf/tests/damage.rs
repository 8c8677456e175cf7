//! Damaged debug sections: any result but a panic or an endless loop.

use super::uncompressed;
use crate::image::executable::Executable;
use crate::model::dwarf::DebugInfo;
use std::path::Path;

/// A small generator (xorshift), so that runs repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Reads all there is to read.
fn exercise(bytes: &[u8]) {
    let Ok(exe) = Executable::parse(bytes, Path::new("damaged")) else { return };
    let Ok(info) = DebugInfo::load(&exe) else { return };
    for f in info.functions.iter().step_by(7) {
        let _ = info.function_name(f.low_pc);
        let _ = info.variables_at(f.low_pc);
        let _ = info.variables_at(f.low_pc / 2 + f.high_pc / 2);
        let _ = info.closure_layout(&info.types, f.low_pc);
    }
}

fn debug_sections(bytes: &[u8]) -> Vec<(usize, usize)> {
    let exe = Executable::parse(bytes, Path::new("program")).unwrap();
    let sections = exe.sections().filter(|s| s.name.starts_with(".debug_") && !s.data().is_empty());
    sections.map(|s| (s.data().as_ptr() as usize - bytes.as_ptr() as usize, s.data().len())).collect()
}

#[test]
fn flipped_bits() {
    for original in uncompressed().unwrap_or_default() {
        let sections = debug_sections(&original);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..60 {
            let mut bytes = original.clone();
            for _ in 0..1 << (round % 12) {
                let (start, len) = sections[random.below(sections.len())];
                // Half of the flips in the front, where headers and abbreviations are.
                let front = random.below(2) == 0;
                let at = random.below(if front { len.min(300) } else { len });
                bytes[start + at] ^= 1 << random.below(8);
            }
            exercise(&bytes);
        }
    }
}

#[test]
fn overwritten_runs() {
    for original in uncompressed().unwrap_or_default() {
        let sections = debug_sections(&original);
        let mut random = Random(42);
        for round in 0..30 {
            let mut bytes = original.clone();
            let (start, len) = sections[round % sections.len()];
            let at = random.below(len);
            let end = (at + 1 + random.below(4096)).min(len);
            bytes[start + at..start + end].fill([0, 0xff, 0x01, 0x80][round % 4]);
            exercise(&bytes);
        }
    }
}

#[test]
fn truncated_file() {
    for original in uncompressed().unwrap_or_default() {
        for part in 1..20 {
            exercise(&original[..original.len() * part / 20]);
        }
    }
}
